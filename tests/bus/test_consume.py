"""The consumer: the table from error to acknowledgement, order, heartbeats, drain; on both buses."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from bus import contract, dead, streams
from bus.consume import Consumer, HandedOver, Handler
from bus.pull import Delivery
from schemas.errors import (
    AuthFailed,
    ConfigError,
    Disconnected,
    QueueFull,
    Rejected,
    Retryable,
    RoostError,
    Untrusted,
)
from schemas.event import Alert
from tests.bus.conftest import Connect
from tests.bus.real import config_of, soon

Handle = Callable[[Delivery], Awaitable[None]]


class Recorder(Handler):
    """Does with each delivery what the test says, and keeps the books."""

    def __init__(self, handle: Handle | None = None, *, salvages: bool = False) -> None:
        self._handle = handle
        self._salvages = salvages
        self.begun: list[tuple[bytes, int]] = []
        self.done: list[bytes] = []
        self.told: list[tuple[bytes, str]] = []
        self.at_once: defaultdict[str, int] = defaultdict(int)
        self.most = 0

    async def handle(self, delivery: Delivery) -> None:
        self.begun.append((delivery.data, delivery.deliveries))
        self.at_once[delivery.subject] += 1
        assert self.at_once[delivery.subject] == 1, "two messages of one subject at once"
        self.most = max(self.most, sum(self.at_once.values()))
        try:
            if self._handle is not None:
                await self._handle(delivery)
        finally:
            self.at_once[delivery.subject] -= 1
        self.done.append(delivery.data)

    async def tell(self, delivery: Delivery, error: RoostError) -> None:
        self.told.append((delivery.data, error.code))

    async def salvage(self, delivery: Delivery) -> bool:
        return self._salvages


def raising(*errors: BaseException | None) -> Handle:
    """Raise each in turn, the last one from then on; None succeeds."""
    left = list(errors)

    async def handle(_: Delivery) -> None:
        error = left.pop(0) if len(left) > 1 else left[0]
        if error is not None:
            raise error

    return handle


@contextlib.asynccontextmanager
async def consuming(bus: contract.Bus, handler: Handler, *, slots: int = 4, parked_max: int = 8) -> AsyncIterator[Any]:
    """A running consumer with its `stopping` event; it is stopped at the end."""
    name, spec = streams.work_consumer("echo", bus.config.limits)
    consumer = Consumer(bus, streams.INBOX, name, spec, handler, slots=slots, parked_max=parked_max)
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(consumer.run(stopping))
        try:
            yield consumer, stopping
        finally:
            stopping.set()
            await running


async def put(bus: contract.Bus, data: str = "{}", conversation: str = "c1") -> int:
    return (await bus.publish(f"roost.in.echo.test.{conversation}", data.encode())).seq


async def left(bus: contract.Bus, stream: str = "INBOX") -> int:
    return (await bus.stream_infos())[stream].messages


async def empty(bus: contract.Bus) -> None:
    async def is_empty() -> bool:
        return await left(bus) == 0

    await soon(is_empty, "the queue is empty")


async def letters(bus: contract.Bus) -> list[tuple[str, str, int]]:
    return [(letter.code, letter.id, letter.deliveries) for _, letter in await dead.dead_letters(bus)]


async def alerts(bus: contract.Bus) -> list[str]:
    return [msgspec.json.decode(m.data, type=Alert).code async for m in bus.read("EVENTS", "roost.event.alert.>")]


# -- the table ------------------------------------------------------------------------------------------------


async def test_a_handler_that_returns_is_an_ack(connect: Connect) -> None:
    bus, handler = await connect(), Recorder()
    async with consuming(bus, handler):
        await put(bus, '{"id":"a"}')
        await empty(bus)
    assert handler.begun == [(b'{"id":"a"}', 1)]
    assert handler.told == []


async def test_rejected_is_told_and_never_retried(connect: Connect) -> None:
    bus, handler = await connect(), Recorder(raising(Rejected("no", code="policy")))
    async with consuming(bus, handler):
        await put(bus, '{"id":"a"}')
        await empty(bus)
    assert handler.begun == [(b'{"id":"a"}', 1)]
    assert handler.told == [(b'{"id":"a"}', "policy")]
    assert await letters(bus) == []


@pytest.mark.parametrize(
    "error", [Retryable("later", after_s=0.05), QueueFull("full", after_s=0.05)], ids=["retry", "full"]
)
async def test_retryable_comes_again_after_its_delay(connect: Connect, error: Retryable) -> None:
    bus, handler = await connect(config_of(ack_wait_s=30.0)), Recorder(raising(error, error, None))
    async with consuming(bus, handler):
        await put(bus)
        await empty(bus)
    assert handler.begun == [(b"{}", 1), (b"{}", 2), (b"{}", 3)]
    assert handler.told == []


async def test_retryable_at_the_limit_becomes_a_dead_letter(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=30.0, deliveries_max=3))
    handler = Recorder(raising(Retryable("still not", after_s=0.02, code="model_failed")))
    async with consuming(bus, handler):
        await put(bus, '{"id":"r1"}')
        await empty(bus)
    assert len(handler.begun) == 3
    assert handler.told == [(b'{"id":"r1"}', "model_failed")]
    assert await letters(bus) == [("model_failed", "r1", 3)]


async def test_disconnected_comes_again_after_a_second(connect: Connect) -> None:
    bus, handler = await connect(config_of(ack_wait_s=30.0)), Recorder(raising(Disconnected("gone"), None))
    async with consuming(bus, handler):
        await put(bus)
        await empty(bus)
    assert [n for _, n in handler.begun] == [1, 2]


@pytest.mark.parametrize(
    "error", [Untrusted("altered"), AuthFailed("refused"), ConfigError("wrong")], ids=lambda e: e.code
)
async def test_what_no_retry_can_help_is_a_dead_letter_with_an_alert(connect: Connect, error: RoostError) -> None:
    bus, handler = await connect(), Recorder(raising(error))
    async with consuming(bus, handler):
        await put(bus, '{"id":"r1"}')
        await empty(bus)
    assert len(handler.begun) == 1
    assert handler.told == [(b'{"id":"r1"}', error.code)]
    assert await letters(bus) == [(error.code, "r1", 1)]
    assert await alerts(bus) == [error.code]


async def test_our_own_bug_waits_for_the_next_delivery_and_at_the_limit_is_a_dead_letter(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=0.15, deliveries_max=2))
    handler = Recorder(raising(ZeroDivisionError()))
    async with consuming(bus, handler):
        await put(bus, "not json")
        await empty(bus)
    assert [n for _, n in handler.begun] == [1, 2]
    assert await letters(bus) == [("internal", "", 2)]
    ((_, letter),) = await dead.dead_letters(bus)
    assert letter.reason == "unexpected ZeroDivisionError"
    assert letter.payload == b"not json"


async def test_a_message_whose_process_always_stops_becomes_a_dead_letter(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=0.15, deliveries_max=2))
    handler = Recorder(raising(HandedOver(), HandedOver(), None))  # nobody acknowledges, as when the process is killed
    async with consuming(bus, handler):
        await put(bus, '{"id":"r1"}')
        await put(bus, '{"id":"r2"}')
        await empty(bus)
        await soon(lambda: handler.done, "the next of the conversation goes on")
    assert [data for data, _ in handler.begun] == [b'{"id":"r1"}', b'{"id":"r1"}', b'{"id":"r2"}']
    assert handler.told == [(b'{"id":"r1"}', "exhausted")]
    assert await letters(bus) == [("exhausted", "r1", 3)]
    assert await alerts(bus) == ["dead_letter"]


async def test_an_exhausted_message_whose_work_was_done_is_no_dead_letter(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=0.15, deliveries_max=1))
    handler = Recorder(raising(HandedOver()), salvages=True)
    async with consuming(bus, handler):
        await put(bus)
        await empty(bus)
    assert await letters(bus) == []
    assert handler.told == []


async def test_a_stopping_consumer_finishes_what_it_has_and_gives_the_rest_back(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=30.0, drain_s=5.0))
    going, go_on = asyncio.Event(), asyncio.Event()

    async def handle(_: Delivery) -> None:
        going.set()
        await go_on.wait()

    handler = Recorder(handle)
    async with consuming(bus, handler, slots=2) as (consumer, stopping):
        await put(bus, "first")
        await put(bus, "second")
        await going.wait()
        stopping.set()
        await soon(lambda: consumer.full, "it takes nothing more")
        go_on.set()
    assert handler.done == [b"first"]

    async def one_is_left() -> bool:  # the acknowledgement is on its way
        return await left(bus) == 1

    await soon(one_is_left, "the first is gone and the second still there")
    after = Recorder()
    async with consuming(bus, after):
        await empty(bus)  # long before the wait for an acknowledgement is over: it was given back
    assert after.done == [b"second"]


async def test_what_is_not_finished_in_time_is_given_back(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=30.0, drain_s=0.1))
    going = asyncio.Event()

    async def handle(_: Delivery) -> None:
        going.set()
        await asyncio.Event().wait()

    async with consuming(bus, Recorder(handle)):
        await put(bus, "endless")
        await going.wait()
    after = Recorder()
    async with consuming(bus, after):
        await empty(bus)
    assert after.begun == [(b"endless", 2)]


# -- order, slots, heartbeats ---------------------------------------------------------------------------------


async def test_heartbeats_keep_a_slow_message_from_being_redelivered(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=0.3))

    async def handle(_: Delivery) -> None:
        await asyncio.sleep(1.0)

    handler = Recorder(handle)
    async with consuming(bus, handler):
        await put(bus, "slow")
        await put(bus, "waits behind it")
        await empty(bus)
    assert handler.begun == [(b"slow", 1), (b"waits behind it", 1)]


async def test_messages_of_a_conversation_are_handled_in_order_one_at_a_time(connect: Connect) -> None:
    bus = await connect()

    async def handle(_: Delivery) -> None:
        await asyncio.sleep(0.005)

    handler = Recorder(handle)
    for i in range(30):
        await put(bus, f"{i % 3}:{i}", f"c{i % 3}")
    async with consuming(bus, handler):
        await empty(bus)
    for conversation in "012":
        mine = [int(d.split(b":")[1]) for d in handler.done if d.startswith(conversation.encode())]
        assert mine == sorted(mine)
        assert len(mine) == 10
    assert handler.most == 3, "different conversations run side by side"


async def test_a_retried_message_is_not_overtaken_by_the_next_of_its_conversation(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=30.0))
    handler = Recorder(raising(Retryable("later", after_s=0.3), None))
    async with consuming(bus, handler):
        await put(bus, "one")
        await soon(lambda: handler.begun, "the first attempt")
        await put(bus, "two")
        await put(bus, "other", "c2")
        await empty(bus)
    assert [d for d in handler.done if d != b"other"] == [b"one", b"two"]
    assert handler.done[0] == b"other", "another conversation does not wait"


async def test_no_more_than_the_slots_run_at_once(connect: Connect) -> None:
    bus = await connect()

    async def handle(_: Delivery) -> None:
        await asyncio.sleep(0.02)

    handler = Recorder(handle)
    for i in range(12):
        await put(bus, str(i), f"c{i}")
    async with consuming(bus, handler, slots=3):
        await empty(bus)
    assert handler.most == 3


async def test_a_long_conversation_does_not_take_the_slots_of_the_others(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=30.0))
    go_on = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        if delivery.data.startswith(b"long"):
            await go_on.wait()

    handler = Recorder(handle)
    for i in range(6):
        await put(bus, f"long {i}", "long")
    await put(bus, "short", "short")
    async with consuming(bus, handler, slots=2, parked_max=8):
        await soon(lambda: b"short" in handler.done, "the other conversation")
        assert [d for d, _ in handler.begun if d.startswith(b"long")] == [b"long 0"]
        go_on.set()
        await empty(bus)


async def test_two_consumers_keep_a_conversation_in_order_between_them(connect: Connect) -> None:
    config = config_of(ack_wait_s=5.0)
    one, two = await connect(config), await connect(config)
    done: list[bytes] = []
    running: defaultdict[str, int] = defaultdict(int)

    async def handle(delivery: Delivery) -> None:
        running[delivery.subject] += 1
        assert running[delivery.subject] == 1, "one at a time over both"
        await asyncio.sleep(0.01)
        running[delivery.subject] -= 1
        done.append(delivery.data)

    first, second = Recorder(handle), Recorder(handle)
    for i in range(24):
        await put(one, f"{i % 4}:{i:03}", f"c{i % 4}")
    async with consuming(one, first, slots=2), consuming(two, second, slots=2):
        await empty(one)
    for conversation in "0123":
        mine = [d for d in done if d.startswith(conversation.encode())]
        assert mine == sorted(mine)
        assert len(mine) == 6
    assert first.done
    assert second.done


async def test_what_a_dead_process_held_moves_on_in_order(connect: Connect) -> None:
    config = config_of(ack_wait_s=0.5)
    one, two = await connect(config), await connect(config)
    stuck = asyncio.Event()

    async def hang(_: Delivery) -> None:
        stuck.set()
        await asyncio.Event().wait()

    name, spec = streams.work_consumer("echo", config.limits)
    victim = Consumer(one, streams.INBOX, name, spec, Recorder(hang), slots=1, parked_max=4)
    task = asyncio.create_task(victim.run(asyncio.Event()))
    for i in range(3):
        await put(two, str(i))
    await stuck.wait()
    await one.close()  # killed: nothing it says arrives any more
    task.cancel()
    with contextlib.suppress(BaseException):
        await task
    after = Recorder()
    async with consuming(two, after):
        await empty(two)
    assert after.done == [b"0", b"1", b"2"]


async def test_what_another_worker_hands_over_is_handled_and_acknowledged_here(connect: Connect) -> None:
    config = config_of(ack_wait_s=30.0)
    one, two = await connect(config), await connect(config)
    here = Recorder()
    name, spec = streams.work_consumer("echo", config.limits)
    receiver = Consumer(two, streams.INBOX, name, spec, here, slots=1)

    async def offer(delivery: Delivery) -> None:
        await receiver.receive(Delivery(two, delivery.subject, delivery.data, delivery.headers, delivery.ack_to))
        raise HandedOver

    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(receiver.run(stopping))
        await soon(lambda: not receiver.full, "the receiver runs")
        receiver._puller.stop()  # it gets nothing by itself
        async with consuming(one, Recorder(offer)):
            await put(one, "passed on")
            await empty(one)
        stopping.set()
        await running
    assert here.done == [b"passed on"]


# -- letters --------------------------------------------------------------------------------------------------


async def test_letters_are_listed_shown_requeued_and_purged(connect: Connect) -> None:
    bus = await connect()
    handler = Recorder(raising(Untrusted("a"), Untrusted("b"), Untrusted("c"), None))
    async with consuming(bus, handler):
        for i in range(3):
            await put(bus, f'{{"id":"r{i}"}}', f"c{i}")
        await empty(bus)
        listed = await dead.dead_letters(bus)
        assert [letter.id for _, letter in listed] == ["r2", "r1", "r0"]
        assert [letter.id for _, letter in await dead.dead_letters(bus, limit=1)] == ["r2"]
        seq, letter = listed[1]
        assert await dead.show(bus, seq) == letter
        assert (letter.stream, letter.subject) == ("INBOX", "roost.in.echo.test.c1")
        with pytest.raises(Rejected, match="there is no dead letter 99"):
            await dead.show(bus, 99)
        await dead.requeue(bus, seq)
        await soon(lambda: handler.done == [b'{"id":"r1"}'], "it is handled anew")
        assert [letter.id for _, letter in await dead.dead_letters(bus)] == ["r2", "r0"]
        assert await dead.purge(bus, listed[0][0]) == 1
        assert await dead.purge(bus, listed[0][0]) == 0
        assert await dead.purge(bus) == 1
        assert await dead.dead_letters(bus) == []


async def test_a_requeued_message_says_so_and_keeps_its_headers(connect: Connect) -> None:
    bus = await connect()
    headers: list[dict[str, str]] = []

    async def handle(delivery: Delivery) -> None:
        headers.append(delivery.headers)
        if len(headers) == 1:
            raise Untrusted("no")

    async with consuming(bus, Recorder(handle)):
        await bus.publish("roost.in.echo.test.c1", b'{"id":"r"}', id="r", headers={"Roost-Test": "kept"})
        await empty(bus)
        ((seq, letter),) = await dead.dead_letters(bus)
        assert letter.headers == {"Roost-Test": "kept"}
        await dead.requeue(bus, seq)
        await soon(lambda: len(headers) == 2, "it comes again")
    assert headers[1]["Roost-Test"] == "kept"
    assert headers[1][dead.REQUEUED] == str(seq)
    assert headers[1]["Nats-Msg-Id"] != "r"
