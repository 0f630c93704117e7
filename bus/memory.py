"""A bus in one process, with faults on demand, for tests: what `bus.contract.Bus` promises, without a server.

`MemoryServer` holds streams, consumers and interest; a `MemoryBus` is one process's connection to it. What always
holds: nothing is random but what `Faults` draws from its seeded generator, and no time passes but the event loop's,
so that a run with a virtual clock is the same each time. Not a broker: one process, nothing on disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from msgspec import Struct

from bus import subjects
from bus.blobs import Blobs
from bus.contract import ConsumerInfo, Message, MessageCallback, Receive, Stored, StoredMessage, StreamInfo
from bus.memory_server import Faults, MemoryServer, PullConsumer, Stream, matches
from bus.objects import Objects
from bus.pull import Delivery
from bus.streams import declared
from bus.tables import Table
from schemas.config import Config
from schemas.errors import ConfigError, Disconnected, Retryable
from schemas.event import Alert

__all__ = ["Faults", "MemoryBus", "MemoryServer"]

log = logging.getLogger("roost.memory")

PATIENCE = 3
"""Attempts at one publish, as in `bus.client`."""
BUFFER_MAX = 10_000
"""Messages that a connection keeps while its link is down."""


class MemorySubscription:
    """Interest in a subject until `close`; its callback gets one message after the other."""

    def __init__(self, bus: MemoryBus, subject: str, callback: MessageCallback, queue: str) -> None:
        self.bus = bus
        self.subject = subject
        self.queue = queue
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._callback = callback
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            message = await self.inbox.get()
            try:
                await self._callback(message)
            except Exception:
                log.exception("handler of %s failed", self.subject)

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        if self in self.bus.server.subscriptions:
            self.bus.server.subscriptions.remove(self)
        if self in self.bus.subscriptions:
            self.bus.subscriptions.remove(self)
        self._task.cancel()


class MemoryPuller:
    """See `bus.contract.Puller`."""

    def __init__(self, bus: MemoryBus, key: tuple[str, str], receive: Receive, room: Callable[[], int]) -> None:
        self.bus = bus
        self.outstanding = 0
        self._key = key
        self._receive = receive
        self._room = room
        self._stopped = False
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    def wanted(self) -> int:
        if self._stopped or not self.bus.connected:
            return 0
        return self._room() - self.outstanding

    def arrive(self, delivery: Delivery | None) -> None:
        if delivery is not None and self.bus.connected:
            self._arrived.put_nowait(delivery)
        else:  # lost on the way
            self.outstanding -= 1

    async def run(self) -> None:
        consumer = self.bus.server.consumers[self._key]
        consumer.pullers.append(self)
        consumer.pump()
        try:
            while True:
                delivery = await self._arrived.get()
                self.outstanding -= 1
                await self._receive(delivery)
                consumer.pump()
        finally:
            consumer.pullers.remove(self)

    def poke(self) -> None:
        if (consumer := self.bus.server.consumers.get(self._key)) is not None:
            consumer.pump()

    def stop(self) -> None:
        self._stopped = True


class MemoryBus:
    """One process's connection; the methods are described in `bus.client.Bus`."""

    def __init__(self, server: MemoryServer, config: Config) -> None:
        self.server = server
        self.config = config
        self.blobs = Blobs(self)
        self.on_reconnect: list[Callable[[], None]] = []
        self.subscriptions: list[MemorySubscription] = []
        self.connected = True
        self._closed = False
        self._buffer: list[Message] = []

    # -- faults -----------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """The process is killed: nothing that it does from now on has an effect."""
        self._closed, self.connected = True, False
        self._buffer.clear()
        for subscription in list(self.subscriptions):
            subscription.end()

    def disconnect(self) -> None:
        """The link is down until `reconnect`; what is sent meanwhile is kept, what would arrive is lost."""
        self.connected = False

    def reconnect(self) -> None:
        if self._closed:
            return
        self.connected = True
        buffered, self._buffer = self._buffer, []
        for message in buffered:
            self.server.route(message)
        for callback in self.on_reconnect:
            callback()
        for consumer in self.server.consumers.values():
            consumer.pump()

    async def hop(self) -> None:
        """One way to the server: time passes, and whoever else wants to may run. Raises when there is no link."""
        await asyncio.sleep(self.server.faults.delay_s())
        self._alive()
        if not self.connected:
            await asyncio.sleep(self.config.bus.request_timeout_s)
            self._alive()
            raise Retryable("the bus does not answer", code="bus_unavailable")

    def _alive(self) -> None:
        if self._closed:
            raise Disconnected("the connection to the bus is closed")

    # -- Bus --------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        self.cut()

    async def publish(
        self, subject: str, data: bytes, *, id: str | None = None, headers: dict[str, str] | None = None
    ) -> Stored:
        faults = self.server.faults
        headers = {**(headers or {}), **({"Nats-Msg-Id": id} if id is not None else {})}
        for attempt in range(PATIENCE):
            self._alive()
            await asyncio.sleep(faults.delay_s())
            if faults.happens(faults.refuse_publish):
                raise Retryable(f"the bus refuses {subject}: injected", code="bus_unavailable")
            if self.connected and not faults.happens(faults.lose_publish):
                stored = self.server.store(subject, data, headers)
                await asyncio.sleep(faults.delay_s())
                if stored is not None and self.connected and not faults.happens(faults.lose_receipt):
                    return stored
            if id is None:
                break
            await asyncio.sleep(0.2 * 2**attempt)
        self._alive()
        raise Retryable(f"the bus did not confirm a message on {subject}", code="bus_unavailable")

    async def send(self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None) -> None:
        self._alive()
        message = Message(subject, data, reply, headers or {})
        if not self.connected:
            if len(self._buffer) < BUFFER_MAX:
                self._buffer.append(message)
            return
        await asyncio.sleep(0)
        self._route(message)

    def _route(self, message: Message) -> bool:
        faults = self.server.faults
        lost = faults.lose_ack if message.subject.startswith("$JS.ACK.") else faults.lose_message
        if self._closed or faults.happens(lost):
            return True
        return self.server.route(message)

    async def subscribe(self, subject: str, callback: MessageCallback, *, queue: str = "") -> MemorySubscription:
        subscription = MemorySubscription(self, subject, callback, queue)
        self.subscriptions.append(subscription)
        self.server.subscriptions.append(subscription)
        return subscription

    async def request(
        self, subject: str, data: bytes, timeout_s: float, *, headers: dict[str, str] | None = None
    ) -> bytes:
        await self.hop()
        inbox = f"_R.request.{next(self.server.count)}"
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.server.waiting[inbox] = future
        try:
            if not self._route(Message(subject, data, inbox, headers or {})):
                raise Retryable(f"nobody answers on {subject}", code="no_answer")
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise Retryable(f"nobody answers on {subject}", code="no_answer") from None
        finally:
            del self.server.waiting[inbox]

    async def event(self, *what: str, body: Struct) -> None:
        try:
            await self.publish(subjects.event(*what), msgspec.json.encode(body))
        except (Retryable, Disconnected) as error:
            log.warning("event %s not stored: %s", ".".join(what), error.message)

    async def alert(self, code: str, message: str, *, level: str = "warning", part: str = "") -> None:
        fields = {"code": code, "message": message, "at": self.server.now(), "level": level, "part": part}
        await self.event("alert", code, body=msgspec.convert(fields, Alert))

    async def ensure_stream(self, name: str, spec: dict[str, Any]) -> None:
        await self.hop()
        if name in self.server.streams:
            self.server.streams[name].spec.update(spec)
        else:
            self.server.streams[name] = Stream({**spec, "name": name}, self.server.now)

    async def ensure_consumer(self, stream: str, name: str, spec: dict[str, Any]) -> None:
        await self.hop()
        if stream not in self.server.streams:
            raise ConfigError(f"the bus refuses consumer {name} of {stream}: stream not found")
        found = self.server.consumers.get((stream, name))
        if found is not None:
            found.spec = spec
        else:
            made = PullConsumer(self.server, self.server.streams[stream], name, spec)
            self.server.consumers[stream, name] = made

    async def consumer_info(self, stream: str, name: str) -> ConsumerInfo | None:
        await self.hop()
        found = self.server.consumers.get((stream, name))
        return None if found is None else found.info()

    def pull(self, stream: str, consumer: str, receive: Receive, room: Callable[[], int]) -> MemoryPuller:
        return MemoryPuller(self, (stream, consumer), receive, room)

    async def head(self, stream: str, subject: str, *, leader: bool = False) -> int | None:
        message = await self.next(stream, subject, 1)
        return None if message is None else message.seq

    async def get(self, stream: str, seq: int) -> StoredMessage | None:
        await self.hop()
        found = self.server.stream(stream)
        found.expire()
        return found.messages.get(seq)

    async def next(self, stream: str, subject: str, seq: int) -> StoredMessage | None:
        await self.hop()
        return self.server.stream(stream).first(subject, seq)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        await self.hop()
        return self.server.stream(stream).newest(subject)

    async def read(
        self, stream: str, subject: str, since: float | None = None, *, each: bool = False
    ) -> AsyncIterator[StoredMessage]:
        await self.hop()
        if stream not in self.server.streams:
            return
        for message in list(self.server.streams[stream].messages.values()):
            if matches(subject, message.subject) and (since is None or message.time >= since):
                yield message

    async def payload(self, headers: dict[str, str], data: bytes) -> bytes:
        return data  # payloads of any size are kept as they are

    async def delete(self, stream: str, seq: int) -> bool:
        await self.hop()
        for (of, _), consumer in self.server.consumers.items():
            if of == stream:
                consumer.forget(seq)
        return self.server.stream(stream).remove(seq)

    async def purge(self, stream: str, subject: str = "") -> int:
        await self.hop()
        found = [m.seq for m in self.server.stream(stream).messages.values() if matches(subject or ">", m.subject)]
        return sum([await self.delete(stream, seq) for seq in found])

    async def stream_infos(self) -> dict[str, StreamInfo]:
        await self.hop()
        found = {}
        for name in declared(self.config):
            if (stream := self.server.streams.get(name)) is not None:
                count = len(stream.messages)
                pending = count if stream.spec.get("retention") == "workqueue" else 0
                found[name] = StreamInfo(count, stream.bytes, pending, stream.last_seq)
        return found

    def table(self, name: str) -> Table:
        return Table(self, name)

    def objects(self, bucket: str) -> Objects:
        return Objects(self, bucket)
