"""A bus in one process, with faults on demand, for tests: what `bus.contract.Bus` promises, without a server.

`MemoryServer` holds streams, consumers and interest; a `MemoryBus` is one process's connection to it. What always
holds: nothing is random but what `Faults` draws from its seeded generator, and no time passes but the event loop's,
so that a run with a virtual clock is the same each time. Not a broker: one process, nothing on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import random
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from msgspec import Struct

from bus import subjects
from bus.contract import (
    ConsumerInfo,
    Message,
    MessageCallback,
    Receive,
    Stored,
    StoredMessage,
    StreamInfo,
)
from bus.pull import Delivery
from bus.streams import NS, declared
from bus.tables import Table
from schemas.config import Config
from schemas.errors import ConfigError, Disconnected, QueueFull, Retryable, Untrusted
from schemas.event import Alert

log = logging.getLogger("roost.memory")

PATIENCE = 3
"""Attempts at one publish, as in `bus.client`."""
BUFFER_MAX = 10_000
"""Messages that a connection keeps while its link is down."""


class Faults(Struct, kw_only=True):
    """Probabilities of what may go wrong, each for one step; all zero is a bus without faults."""

    rng: random.Random
    lose_delivery: float = 0.0
    double_delivery: float = 0.0
    lose_ack: float = 0.0
    lose_publish: float = 0.0
    lose_receipt: float = 0.0
    refuse_publish: float = 0.0
    lose_message: float = 0.0
    """A core message, such as an offer to another worker."""
    fail_sessions: float = 0.0
    """A call of sessions fails; half of the time it has done its work nevertheless."""
    delay_s_max: float = 0.0
    """Every hop takes up to this long, each its own time: this is what reorders."""

    def happens(self, probability: float) -> bool:
        return probability > 0 and self.rng.random() < probability

    def delay_s(self) -> float:
        return self.rng.uniform(0, self.delay_s_max) if self.delay_s_max else 0.0


def matches(pattern: str, subject: str) -> bool:
    """NATS' wildcards: `*` is one token, `>` at the end is one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    for i, part in enumerate(wanted):
        if part == ">":
            return len(given) > i
        if i >= len(given) or part not in ("*", given[i]):
            return False
    return len(wanted) == len(given)


class _Stream:
    """One stream: its messages by sequence, and the limits of its declaration."""

    def __init__(self, spec: dict[str, Any], now: Callable[[], float]) -> None:
        self.spec = spec
        self.messages: dict[int, StoredMessage] = {}
        self.last_seq = 0
        self._now = now
        self._ids: dict[str, tuple[int, float]] = {}
        self._by_subject: dict[str, list[int]] = {}

    def store(self, subject: str, data: bytes, headers: dict[str, str]) -> Stored:
        now = self._now()
        self.expire()
        id_ = headers.get("Nats-Msg-Id")
        if id_ is not None and id_ in self._ids and now - self._ids[id_][1] < self._window_s:
            return Stored(self._ids[id_][0], duplicate=True)
        if headers.get("Nats-Rollup") == "sub":
            for seq in list(self._by_subject.get(subject, ())):
                self.remove(seq)
        self._make_room(subject, len(data))
        self.last_seq += 1
        self.messages[self.last_seq] = StoredMessage(subject, data, headers, self.last_seq, now)
        self._by_subject.setdefault(subject, []).append(self.last_seq)
        if id_ is not None:
            self._ids[id_] = (self.last_seq, now)
        return Stored(self.last_seq)

    @property
    def _window_s(self) -> float:
        return float(self.spec.get("duplicate_window", 120 * NS)) / NS

    def _make_room(self, subject: str, size: int) -> None:
        spec, there = self.spec, self._by_subject.get(subject, [])
        new = spec.get("discard") == "new"
        if spec.get("max_msgs_per_subject", 0) and len(there) >= spec["max_msgs_per_subject"]:
            if spec.get("discard_new_per_subject"):
                sentence = "this conversation has too many unanswered messages; wait for an answer"
                raise QueueFull(sentence, after_s=5.0, code="conversation_full")
            self.remove(there[0])
        while self._full(size):
            if new:
                raise QueueFull("the queue is full; try again later", after_s=5.0, code="queue_full")
            self.remove(next(iter(self.messages)))

    def _full(self, size: int) -> bool:
        count, limit = self.spec.get("max_msgs", 0), self.spec.get("max_bytes", 0)
        return bool(self.messages) and bool(
            (count and len(self.messages) >= count) or (limit and self.bytes + size > limit)
        )

    @property
    def bytes(self) -> int:
        return sum(len(message.data) for message in self.messages.values())

    def expire(self) -> None:
        age = self.spec.get("max_age", 0) / NS
        while age and self.messages:
            oldest = next(iter(self.messages.values()))
            if self._now() - oldest.time < age:
                return
            self.remove(oldest.seq)

    def remove(self, seq: int) -> bool:
        message = self.messages.pop(seq, None)
        if message is None:
            return False
        there = self._by_subject[message.subject]
        there.remove(seq)
        if not there:
            del self._by_subject[message.subject]
        return True

    def first(self, pattern: str, since: int) -> StoredMessage | None:
        """The first message on `pattern` at or after `since`."""
        self.expire()
        best: int | None = None
        named = [pattern] if pattern in self._by_subject else [s for s in self._by_subject if matches(pattern, s)]
        for subject in named:
            there = self._by_subject[subject]
            at = bisect_left(there, since)
            if at < len(there) and (best is None or there[at] < best):
                best = there[at]
        return None if best is None else self.messages[best]

    def newest(self, subject: str) -> StoredMessage | None:
        self.expire()
        there = self._by_subject.get(subject)
        return self.messages[there[-1]] if there else None


class _Consumer:
    """One durable consumer: what is delivered and not acknowledged, and what is due again."""

    def __init__(self, server: MemoryServer, stream: _Stream, name: str, spec: dict[str, Any]) -> None:
        self.server = server
        self.stream = stream
        self.name = name
        self.spec = spec
        self.cursor = 0
        self.deliveries: dict[int, int] = {}
        self.pending: dict[int, asyncio.TimerHandle] = {}
        self.due: list[int] = []
        self.pullers: list[MemoryPuller] = []

    def info(self) -> ConsumerInfo:
        return ConsumerInfo(self.cursor, len(self.pending) + len(self.due))

    def pump(self) -> None:
        """Deliver what is due to whoever has room, one after the other in turn."""
        while (puller := next((p for p in self.pullers if p.wanted() > 0), None)) is not None:
            message = self._next()
            if message is None:
                return
            self.pullers.remove(puller)
            self.pullers.append(puller)
            self._deliver(puller, message)

    def _next(self) -> StoredMessage | None:
        while self.due:
            message = self.stream.messages.get(self.due.pop(0))
            if message is not None:
                return message
        if len(self.pending) >= self.spec["max_ack_pending"]:
            return None
        message = self.stream.first(self.spec["filter_subject"], self.cursor + 1)
        if message is not None:
            self.cursor = message.seq
        return message

    def _deliver(self, puller: MemoryPuller, message: StoredMessage) -> None:
        faults, loop = self.server.faults, asyncio.get_running_loop()
        count = self.deliveries[message.seq] = self.deliveries.get(message.seq, 0) + 1
        self._wait(message.seq)
        ack_to = f"$JS.ACK.{self.stream.spec['name']}.{self.name}.{count}.{message.seq}.{message.seq}.0.0"
        puller.outstanding += 1
        if faults.happens(faults.lose_delivery):
            loop.call_soon(puller.arrive, None)
            return
        delivery = Delivery(puller.bus, message.subject, message.data, dict(message.headers), ack_to)
        loop.call_later(faults.delay_s(), puller.arrive, delivery)
        if faults.happens(faults.double_delivery):
            puller.outstanding += 1
            copy = Delivery(puller.bus, message.subject, message.data, dict(message.headers), ack_to)
            loop.call_later(faults.delay_s(), puller.arrive, copy)

    def _wait(self, seq: int, wait_s: float | None = None) -> None:
        if (timer := self.pending.pop(seq, None)) is not None:
            timer.cancel()
        wait_s = self.spec["ack_wait"] / NS if wait_s is None else wait_s
        self.pending[seq] = asyncio.get_running_loop().call_later(wait_s, self._again, seq)

    def _again(self, seq: int) -> None:
        """The wait for an acknowledgement, or for a delayed redelivery, is over."""
        if (timer := self.pending.pop(seq, None)) is not None:
            timer.cancel()
        if seq not in self.stream.messages:
            return
        self.due.append(seq)
        self.due.sort()
        self.pump()

    def acknowledged(self, seq: int, body: bytes) -> None:
        """What a client says about a delivery."""
        if seq not in self.pending and seq not in self.due:
            return
        if body == b"+WPI":
            if seq in self.pending:
                self._wait(seq)
        elif body.startswith(b"-NAK"):
            delay_ns = msgspec.json.decode(body[4:])["delay"] if len(body) > 4 else 0
            if delay_ns:
                self._wait(seq, delay_ns / NS)
            else:
                self._again(seq)
        else:
            self.stream.remove(seq)
            self.forget(seq)
            self.pump()

    def forget(self, seq: int) -> None:
        if (timer := self.pending.pop(seq, None)) is not None:
            timer.cancel()
        if seq in self.due:
            self.due.remove(seq)


class MemoryServer:
    """What the processes of a test share. `now` gives Unix seconds."""

    def __init__(self, faults: Faults | None = None, now: Callable[[], float] = time.time) -> None:
        self.faults = faults or Faults(rng=random.Random(0))  # noqa: S311  not a secret
        self.now = now
        self.streams: dict[str, _Stream] = {}
        self.consumers: dict[tuple[str, str], _Consumer] = {}
        self.blobs: dict[str, bytes] = {}
        self.subscriptions: list[MemorySubscription] = []
        self.waiting: dict[str, asyncio.Future[bytes]] = {}
        self.count = itertools.count()

    def store(self, subject: str, data: bytes, headers: dict[str, str]) -> Stored | None:
        """Store in the stream that listens; None when there is none."""
        for name, stream in self.streams.items():
            if any(matches(pattern, subject) for pattern in stream.spec["subjects"]):
                stored = stream.store(subject, data, headers)
                for (of, _), consumer in self.consumers.items():
                    if of == name:
                        asyncio.get_running_loop().call_soon(consumer.pump)
                return stored
        return None

    def route(self, message: Message) -> bool:
        """Hand a core message to everybody interested, one member of each queue group; False when nobody is."""
        if message.subject.startswith("$JS.ACK."):
            _, _, stream, consumer, _, seq, *_ = message.subject.split(".")
            if (found := self.consumers.get((stream, consumer))) is not None:
                found.acknowledged(int(seq), message.data)
            return True
        if (waiting := self.waiting.get(message.subject)) is not None:
            if not waiting.done():
                waiting.set_result(message.data)
            return True
        interested = [s for s in self.subscriptions if s.bus.connected and matches(s.subject, message.subject)]
        groups: dict[str, list[MemorySubscription]] = {}
        for subscription in interested:
            if subscription.queue:
                groups.setdefault(subscription.queue, []).append(subscription)
            else:
                subscription.inbox.put_nowait(message)
        for members in groups.values():
            self.faults.rng.choice(members).inbox.put_nowait(message)
        return bool(interested)

    def stream(self, name: str) -> _Stream:
        if name not in self.streams:
            raise Retryable(f"the bus does not answer for {name}", code="bus_unavailable")
        return self.streams[name]


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


class MemoryBlobs:
    """See `bus.blobs.Blobs`."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    async def put(self, data: bytes) -> str:
        await self._bus.hop()
        digest = hashlib.sha256(data).hexdigest()
        self._bus.server.blobs[digest] = data
        return digest

    async def get(self, sha256: str) -> bytes | None:
        await self._bus.hop()
        data = self._bus.server.blobs.get(sha256)
        if data is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise Untrusted(f"blob {sha256} does not match its name; it was left out")
        return data


class MemoryBus:
    """One process's connection; the methods are described in `bus.client.Bus`."""

    def __init__(self, server: MemoryServer, config: Config) -> None:
        self.server = server
        self.config = config
        self.blobs = MemoryBlobs(self)
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
            self.server.streams[name] = _Stream({**spec, "name": name}, self.server.now)

    async def ensure_consumer(self, stream: str, name: str, spec: dict[str, Any]) -> None:
        await self.hop()
        if stream not in self.server.streams:
            raise ConfigError(f"the bus refuses consumer {name} of {stream}: stream not found")
        found = self.server.consumers.get((stream, name))
        if found is not None:
            found.spec = spec
        else:
            made = _Consumer(self.server, self.server.streams[stream], name, spec)
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

    async def read(self, stream: str, subject: str, since: float | None = None) -> AsyncIterator[StoredMessage]:
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

    async def purge(self, stream: str) -> int:
        await self.hop()
        return sum([await self.delete(stream, seq) for seq in list(self.server.stream(stream).messages)])

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
