"""What the parts of Roost need of a bus and of sessions: the contract that the real ones and the doubles satisfy.

`bus.client.Bus` and `bus.sessions.Sessions` keep it on NATS and Redis, `bus.memory` in one process with faults;
tests/bus/test_contract.py runs over all of them. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from schemas.config import Config
from schemas.message import Outbound, RequestState
from schemas.session import Entry

if TYPE_CHECKING:
    from bus.objects import Objects
    from bus.pull import Delivery
    from bus.tables import Table

MessageCallback = Callable[["Message"], Awaitable[None]]
Receive = Callable[["Delivery"], Awaitable[None]]


class Message(Struct, frozen=True):
    """A core NATS message."""

    subject: str
    data: bytes
    reply: str
    headers: dict[str, str]


class Stored(Struct, frozen=True):
    """The stream's receipt. `duplicate`: the id was stored before, `seq` is that one's."""

    seq: int
    duplicate: bool = False


class StoredMessage(Struct, frozen=True):
    """One message as a stream keeps it; `time` is Unix seconds."""

    subject: str
    data: bytes
    headers: dict[str, str]
    seq: int
    time: float


class StreamInfo(Struct, frozen=True):
    """`pending` counts what consumers have not finished: waiting and running."""

    messages: int
    bytes: int
    pending: int
    last_seq: int


class ConsumerInfo(Struct, frozen=True):
    """How far a durable consumer is: the stream's sequence up to which it has delivered, how many of these messages
    are unfinished, and how many wait behind them."""

    delivered: int
    unfinished: int
    waiting: int = 0


class Subscription(Protocol):
    """Interest in a subject until `close`."""

    async def close(self) -> None: ...


class Puller(Protocol):
    """One process's share of a durable consumer. `run` until cancelled; `poke` when room has appeared."""

    async def run(self) -> None: ...

    def poke(self) -> None: ...

    def stop(self) -> None:
        """Ask for nothing more; what arrives for earlier requests is still received."""
        ...


class Blobs(Protocol):
    """Bytes by their SHA-256 in hex."""

    async def put(self, data: bytes) -> str: ...

    async def get(self, sha256: str) -> bytes | None: ...


class Bus(Protocol):
    """One connection; the methods are described in `bus.client.Bus`."""

    config: Config
    on_reconnect: list[Callable[[], None]]

    @property
    def blobs(self) -> Blobs: ...

    @property
    def connected(self) -> bool: ...

    async def close(self) -> None: ...

    async def publish(
        self, subject: str, data: bytes, *, id: str | None = None, headers: dict[str, str] | None = None
    ) -> Stored: ...

    async def send(
        self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None: ...

    async def subscribe(self, subject: str, callback: MessageCallback, *, queue: str = "") -> Subscription: ...

    async def request(
        self, subject: str, data: bytes, timeout_s: float, *, headers: dict[str, str] | None = None
    ) -> bytes: ...

    async def event(self, *what: str, body: Struct) -> None: ...

    async def alert(self, code: str, message: str, *, level: str = "warning", part: str = "") -> None: ...

    async def ensure_stream(self, name: str, spec: dict[str, Any]) -> None: ...

    async def ensure_consumer(self, stream: str, name: str, spec: dict[str, Any]) -> None: ...

    async def consumer_info(self, stream: str, name: str) -> ConsumerInfo | None: ...

    def pull(self, stream: str, consumer: str, receive: Receive, room: Callable[[], int]) -> Puller: ...

    async def head(self, stream: str, subject: str, *, leader: bool = False) -> int | None: ...

    async def get(self, stream: str, seq: int) -> StoredMessage | None: ...

    async def next(self, stream: str, subject: str, seq: int) -> StoredMessage | None: ...

    async def last(self, stream: str, subject: str) -> StoredMessage | None: ...

    def read(
        self, stream: str, subject: str, since: float | None = None, *, each: bool = False
    ) -> AsyncIterator[StoredMessage]: ...

    async def payload(self, headers: dict[str, str], data: bytes) -> bytes: ...

    async def delete(self, stream: str, seq: int) -> bool: ...

    async def purge(self, stream: str, subject: str = "") -> int: ...

    async def stream_infos(self) -> dict[str, StreamInfo]: ...

    def table(self, name: str) -> Table: ...

    def objects(self, bucket: str) -> Objects: ...


class Begun(Struct, frozen=True, kw_only=True):
    """What a worker learns when it begins a request.

    `reply`: it was answered before (publish that again). `owner`: another worker has the conversation.
    """

    reply: Outbound | None = None
    owner: str = ""
    cancelled: bool = False
    history: tuple[Entry, ...] = ()


class Sessions(Protocol):
    """The part of `bus.sessions.Sessions` that the straight line stands on; described there."""

    async def accept(self, state: RequestState) -> None: ...

    async def find(self, channel: str, request: str) -> RequestState | None: ...

    async def cancel(self, channel: str, request: str) -> None: ...

    async def begin(self, state: RequestState, worker: str, *, stateful: bool, force: bool = False) -> Begun: ...

    async def reopen(self, state: RequestState, mark: str) -> None: ...

    async def finish(self, state: RequestState, entries: Sequence[Entry], *, drop: int = 0) -> RequestState: ...

    async def settle(self, state: RequestState, *, title: str = "") -> None: ...

    async def open_requests(self, channel: str, sender: str) -> list[RequestState]: ...

    async def history(self, channel: str, conversation: str) -> tuple[Entry, ...]: ...

    async def forget(self, channel: str, conversation: str, sender: str) -> None: ...

    async def truncate(self, channel: str, conversation: str, request: str) -> None: ...

    async def was_sent(self, request: str) -> bool: ...

    async def mark_sent(self, marks: Sequence[str]) -> None: ...
