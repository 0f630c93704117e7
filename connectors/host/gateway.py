"""What the gateway offers to one connector: the implementation of `connectors.Host`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bus import streams, subjects
from bus.client import Bus
from bus.contract import ConsumerInfo, Message
from bus.credentials import keep
from bus.keys import KeyRing
from bus.sessions import Sessions
from connectors import Accepted
from connectors.host.egress import Sent
from connectors.host.exchange import Exchange, Exchanges, place_of
from connectors.host.ingress import CONVERSATION, Ingress, conversation_token, queued, request_token
from connectors.host.metrics import Metrics
from connectors.host.route import STATES, Seat
from schemas.config import Config, ModelConfig
from schemas.errors import Disconnected, Rejected, Retryable
from schemas.message import Attachment, Inbound, RequestState
from schemas.model import ModelEvent, ModelStatus
from schemas.power import PowerStatus
from schemas.session import Entry, SessionInfo
from schemas.update import UpdateStatus

_inbound = msgspec.json.Decoder(Inbound)
_status = msgspec.json.Decoder(ModelStatus)
_power = msgspec.json.Decoder(PowerStatus)
_update = msgspec.json.Decoder(UpdateStatus)
_event = msgspec.json.Decoder(ModelEvent)


SEARCHED_MAX = 500
"""Messages of INBOX that are looked through for one that sessions do not know."""


class Catalogue:
    """Models of all live workers, refreshed every few seconds."""

    REFRESH_S = 2.0

    def __init__(self, bus: Bus, config: Config) -> None:
        self._bus = bus
        self._config = config
        self._rows: list[ModelStatus] = []
        self._seats: dict[str, Seat] | None = None
        self._seen = 0.0
        self.depths: dict[str, int] = {}
        """Accepted messages that are not finished, by model."""
        self.machines: list[PowerStatus] = []
        self.updates: list[UpdateStatus] = []

    @property
    def models(self) -> Sequence[ModelConfig]:
        """The configured ones, in the order of the file."""
        return self._config.models

    def configure(self, config: Config) -> None:
        """From now on these are the configured ones."""
        self._config = config
        names = {model.name for model in config.models}
        self.depths = {name: depth for name, depth in self.depths.items() if name in names}

    def seats(self) -> Mapping[str, Seat] | None:
        """Live models as the router sees them; None when nothing was heard of any lately."""
        return self._seats if time.monotonic() - self._seen < streams.LIVE_S else None

    def took(self, model: str) -> None:
        """One more message waits, before the next look at the queues."""
        self.depths[model] = self.depths.get(model, 0) + 1

    def rows(self) -> list[ModelStatus]:
        served = {row.name for row in self._rows}
        absent = [
            ModelStatus(name=m.name, type=m.type, worker="", state="absent", reason="no worker serves it now")
            for m in self._config.models
            if m.name not in served
        ]
        return self._rows + absent

    async def refresh(self) -> None:
        try:
            rows = await self._bus.table("MODELS").entries()
            machines = await self._bus.table("POWER").entries()
            slots = await self._bus.table("UPDATES").entries()
        except (Retryable, Disconnected):
            return
        self._rows = [_status.decode(row) for row in rows.values()]
        self.machines = [_power.decode(row) for row in machines.values()]
        self.updates = [_update.decode(row) for row in slots.values()]
        self._seats, self._seen = seats_of(self._rows, self._seats or {}), time.monotonic()
        for model in self._config.models:
            info = await self._consumer(model.name)
            if model.name in {m.name for m in self._config.models}:  # it may have been removed meanwhile
                self.depths[model.name] = info.unfinished + info.waiting if info is not None else 0

    async def _consumer(self, model: str) -> ConsumerInfo | None:
        try:
            return await self._bus.consumer_info(streams.INBOX, streams.work_consumer(model, self._config.limits)[0])
        except (Retryable, Disconnected):
            return None


def seats_of(rows: Sequence[ModelStatus], before: Mapping[str, Seat]) -> dict[str, Seat]:
    """One seat for each live model: its best state, all its slots, the narrowest window of its workers.

    The window of a model that is not in memory is the one it had when it was.
    """
    found: dict[str, Seat] = {}
    live = [row for row in rows if row.state in STATES]
    for row in sorted(live, key=lambda row: STATES.index(row.state)):
        seat = found.get(row.name)
        windows = [window for window in (row.context, seat.context if seat else 0) if window]
        known = before.get(row.name)
        found[row.name] = Seat(
            state=seat.state if seat else row.state,
            kinds=seat.kinds if seat else row.kinds,
            abilities=seat.abilities if seat else row.abilities,
            context=min(windows) if windows else known.context if known else 0,
            slots=row.slots + (seat.slots if seat else 0),
        )
    return found


class Gateway:
    """One connector's host; see `connectors.Host`."""

    def __init__(
        self,
        name: str,
        bus: Bus,
        sessions: Sessions,
        data: Path,
        shared: Shared,
    ) -> None:
        self.name = name
        self.bus = bus
        self.data = data
        self._sessions = sessions
        self._shared = shared
        self.metrics = shared.metrics
        self.ingress: Ingress | None = None

    @property
    def config(self) -> Config:
        """As it is now: the list of models may change while connectors run."""
        return self._shared.config

    async def emit(self, inbound: Inbound) -> Accepted:
        assert self.ingress is not None, "the gateway opens its door before connectors run"
        return await self.ingress.emit(inbound)

    async def ask(self, inbound: Inbound) -> Exchange:
        assert self.ingress is not None, "the gateway opens its door before connectors run"
        request = request_token(self.name, inbound.id)
        return await self._shared.exchanges.ask(self.name, request, inbound, self.ingress.emit)

    async def follow(self, request: str, *, stream: bool = True) -> Exchange | None:
        state = await self.state(request)
        if state is None:
            return None
        accepted = Accepted(
            request=state.id,
            conversation=state.conversation,
            model=state.model,
            state=state.state,
            duplicate=True,
            reply=state.reply,
            seq=state.seq,
        )
        return await self._shared.exchanges.follow(self.name, accepted, stream=stream)

    async def state(self, request: str) -> RequestState | None:
        for token in dict.fromkeys((request, request_token(self.name, request))):
            state = await self._sessions.find(self.name, token)
            if state is None and (state := await self._stored(token)) is None:
                state = await self._sessions.find(self.name, token)  # begun and finished in between
            if state is None:
                continue
            if state.state == "queued" and state.seq:
                state = replace(state, place=await place_of(self.bus, state.model, state.seq))
            return state
        return None

    async def _stored(self, request: str) -> RequestState | None:
        """The state of a request that nobody has begun and that sessions do not know: it lies in INBOX.

        A request that is a conversation of its own is there under its id. Others are only looked for because the
        sessions server may have been away when they were accepted.
        """
        if not CONVERSATION.fullmatch(request):
            return None
        message = await self.bus.next(streams.INBOX, subjects.inbox("*", self.name, request), 1)
        seq = 1
        for _ in range(SEARCHED_MAX):
            if message is not None and message.headers.get("Nats-Msg-Id") == request:
                return queued(_inbound.decode(message.data), message.seq)
            message = await self.bus.next(streams.INBOX, subjects.inbox_of_channel(self.name), seq)
            if message is None:
                return None
            seq = message.seq + 1
        return None

    async def cancel(self, request: str) -> None:
        state = await self.state(request)
        if state is None:
            raise Rejected("there is no such request", code="not_found")
        await self._shared.exchanges.cancel(self.name, state.id)

    def models(self) -> Sequence[ModelStatus]:
        return self._shared.catalogue.rows()

    def updates(self) -> Sequence[UpdateStatus]:
        return self._shared.catalogue.updates

    async def verify_key(self, key: str) -> str | None:
        return await self._shared.keys.verify(key)

    def secret(self, name: str, make: Callable[[], str] | None = None) -> str:
        return keep(self.data, name, make)

    async def store(self, data: bytes, media_type: str, name: str = "") -> Attachment:
        limit = self.config.limits.attachment_bytes_max
        if len(data) > limit:
            raise Rejected(f"the attachment has {len(data)} bytes; at most {limit} are taken", code="too_large")
        digest = await self.bus.blobs.put(data)
        return Attachment(sha256=digest, media_type=media_type, size_bytes=len(data), name=name)

    async def fetch(self, sha256: str) -> bytes | None:
        return await self.bus.blobs.get(sha256)

    async def history(self, conversation: str) -> Sequence[Entry]:
        return await self._sessions.history(self.name, conversation_token(self.name, conversation))

    async def conversations(self, sender: str) -> Sequence[SessionInfo]:
        return await self._sessions.conversations(self.name, sender)

    async def forget(self, conversation: str, sender: str) -> None:
        self._forgotten(conversation)
        await self._sessions.forget(self.name, conversation_token(self.name, conversation), sender)

    async def truncate(self, conversation: str, request: str) -> None:
        self._forgotten(conversation)
        await self._sessions.truncate(self.name, conversation_token(self.name, conversation), request)

    def _forgotten(self, conversation: str) -> None:
        if self.ingress is not None:
            self.ingress.recall.drop(conversation_token(self.name, conversation))

    async def pending(self, sender: str) -> Sequence[RequestState]:
        return await self._sessions.open_requests(self.name, sender)


class Shared:
    """What all connectors of one process share."""

    def __init__(self, bus: Bus, sessions: Sessions, config: Config) -> None:
        self.config = config
        self.exchanges = Exchanges(bus, sessions)
        self.sent = Sent(sessions)
        self.catalogue = Catalogue(bus, config)
        self.keys = KeyRing(bus)
        self.metrics = Metrics()
        self.metrics.watch_queues(lambda: self.catalogue.depths)
        self.metrics.watch_power(lambda: self.catalogue.machines)
        self.metrics.watch_updates(lambda: self.catalogue.updates)
        self.metrics.watch_waiting(lambda: len(self.exchanges))
        self.started = time.time()

    async def changed(self, message: Message) -> None:
        """Count an event of a model that is configured here."""
        try:
            event = _event.decode(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if any(model.name == event.model for model in self.config.models):
            self.metrics.changed(event.model, event.what, event.site)

    def configure(self, config: Config) -> None:
        """Take up a changed list of models; what else differs is of no concern to connectors that run."""
        self.config = config
        self.catalogue.configure(config)
