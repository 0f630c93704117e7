"""What the gateway offers to one connector: the implementation of `connectors.Host`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bus import streams, subjects
from bus.client import Bus
from bus.contract import ConsumerInfo
from bus.credentials import keep
from bus.keys import KeyRing
from bus.sessions import Sessions
from connectors import Accepted
from connectors.host.egress import Sent
from connectors.host.exchange import Exchange, Exchanges, place_of
from connectors.host.ingress import CONVERSATION, Ingress, conversation_token, queued, request_token
from connectors.host.metrics import Metrics
from schemas.config import Config
from schemas.errors import Disconnected, Rejected, Retryable
from schemas.message import Attachment, Inbound, RequestState
from schemas.model import ModelStatus
from schemas.session import Entry, SessionInfo

_inbound = msgspec.json.Decoder(Inbound)
_status = msgspec.json.Decoder(ModelStatus)


SEARCHED_MAX = 500
"""Messages of INBOX that are looked through for one that sessions do not know."""


class Catalogue:
    """Models of all live workers, refreshed every few seconds."""

    REFRESH_S = 2.0

    def __init__(self, bus: Bus, config: Config) -> None:
        self._bus = bus
        self._config = config
        self._rows: list[ModelStatus] = []
        self.depths: dict[str, int] = {}
        """Accepted messages that are not finished, by model."""

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
        except (Retryable, Disconnected):
            return
        self._rows = [_status.decode(row) for row in rows.values()]
        for model in self._config.models:
            info = await self._consumer(model.name)
            self.depths[model.name] = info.unfinished + info.waiting if info is not None else 0

    async def _consumer(self, model: str) -> ConsumerInfo | None:
        try:
            return await self._bus.consumer_info(streams.INBOX, streams.work_consumer(model, self._config.limits)[0])
        except (Retryable, Disconnected):
            return None


class Gateway:
    """One connector's host; see `connectors.Host`."""

    def __init__(
        self,
        name: str,
        bus: Bus,
        sessions: Sessions,
        config: Config,
        data: Path,
        shared: Shared,
    ) -> None:
        self.name = name
        self.bus = bus
        self.config = config
        self.data = data
        self._sessions = sessions
        self._shared = shared
        self.metrics = shared.metrics
        self.ingress: Ingress | None = None

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
        await self._sessions.forget(self.name, conversation_token(self.name, conversation), sender)

    async def truncate(self, conversation: str, request: str) -> None:
        await self._sessions.truncate(self.name, conversation_token(self.name, conversation), request)

    async def pending(self, sender: str) -> Sequence[RequestState]:
        return await self._sessions.open_requests(self.name, sender)


class Shared:
    """What all connectors of one process share."""

    def __init__(self, bus: Bus, sessions: Sessions, config: Config) -> None:
        self.exchanges = Exchanges(bus, sessions)
        self.sent = Sent(sessions)
        self.catalogue = Catalogue(bus, config)
        self.keys = KeyRing(bus)
        self.metrics = Metrics()
        self.metrics.watch_queues(lambda: self.catalogue.depths)
        self.metrics.watch_waiting(lambda: len(self.exchanges))
        self.started = time.time()
