"""Consume a work queue: keyed order, heartbeats, and THE table from error to acknowledgement.

    handler returns        ack
    Rejected               tell the sender, term
    Retryable              nak with its delay; at the delivery limit: dead letter, tell the sender, term
    Disconnected           nak after a second
    Untrusted, AuthFailed, ConfigError   dead letter with an alert, tell the sender, term
    cancelled (drain)      nak at once
    anything else          traceback, no ack: delivered again when the wait is over; at the limit: dead letter
    delivered once more than the limit   each time its process stopped: dead letter with an alert, tell, term

What always holds: messages of one subject are handled in stream order, one at a time, also over redelivery; a
message whose predecessor is unfinished elsewhere waits for it (`head of its subject` is asked from the stream
itself); while a message is here its acknowledgement wait is kept alive.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from bus import dead
from bus.pull import Delivery
from bus.stop import stop
from schemas.errors import Disconnected, QueueFull, Rejected, Retryable, RoostError

if TYPE_CHECKING:
    from bus.contract import Bus

log = logging.getLogger("roost.consume")

HEAD_POLL_S = (0.002, 0.5)
"""How soon to look for the head of a subject again, doubling: at first the predecessor's acknowledgement is only under
way to the server; later it runs on another machine."""
AGAIN = "Roost-Again"
"""Header of a message that may have been published before, maybe longer ago than the bus remembers ids."""


class Handler(ABC):
    """What a consumer does with a message."""

    ordered = True
    """Look at the stream for unfinished predecessors; a message for which `alone` is true is spared that."""

    def alone(self, delivery: Delivery) -> bool:
        """True when no other message can be on this one's subject."""
        return False

    @abstractmethod
    async def handle(self, delivery: Delivery) -> None: ...

    async def tell(self, delivery: Delivery, error: RoostError) -> None:
        """The message is given up for this reason: let the sender know. Called before the last acknowledgement."""
        return

    async def salvage(self, delivery: Delivery) -> bool:
        """For a message that exhausted its deliveries: True when its work was done after all, so no letter is due."""
        return False


class _Queue:
    """Deliveries of one subject that are here, by stream sequence."""

    __slots__ = ("blocked", "changed", "current", "poll_s", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int, Delivery]] = []
        self.current: Delivery | None = None
        self.blocked = False
        self.poll_s = HEAD_POLL_S[0]
        self.changed = asyncio.Event()


class Consumer:
    """Runs `handler` over one durable consumer with at most `slots` messages in hand at once."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        name: str,
        spec: dict[str, Any],
        handler: Handler,
        *,
        slots: int,
        parked_max: int = 0,
    ) -> None:
        self._bus = bus
        self.stream = stream
        self.name = name
        self._spec = spec
        self._handler = handler
        self._limits = bus.config.limits
        self.slots = slots
        self._parked_max = parked_max
        self._queues: dict[str, _Queue] = {}
        self._held = 0
        self._blocked = 0
        self._ids = 0
        self._draining = False
        self._subjects: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._puller = bus.pull(stream, name, self.receive, self.room)

    def room(self) -> int:
        """How many more messages may come: free slots, as long as there is room to park."""
        free = self.slots - (len(self._queues) - self._blocked)
        return max(0, min(free, self.slots + self._parked_max - self._held))

    def resize(self, slots: int) -> None:
        """Have so many in hand at once from now on."""
        self.slots = slots
        self._puller.poke()

    @property
    def held(self) -> int:
        return self._held

    @property
    def full(self) -> bool:
        """No room is left to park, or this consumer is stopping."""
        return self._draining or self._tasks is None or self._held >= self.slots + self._parked_max

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until `stopping` is set, then finish what is in hand within `limits.drain_s` and return."""
        await self._bus.ensure_consumer(self.stream, self.name, self._spec)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            pull = tasks.create_task(self._puller.run())
            beat = tasks.create_task(self._heartbeat())
            await stopping.wait()
            self._puller.stop()
            self._draining = True
            for queue in self._queues.values():
                queue.changed.set()
            try:
                async with asyncio.timeout(self._limits.drain_s):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("%s: %d messages go back to the queue", self.name, self._held)
                await stop(*self._subjects)
            await stop(pull, beat)
        self._tasks = None

    async def receive(self, delivery: Delivery) -> None:
        """Take a delivery in; also the door for one that another worker hands over."""
        queue = self._queues.get(delivery.subject)
        if queue is None:
            queue = self._queues[delivery.subject] = _Queue()
            self._start(delivery.subject, queue)
        if queue.current is not None and queue.current.seq == delivery.seq:
            queue.current.ack_to, queue.current.deliveries = delivery.ack_to, delivery.deliveries
            return
        for _, _, waiting in queue.waiting:
            if waiting.seq == delivery.seq:
                waiting.ack_to, waiting.deliveries = delivery.ack_to, delivery.deliveries
                return
        self._ids += 1
        self._held += 1
        heapq.heappush(queue.waiting, (delivery.seq, self._ids, delivery))
        queue.changed.set()

    def _start(self, subject: str, queue: _Queue) -> None:
        assert self._tasks is not None, "receive before run"
        self._idle.clear()
        task = self._tasks.create_task(self._handle_subject(subject, queue))
        self._subjects.add(task)
        task.add_done_callback(self._subjects.discard)

    async def _handle_subject(self, subject: str, queue: _Queue) -> None:
        """Handle the subject's messages in order until none is left here; when draining, give the waiting ones back."""
        try:
            while queue.waiting and not self._draining:
                delivery = queue.waiting[0][2]
                if not await self._is_head(queue, delivery):
                    continue
                if queue.waiting[0][2] is not delivery:  # an earlier one has come meanwhile
                    continue
                heapq.heappop(queue.waiting)
                queue.current = delivery
                try:
                    await self._one(delivery)
                except asyncio.CancelledError:
                    await delivery.nak()
                    raise
                finally:
                    queue.current = None
                    self._held -= 1
        finally:
            self._held -= len(queue.waiting)
            self._set_blocked(queue, False)
            del self._queues[subject]
            for _, _, delivery in queue.waiting:
                await delivery.nak()
            if not self._queues:
                self._idle.set()
            self._puller.poke()

    async def _is_head(self, queue: _Queue, delivery: Delivery) -> bool:
        """True when no earlier message of the subject is unfinished anywhere; otherwise wait a little first."""
        if not self._handler.ordered or self._handler.alone(delivery):
            return True
        try:
            head = await self._bus.head(self.stream, delivery.subject)
        except (Retryable, Disconnected):
            head = 0
        if head == delivery.seq:
            self._set_blocked(queue, False)
            queue.poll_s = HEAD_POLL_S[0]
            return True
        if queue.waiting[0][2] is not delivery:  # an earlier one has come meanwhile
            return False
        if head is None:  # gone; or not yet known to the replica that answered, so the leader is asked
            head = await self._leader_head(delivery)
        if head is None or head > delivery.seq:  # finished elsewhere meanwhile: nothing is left of it
            heapq.heappop(queue.waiting)
            self._held -= 1
            await delivery.ack()
            return False
        self._set_blocked(queue, True)
        queue.changed.clear()
        try:
            async with asyncio.timeout(queue.poll_s):
                await queue.changed.wait()
        except TimeoutError:
            queue.poll_s = min(HEAD_POLL_S[1], 2 * queue.poll_s)
        return False

    async def _leader_head(self, delivery: Delivery) -> int | None:
        try:
            return await self._bus.head(self.stream, delivery.subject, leader=True)
        except (Retryable, Disconnected):
            return 0

    def _set_blocked(self, queue: _Queue, blocked: bool) -> None:
        if queue.blocked != blocked:
            queue.blocked = blocked
            self._blocked += 1 if blocked else -1
            if blocked:
                self._puller.poke()

    async def _one(self, delivery: Delivery) -> None:
        """Handle one message; the table of this module's head."""
        if delivery.deliveries > self._limits.deliveries_max:
            await self._exhausted(delivery)
            return
        try:
            await self._handler.handle(delivery)
        except HandedOver:
            return
        except Rejected as error:
            await self._give_up(delivery, error, letter=False)
        except (QueueFull, Retryable) as error:
            if delivery.deliveries >= self._limits.deliveries_max:
                await self._give_up(delivery, error, letter=True)
            else:
                log.info("%s: again in %.1f s: %s", delivery.subject, error.after_s, error.message)
                await delivery.nak(error.after_s)
        except Disconnected as error:
            log.warning("%s: %s", delivery.subject, error.message)
            await delivery.nak(1.0)
        except RoostError as error:
            await self._give_up(delivery, error, letter=True)
            await self._bus.alert(error.code, error.message)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("handling %s seq %d failed", delivery.subject, delivery.seq)
            if delivery.deliveries >= self._limits.deliveries_max:
                await self._give_up(delivery, RoostError(f"unexpected {type(error).__name__}"), letter=True)
        else:
            await delivery.ack()

    async def _exhausted(self, delivery: Delivery) -> None:
        """Delivered to the limit and never finished: its process stopped each time, maybe because of it."""
        try:
            salvaged = await self._handler.salvage(delivery)
        except (Retryable, Disconnected) as again:
            log.warning("%s: cannot give up yet: %s", delivery.subject, again.message)
            return  # delivered again when the wait is over
        if salvaged:
            await delivery.ack()
            return
        times = delivery.deliveries - 1
        error = RoostError(f"delivered {times} times without a result: each time its process stopped", code="exhausted")
        await self._give_up(delivery, error, letter=True)
        await self._bus.alert("dead_letter", f"{delivery.subject}: {error.message}")

    async def _give_up(self, delivery: Delivery, error: RoostError, *, letter: bool) -> None:
        """Dead letter and word to the sender first, the end of the message last: a crash in between repeats both."""
        try:
            if letter:
                await dead.write(self._bus, self.stream, delivery, error)
            await self._handler.tell(delivery, error)
        except (Retryable, Disconnected) as again:
            log.warning("%s: cannot give up yet: %s", delivery.subject, again.message)
            return  # delivered again when the wait is over
        await delivery.term()

    async def _heartbeat(self) -> None:
        """Keep alive what is here; three beats within one acknowledgement wait."""
        while True:
            await asyncio.sleep(self._limits.ack_wait_s / 3)
            for queue in list(self._queues.values()):
                if queue.current is not None:
                    await queue.current.progress()
                for _, _, delivery in queue.waiting:
                    await delivery.progress()


class HandedOver(Exception):
    """Raised by a handler when another process has taken the delivery with its acknowledgement."""
