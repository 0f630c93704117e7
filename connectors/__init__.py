"""Connectors. This file is their public contract; every other file or folder here is one protocol, `host/` the gateway.

What always holds: a connector speaks its platform and nothing else. It never sees NATS, Redis or a model; it hands
messages to `emit`, which returns only when the bus has stored them, and only then acknowledges to its platform.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from msgspec import Struct

from schemas.config import Config, ConnectorSettings
from schemas.message import Attachment, Delta, Inbound, Outbound, RequestState, State
from schemas.model import ModelStatus
from schemas.session import Entry, SessionInfo
from schemas.update import UpdateStatus

if TYPE_CHECKING:
    from aiohttp import web

    from bus.client import Bus
    from connectors.host.metrics import Metrics

__all__ = [
    "Accepted",
    "Capabilities",
    "Connector",
    "ConnectorSettings",
    "Emit",
    "Exchange",
    "Host",
    "Inbound",
    "Outbound",
]


class Capabilities(Struct, frozen=True):
    """What the platform can do; egress splits and formats accordingly."""

    text_bytes_max: int = 0
    """UTF-8 bytes of one platform message; longer answers are split. 0: no limit."""
    authenticates: bool = False
    """The connector itself proves who a sender is (a key, a login). Without it, only senders in `allow` may write."""
    repeatable: bool = False
    """Sending the same answer again does no harm (nobody waits any more), so egress keeps no note of it."""


class Accepted(Struct, frozen=True, kw_only=True):
    """The bus has stored the message: from here on nothing can lose it."""

    request: str
    conversation: str
    model: str
    state: State = "queued"
    duplicate: bool = False
    """The same id was accepted before; nothing was stored anew."""
    reply: Outbound | None = None
    """The answer, when a duplicate has been answered already."""
    seq: int = 0


Emit = Callable[[Inbound], Awaitable[Accepted]]
"""Store one message. Raises `Rejected` (tell the sender) or `QueueFull`/`Retryable` (nothing was stored)."""


class Exchange(Protocol):
    """One accepted request, followed by a connector whose client waits for the answer.

    Iterate for progress: `Delta` with `state="queued"` and a place, `Delta` with text, at last one `Outbound`.
    Restarts of a worker show as a `Delta` with a higher `attempt`. Leaving early does not cancel the request.
    """

    accepted: Accepted

    def __aiter__(self) -> AsyncIterator[Delta | Outbound]: ...

    async def answer(self) -> Outbound:
        """Wait for the answer alone; raises `Retryable(code="timeout")` after `limits.answer_timeout_s`."""
        ...

    async def cancel(self) -> None:
        """Ask whoever has the request to stop; the answer then has `finish="cancelled"`."""
        ...

    async def aclose(self) -> None: ...


class Host(Protocol):
    """What the gateway offers to one connector."""

    name: str
    bus: Bus
    """For the front door `roost.ask` alone; every other connector leaves NATS to the gateway."""
    metrics: Metrics
    """What this process counts; `metrics.render()` is Prometheus' text format."""

    @property
    def config(self) -> Config:
        """As it is now. Its `models` change while connectors run: look each time, keep nothing of them."""
        ...

    async def emit(self, inbound: Inbound) -> Accepted: ...

    async def ask(self, inbound: Inbound) -> Exchange:
        """`emit`, and follow the answer. The subscription stands before the message is published."""
        ...

    async def follow(self, request: str, *, stream: bool = True) -> Exchange | None:
        """Follow a request that was accepted earlier (also before a restart); None when it is unknown."""
        ...

    async def state(self, request: str) -> RequestState | None:
        """State by request id, or by the id the client gave (`Inbound.id`) on this connector."""
        ...

    async def cancel(self, request: str) -> None: ...

    def models(self) -> Sequence[ModelStatus]:
        """Models of all live workers, and `state="absent"` rows for configured ones nobody serves."""
        ...

    def updates(self) -> Sequence[UpdateStatus]:
        """New versions of models that are on their way, on every machine."""
        ...

    async def verify_key(self, key: str) -> str | None:
        """Name of the API key, or None. Constant time in the secret."""
        ...

    def secret(self, name: str, make: Callable[[], str] | None = None) -> str:
        """The secret kept in the data folder under `name` (0600); made on first use."""
        ...

    async def store(self, data: bytes, media_type: str, name: str = "") -> Attachment:
        """Put an attachment into the blob store."""
        ...

    async def fetch(self, sha256: str) -> bytes | None: ...

    async def history(self, conversation: str) -> Sequence[Entry]:
        """The stored conversation, oldest first. `conversation` is the platform's own id or the token."""
        ...

    async def conversations(self, sender: str) -> Sequence[SessionInfo]:
        """Conversations of one sender on this connector, newest first."""
        ...

    async def forget(self, conversation: str, sender: str) -> None:
        """Delete a stored conversation."""
        ...

    async def truncate(self, conversation: str, request: str) -> None:
        """Drop the exchange `request` and everything after it: for retry."""
        ...

    async def pending(self, sender: str) -> Sequence[RequestState]:
        """Accepted and unanswered requests of one sender on this connector."""
        ...

    @property
    def data(self) -> Path:
        """The data folder."""
        ...


class Connector(ABC):
    """One protocol. Created with its decoded settings; `run` receives, `send` delivers."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    Settings: ClassVar[type[ConnectorSettings]] = ConnectorSettings

    def __init__(self, name: str, settings: ConnectorSettings, host: Host) -> None:
        self.name = name
        self.settings = settings
        self.host = host

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Routes on the shared web server; asked for once, before it starts."""
        return ()

    async def run(self, emit: Emit) -> None:
        """Receive until cancelled. Raise `Disconnected` when the link is lost (run again after a capped back-off)
        and `AuthFailed` when credentials are refused (stopped, with an alert). Connectors whose messages come
        through `routes` need not override this.
        """
        await asyncio.Event().wait()

    @abstractmethod
    async def send(self, message: Outbound) -> None:
        """Deliver one answer; return only when the platform has confirmed it. May be called again with the same
        `message.id` after a crash.
        """
