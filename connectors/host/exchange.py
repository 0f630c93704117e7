"""Exchanges: clients of this process that wait for an answer, and what they are shown meanwhile.

The answer comes through egress; pieces come from `roost.delta.<request>`; the place in the queue is worked out here
for all who wait. An exchange that hears nothing looks the request up, so that no lost notice keeps a client waiting.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from bus import streams, subjects
from bus.contract import Bus, Message, Sessions, Subscription
from connectors import Accepted
from schemas.errors import Disconnected, Retryable
from schemas.message import Delta, Inbound, Outbound

log = logging.getLogger("roost.exchange")

PLACES_EVERY_S = 0.5
LOOK_UP_AFTER_S = 3.0
_delta = msgspec.json.Decoder(Delta)


class Exchange:
    """One request and its waiting client; see `connectors.Exchange`."""

    def __init__(self, owner: Exchanges, channel: str, accepted: Accepted, timeout_s: float) -> None:
        self.channel = channel
        self.accepted = accepted
        self._owner = owner
        self._timeout_s = timeout_s
        self._events: asyncio.Queue[Delta | Outbound] = asyncio.Queue()
        self._answer: asyncio.Future[Outbound] = asyncio.get_running_loop().create_future()
        self._subscription: Subscription | None = None
        self.begun = False
        self.heard = time.monotonic()
        self.place: int | None = None

    def __aiter__(self) -> AsyncIterator[Delta | Outbound]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Delta | Outbound]:
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    event = await self._events.get()
            except TimeoutError:
                raise self._late() from None
            yield event
            if isinstance(event, Outbound):
                return

    def _late(self) -> Retryable:
        return Retryable(
            f"no answer within {self._timeout_s:g} s; request {self.accepted.request} goes on and can be asked for",
            code="timeout",
        )

    async def answer(self) -> Outbound:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(self._answer)
        except TimeoutError:
            raise self._late() from None

    async def cancel(self) -> None:
        await self._owner.cancel(self.channel, self.accepted.request)

    async def aclose(self) -> None:
        await self._owner.close(self)

    # -- from the owner ---------------------------------------------------------------------------------------

    def put(self, event: Delta | Outbound) -> None:
        self.heard = time.monotonic()
        if self._answer.done():
            return
        if isinstance(event, Outbound):
            self._answer.set_result(event)
        elif event.state != "queued":
            self.begun = True
        self._events.put_nowait(event)


class Exchanges:
    """All exchanges of one process."""

    def __init__(self, bus: Bus, sessions: Sessions) -> None:
        self._bus = bus
        self._sessions = sessions
        self._timeout_s = bus.config.limits.answer_timeout_s
        self._open: dict[str, set[Exchange]] = defaultdict(set)
        self._seqs: dict[str, list[int]] = defaultdict(list)

    def __len__(self) -> int:
        return sum(len(group) for group in self._open.values())

    async def ask(
        self, channel: str, request: str, inbound: Inbound, emit: Callable[[Inbound, str], Awaitable[Accepted]]
    ) -> Exchange:
        """Follow `request` from before it is stored, then store it."""
        placeholder = Accepted(request=request, conversation="", model="")
        exchange = await self._start(channel, placeholder, stream=inbound.stream)
        try:
            exchange.accepted = await emit(inbound, request)
        except BaseException:
            await self.close(exchange)
            raise
        if exchange.accepted.reply is not None:
            exchange.put(exchange.accepted.reply)
        else:
            bisect.insort(self._seqs[exchange.accepted.model], exchange.accepted.seq)
        return exchange

    async def follow(self, channel: str, accepted: Accepted, *, stream: bool) -> Exchange:
        """Follow a request that was accepted before."""
        exchange = await self._start(channel, accepted, stream=stream)
        if accepted.reply is not None:
            exchange.put(accepted.reply)
        else:
            exchange.heard = 0.0
            bisect.insort(self._seqs[accepted.model], accepted.seq)
        return exchange

    async def _start(self, channel: str, accepted: Accepted, *, stream: bool) -> Exchange:
        exchange = Exchange(self, channel, accepted, self._timeout_s)
        if stream:

            async def arrived(message: Message) -> None:
                exchange.put(_delta.decode(message.data))

            exchange._subscription = await self._bus.subscribe(subjects.delta(accepted.request), arrived)
        self._open[accepted.request].add(exchange)
        return exchange

    async def close(self, exchange: Exchange) -> None:
        accepted = exchange.accepted
        group = self._open.get(accepted.request)
        if group is not None:
            group.discard(exchange)
            if not group:
                del self._open[accepted.request]
        seqs = self._seqs.get(accepted.model, [])
        i = bisect.bisect_left(seqs, accepted.seq)
        if i < len(seqs) and seqs[i] == accepted.seq:
            del seqs[i]
        if exchange._subscription is not None:
            subscription, exchange._subscription = exchange._subscription, None
            await subscription.close()

    async def cancel(self, channel: str, request: str) -> None:
        """Mark it for whoever begins it, and tell whoever runs it."""
        await self._sessions.cancel(channel, request)
        await self._bus.send(subjects.cancel(request), b"")

    def resolve(self, reply: Outbound) -> bool:
        """Hand an answer to those who wait for it; False when nobody does."""
        group = self._open.get(reply.id)
        for exchange in list(group or ()):
            exchange.put(reply)
        return bool(group)

    async def watch(self) -> None:
        """Tell those who wait their place, and look up what has been silent for too long. Runs until cancelled."""
        while True:
            await asyncio.sleep(PLACES_EVERY_S)
            try:
                await self._places()
                await self._look_up()
            except (Retryable, Disconnected) as error:
                log.debug("places: %s", error.message)

    def _waiting(self) -> dict[str, list[Exchange]]:
        found: dict[str, list[Exchange]] = defaultdict(list)
        for group in list(self._open.values()):
            for exchange in group:
                if not exchange.begun and exchange.accepted.seq and not exchange._answer.done():
                    found[exchange.accepted.model].append(exchange)
        return found

    async def _places(self) -> None:
        for model, exchanges in self._waiting().items():
            info = await self._bus.consumer_info(streams.INBOX, f"work-{model}")
            delivered = info.delivered if info is not None else 0
            seqs = self._seqs[model]
            first = bisect.bisect_right(seqs, delivered)
            for exchange in exchanges:
                place = max(0, bisect.bisect_right(seqs, exchange.accepted.seq) - first)
                if place and place != exchange.place:  # 0: a worker has it
                    exchange.place = place
                    exchange.put(Delta(request=exchange.accepted.request, state="queued", place=place))

    async def _look_up(self) -> None:
        now = time.monotonic()
        for request, group in list(self._open.items()):
            silent = [e for e in group if not e._answer.done() and now - e.heard > LOOK_UP_AFTER_S]
            if not silent:
                continue
            state = await self._sessions.find(silent[0].channel, request)
            for exchange in silent:
                exchange.heard = now
                if state is not None and state.reply is not None and state.state in ("answered", "dead"):
                    exchange.put(state.reply)


COUNTED_MAX = 256


async def place_of(bus: Bus, model: str, seq: int) -> int:
    """Place in the queue of the stored message `seq`, from the stream alone, so also after a restart; at least 1.

    Counts the model's undelivered messages up to this one; a place beyond `COUNTED_MAX` is an upper bound.
    """
    info = await bus.consumer_info(streams.INBOX, f"work-{model}")
    delivered = info.delivered if info is not None else 0
    place, at = 0, delivered + 1
    while at <= seq and place < COUNTED_MAX:
        message = await bus.next(streams.INBOX, subjects.inbox_of_model(model), at)
        if message is None or message.seq > seq:
            return max(1, place)
        place, at = place + 1, message.seq + 1
    return max(1, place + max(0, seq - at + 1))
