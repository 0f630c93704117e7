"""Ingress: from a connector's message to a stored one. `emit` returns when the bus has it on disk, not before.

Safe to be killed between any two lines: a message that was not confirmed to its platform comes again with the same
id, and the same id is stored and answered once.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec
from msgspec.structs import replace

from bus import streams, subjects
from bus.contract import Bus, Sessions
from connectors import Accepted, Capabilities
from connectors.host.admit import Meter, check_message
from connectors.host.metrics import Metrics
from connectors.host.recall import Last, Recall, last_of, tokens_of
from connectors.host.route import Asked, Chosen, Seat, route
from connectors.host.wishes import check_picture
from schemas.config import Config, ConnectorConfig, ModelConfig
from schemas.errors import Rejected, Retryable, RoostError
from schemas.message import Inbound, RequestState, Sampling, token

log = logging.getLogger("roost.ingress")

_encode = msgspec.json.encode
CONVERSATION = re.compile(r"[a-z2-7]{26}")


def conversation_token(channel: str, conversation: str) -> str:
    """The token of a platform's conversation id; a token stays itself."""
    return conversation if CONVERSATION.fullmatch(conversation) else token(channel, conversation)


def request_token(channel: str, id_: str) -> str:
    """The request id that a platform's message id stands for; without one, a new one."""
    return token(channel, id_ or secrets.token_hex(16))


class Turnstile:
    """Lets the messages of one conversation through one by one, in the order in which they came."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, conversation: str) -> AsyncIterator[None]:
        lock, waiting = self._locks.get(conversation) or (asyncio.Lock(), 0)
        self._locks[conversation] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[conversation]
            if waiting == 1:
                del self._locks[conversation]
            else:
                self._locks[conversation] = (lock, waiting - 1)


class House(Protocol):
    """What the router goes by; `gateway.Catalogue` keeps it."""

    @property
    def models(self) -> Sequence[ModelConfig]:
        """The configured ones."""
        ...

    @property
    def depths(self) -> Mapping[str, int]: ...

    def seats(self) -> Mapping[str, Seat] | None:
        """Live models; None while nobody knows."""
        ...

    def took(self, model: str) -> None:
        """One more message waits for it."""
        ...


class Ingress:
    """The door of one connector."""

    def __init__(
        self,
        bus: Bus,
        sessions: Sessions,
        config: Config,
        connector: ConnectorConfig,
        capabilities: Capabilities,
        metrics: Metrics,
        house: House,
    ) -> None:
        self._bus = bus
        self._sessions = sessions
        self._config = config
        self._house = house
        self.recall = Recall()
        self._connector = connector
        self._capabilities = capabilities
        self._metrics = metrics
        self.meter = Meter(config.limits)
        self._turnstile = Turnstile()

    async def emit(self, inbound: Inbound, request: str = "") -> Accepted:
        """Check, route and store one message; see `connectors.Emit`. `request` is its token, if already made."""
        try:
            return await self._emit(inbound, request or request_token(self._connector.name, inbound.id))
        except RoostError as error:
            self._metrics.refused(error.code)
            raise

    async def _emit(self, inbound: Inbound, request: str) -> Accepted:
        name = self._connector.name
        if not self._capabilities.authenticates and inbound.sender.id not in self._connector.allow:
            raise Rejected("this sender is not known here; the owner can allow it in `allow`", code="forbidden")
        check_message(inbound, self._config.limits)
        if inbound.history is not None:
            return await self._admit(inbound, request, request)
        conversation = conversation_token(name, inbound.conversation)
        async with self._turnstile.of(conversation):
            return await self._admit(inbound, request, conversation)

    async def _admit(self, inbound: Inbound, request: str, conversation: str) -> Accepted:
        """Store what is new. A request that brings its own history, or has none, is a conversation of its own."""
        name = self._connector.name
        if inbound.id and (known := await self._known(request)) is not None:
            return known
        self.meter.admit(inbound.sender.id, time.monotonic())
        last = await self._last(inbound, conversation)
        chosen = self._route(inbound, last)
        if chosen.kind == "image":
            check_picture(chosen.text or _newest(inbound), inbound.attachments, self._config.limits)
        message = replace(
            inbound,
            id=request,
            channel=name,
            conversation=conversation,
            text=chosen.text,
            kind=chosen.kind,
            model=chosen.model,
            route=chosen.route,
            received_at=time.time(),
        )
        accepted = await self._store(message)
        if inbound.history is None:
            self.recall.note(conversation, Last(accepted.model, chosen.kind, last.tokens + tokens_of(chosen.text)))
        return accepted

    async def _last(self, inbound: Inbound, conversation: str) -> Last:
        """The conversation as it was left; a request that brings its own history is as long as that."""
        if inbound.history is not None:
            return Last(tokens=sum(tokens_of(line.text) for line in inbound.history))
        known = self.recall.of(conversation)
        if known is not None or len(self._house.models) == 1:
            return known or Last()
        try:
            return last_of(await self._sessions.history(self._connector.name, conversation))
        except Retryable as error:
            log.warning("the router does not know conversation %s: %s", conversation, error.message)
            return Last()

    def _route(self, inbound: Inbound, last: Last) -> Chosen:
        """The model for a message. Of a history that the caller brings, the newest line asks."""
        own = inbound.history or ()
        asked = Asked(
            text=inbound.text or _newest(inbound),
            model=inbound.model,
            kind=inbound.kind,
            usual=self._connector.model,
            typed=not own,
            language=inbound.sender.language,
            tokens=last.tokens + tokens_of(inbound.text) + tokens_of(inbound.system or ""),
            attachments=inbound.attachments,
            abilities=abilities_of(inbound.sampling),
            last=last,
        )
        chosen = route(asked, self._house.models, self._house.seats(), self._house.depths)
        return chosen if inbound.text else replace(chosen, text="")

    async def _known(self, request: str) -> Accepted | None:
        """What became of the same id when it came before."""
        state = await self._sessions.find(self._connector.name, request)
        if state is None:
            return None
        return Accepted(
            request=request,
            conversation=state.conversation,
            model=state.model,
            state=state.state,
            duplicate=True,
            reply=state.reply,
            seq=state.seq,
        )

    async def _queue_of(self, message: Inbound, seq: int) -> str:
        """The model for which the bus holds the message that came before under the same id, if it still does."""
        subject = subjects.inbox("*", message.channel, message.conversation)
        try:
            held = await self._bus.next(streams.INBOX, subject, seq)
        except RoostError:
            return message.model
        return held.subject.split(".")[2] if held is not None and held.seq == seq else message.model

    async def _store(self, message: Inbound) -> Accepted:
        subject = subjects.inbox(message.model, message.channel, message.conversation)
        self.meter.opened(message.sender.id, message.id)
        try:
            stored = await self._bus.publish(subject, _encode(message), id=message.id)
        except BaseException:
            self.meter.closed(message.id)
            raise
        if stored.duplicate:  # it may lie in the queue of another model than the one that was chosen this time
            message = replace(message, model=await self._queue_of(message, stored.seq))
        if message.history is None:  # others are found in INBOX by their id alone
            try:
                await self._sessions.accept(queued(message, stored.seq))
            except Retryable as error:  # the message is stored: whoever answers it records it
                log.warning("request %s is accepted but not listed yet: %s", message.id, error.message)
        if stored.duplicate and (known := await self._known(message.id)) is not None and known.reply is not None:
            self.meter.closed(message.id)  # answered before: no reply will come to close it
            return known
        self._metrics.accepted(message.channel)
        if not stored.duplicate:
            self._house.took(message.model)
        return Accepted(
            request=message.id,
            conversation=message.conversation,
            model=message.model,
            duplicate=stored.duplicate,
            seq=stored.seq,
        )


def _newest(inbound: Inbound) -> str:
    """What its sender wrote last, of a history that the caller brings."""
    return next((line.text for line in reversed(inbound.history or ()) if line.role == "user"), "")


def abilities_of(sampling: Sampling) -> frozenset[str]:
    """What a request wants of its model beyond text."""
    wants = {
        "tools": bool(sampling.tools),
        "format": sampling.format is not None,
        "logprobs": sampling.logprobs is not None,
        "n": sampling.n > 1,
        "logit_bias": bool(sampling.logit_bias),
        "adapter": bool(sampling.adapter),
    }
    return frozenset(name for name, wanted in wants.items() if wanted)


def queued(message: Inbound, seq: int) -> RequestState:
    """The state of a message that INBOX holds at `seq`."""
    return RequestState(
        id=message.id,
        state="queued",
        channel=message.channel,
        conversation=message.conversation,
        model=message.model,
        seq=seq,
        updated_at=message.received_at,
        sender=message.sender.id,
        asked=message.text,
        attachments=message.attachments,
    )
