"""The server half of the bus in memory: streams, consumers, interest, and the faults that befall them.

See `bus.memory`, whose connections are all that talks to it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from bus.contract import ConsumerInfo, Message, Stored, StoredMessage
from bus.pull import Delivery
from bus.streams import NS
from schemas.errors import QueueFull, Retryable

if TYPE_CHECKING:
    from bus.memory import MemoryPuller, MemorySubscription


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


class Stream:
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


class PullConsumer:
    """One durable consumer: what is delivered and not acknowledged, and what is due again."""

    def __init__(self, server: MemoryServer, stream: Stream, name: str, spec: dict[str, Any]) -> None:
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
        waiting, at = 0, self.cursor + 1
        while (message := self.stream.first(self.spec["filter_subject"], at)) is not None:
            waiting, at = waiting + 1, message.seq + 1
        return ConsumerInfo(self.cursor, len(self.pending) + len(self.due), waiting)

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
        self.streams: dict[str, Stream] = {}
        self.consumers: dict[tuple[str, str], PullConsumer] = {}
        self.subscriptions: list[MemorySubscription] = []
        self.waiting: dict[str, asyncio.Future[bytes]] = {}
        self.count = itertools.count()

    def store(self, subject: str, data: bytes, headers: dict[str, str]) -> Stored | None:
        """Store in the stream that listens; None when there is none. Whoever listens to the subject hears it, too."""
        self.route(Message(subject, data, "", headers))
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

    def stream(self, name: str) -> Stream:
        if name not in self.streams:
            raise Retryable(f"the bus does not answer for {name}", code="bus_unavailable")
        return self.streams[name]
