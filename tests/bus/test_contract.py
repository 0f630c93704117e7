"""What every bus promises: one suite over the bus in memory and the real one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bus import contract, streams
from bus.pull import Delivery
from schemas.errors import QueueFull, Retryable
from tests.bus.conftest import Connect
from tests.bus.real import config_of, soon

SUBJECT = "roost.in.echo.test.c1"


@contextlib.asynccontextmanager
async def pulling(bus: contract.Bus, *, room: int = 100, ensure: bool = True) -> AsyncIterator[list[Delivery]]:
    """Deliveries of the work consumer as they come; nothing acknowledges them but the test."""
    name, spec = streams.work_consumer("echo", bus.config.limits)
    if ensure:
        await bus.ensure_consumer(streams.INBOX, name, spec)
    got: list[Delivery] = []

    async def receive(delivery: Delivery) -> None:
        got.append(delivery)

    puller = bus.pull(streams.INBOX, name, receive, lambda: max(0, room - len(got)))
    task = asyncio.create_task(puller.run())
    try:
        yield got
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_the_same_id_is_stored_once_and_says_so(connect: Connect) -> None:
    bus = await connect()
    first = await bus.publish(SUBJECT, b"one", id="a")
    again = await bus.publish(SUBJECT, b"two", id="a")
    assert (first.seq, first.duplicate) == (again.seq, False)
    assert again.duplicate
    assert (await bus.publish(SUBJECT, b"three")).seq == first.seq + 1
    stored = await bus.get("INBOX", first.seq)
    assert stored is not None
    assert (stored.data, stored.subject, stored.headers["Nats-Msg-Id"]) == (b"one", SUBJECT, "a")


async def test_a_full_conversation_and_a_full_queue_are_told_apart(connect: Connect) -> None:
    bus = await connect(config_of(conversation_queue_max=2, inbox_messages_max=3))
    for i in range(2):
        await bus.publish(SUBJECT, b"x", id=f"a{i}")
    with pytest.raises(QueueFull) as full:
        await bus.publish(SUBJECT, b"x", id="a2")
    assert full.value.code == "conversation_full"
    assert (await bus.publish(SUBJECT, b"x", id="a1")).duplicate, "what is stored already is not refused"
    await bus.publish("roost.in.echo.test.c2", b"x")
    with pytest.raises(QueueFull) as full:
        await bus.publish("roost.in.echo.test.c3", b"x")
    assert full.value.code == "queue_full"
    assert full.value.after_s > 0
    assert (await bus.stream_infos())["INBOX"].messages == 3


async def test_a_stream_is_read_by_sequence_by_subject_and_from_its_head(connect: Connect) -> None:
    bus = await connect()
    for i, conversation in enumerate(("c1", "c2", "c1", "c3")):
        await bus.publish(f"roost.turn.test.{conversation}", str(i).encode())
    assert await bus.head("TURNS", "roost.turn.test.c2") == 2
    assert await bus.head("TURNS", "roost.turn.test.none") is None
    following = await bus.next("TURNS", "roost.turn.test.c1", 2)
    assert following is not None
    assert (following.seq, following.data) == (3, b"2")
    wild = await bus.next("TURNS", "roost.turn.>", 4)
    assert wild is not None
    assert wild.data == b"3"
    newest = await bus.last("TURNS", "roost.turn.test.c1")
    assert newest is not None
    assert newest.data == b"2"
    assert await bus.last("TURNS", "roost.turn.test.none") is None
    assert [m.data async for m in bus.read("TURNS", "roost.turn.test.>")] == [b"0", b"1", b"2", b"3"]
    assert [m.data async for m in bus.read("TURNS", "roost.turn.test.c1")] == [b"0", b"2"]
    assert [m.data async for m in bus.read("TURNS", "roost.turn.>", newest.time + 60)] == []
    assert await bus.get("TURNS", 99) is None


async def test_messages_are_deleted_and_streams_emptied(connect: Connect) -> None:
    bus = await connect()
    for i in range(4):
        await bus.publish("roost.dead.INBOX", b"x", id=str(i))
    assert await bus.delete("DEAD", 2)
    assert not await bus.delete("DEAD", 2)
    assert await bus.purge("DEAD") == 3
    assert (await bus.stream_infos())["DEAD"].messages == 0


async def test_a_delivery_that_is_not_acknowledged_comes_again_and_says_how_often(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=0.1, deliveries_max=2))
    stored = await bus.publish(SUBJECT, b"x")
    async with pulling(bus) as got:
        await soon(lambda: len(got) >= 4, "deliveries beyond our own limit: whoever consumes counts them")
        assert [(d.seq, d.deliveries) for d in got[:4]] == [(stored.seq, n) for n in (1, 2, 3, 4)]
        info = await bus.consumer_info("INBOX", "work-echo")
        assert info == contract.ConsumerInfo(delivered=stored.seq, unfinished=1)
    assert (await bus.stream_infos())["INBOX"].messages == 1


async def test_ack_and_term_end_a_message_and_nak_brings_it_back(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=30.0))
    for i in range(3):
        await bus.publish(f"roost.in.echo.test.c{i}", str(i).encode())
    async with pulling(bus) as got:
        await soon(lambda: len(got) == 3, "all deliveries")
        await got[0].ack()
        await got[1].term()
        await got[2].nak()

        async def left() -> bool:
            return (await bus.stream_infos())["INBOX"].messages == 1

        await soon(left, "only the third message is left")
        again = await soon(lambda: got[3:], "the third comes again")
        assert (again[0].data, again[0].deliveries) == (b"2", 2)
        before = asyncio.get_running_loop().time()
        await again[0].nak(0.3)
        await soon(lambda: got[4:], "and once more after a while")
        assert asyncio.get_running_loop().time() - before > 0.25


async def test_progress_keeps_a_delivery(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=0.4))
    await bus.publish(SUBJECT, b"slow")
    async with pulling(bus) as got:
        await soon(lambda: got, "the delivery")
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.2
        while loop.time() < end:
            await got[0].progress()
            await asyncio.sleep(0.1)
        assert len(got) == 1
        await soon(lambda: len(got) == 2, "without progress it comes again")


async def test_no_more_comes_than_there_is_room_for(connect: Connect) -> None:
    bus = await connect(config_of(ack_wait_s=30.0))
    for i in range(5):
        await bus.publish(f"roost.in.echo.test.c{i}", b"x")
    async with pulling(bus, room=2) as got:
        await soon(lambda: len(got) == 2, "two deliveries")
        await bus.publish("roost.in.echo.test.c9", b"x")
        info = await bus.consumer_info("INBOX", "work-echo")
        assert info is not None
        assert info.delivered == 2
        assert len(got) == 2


async def test_two_pullers_share_one_consumer(connect: Connect) -> None:
    bus, other = await connect(config_of(ack_wait_s=30.0)), await connect(config_of(ack_wait_s=30.0))
    async with pulling(bus, room=10) as mine, pulling(other, room=10) as theirs:
        for i in range(20):
            await bus.publish(f"roost.in.echo.test.c{i}", b"x")
        await soon(lambda: len(mine) + len(theirs) == 20, "all deliveries")
        assert len(mine) == len(theirs) == 10
        assert not {d.seq for d in mine} & {d.seq for d in theirs}


async def test_ensuring_a_stream_or_a_consumer_again_changes_nothing(connect: Connect) -> None:
    bus = await connect()
    await bus.publish(SUBJECT, b"x")
    await streams.apply(bus, bus.config)
    name, spec = streams.work_consumer("echo", bus.config.limits)
    for _ in range(2):
        await bus.ensure_consumer("INBOX", name, spec)
    assert (await bus.stream_infos())["INBOX"].messages == 1
    assert await bus.consumer_info("INBOX", "work-none") is None


async def test_core_messages_reach_everybody_interested_and_one_of_each_queue_group(connect: Connect) -> None:
    bus, other = await connect(), await connect()
    heard: list[tuple[str, str]] = []

    def listener(name: str) -> Any:
        async def callback(message: contract.Message) -> None:
            heard.append((name, message.subject))

        return callback

    await bus.subscribe("roost.cancel.*", listener("a"))
    await other.subscribe("roost.cancel.*", listener("b"))
    await bus.subscribe("roost.>", listener("one"), queue="group")
    closed = await other.subscribe("roost.>", listener("two"), queue="group")
    gone = await bus.subscribe("roost.cancel.r1", listener("gone"))
    await gone.close()
    with pytest.raises(Retryable):
        await bus.request("nobody.here", b"", 1.0)  # both connections' interest is known now
    with pytest.raises(Retryable):
        await other.request("nobody.here", b"", 1.0)
    await bus.send("roost.cancel.r1", b"")
    await soon(lambda: len(heard) >= 3, "three hear it")
    await closed.close()
    with pytest.raises(Retryable):
        await other.request("nobody.here", b"", 1.0)  # the server knows that it is gone
    await bus.send("roost.delta.r2", b"")
    await soon(lambda: len(heard) >= 4, "the rest of the group hears the next")
    assert sorted(h for h in heard if h[0] in "ab") == [("a", "roost.cancel.r1"), ("b", "roost.cancel.r1")]
    group = [h for h in heard if h[0] in ("one", "two")]
    assert [h[1] for h in group] == ["roost.cancel.r1", "roost.delta.r2"]
    assert group[1][0] == "one"
    assert "gone" not in {h[0] for h in heard}


async def test_a_request_gets_one_answer_or_none_in_time(connect: Connect) -> None:
    bus, other = await connect(), await connect()

    async def answer(message: contract.Message) -> None:
        if message.data != b"silence":
            await other.send(message.reply, message.data + message.headers.get("Roost-Test", "").encode())

    await other.subscribe("roost.worker.w1.take", answer)

    async def answered() -> bytes:
        with contextlib.suppress(Retryable):
            return await bus.request("roost.worker.w1.take", b"hi", 1.0, headers={"Roost-Test": "there"})
        return b""

    assert await soon(answered, "the other's interest") == b"hithere"
    with pytest.raises(Retryable, match="nobody answers"):
        await bus.request("roost.worker.w2.take", b"hi", 1.0)
    with pytest.raises(Retryable, match="nobody answers"):
        await bus.request("roost.worker.w1.take", b"silence", 0.2)


async def test_a_handler_that_fails_does_not_end_its_subscription(connect: Connect) -> None:
    bus = await connect()
    heard: list[bytes] = []

    async def callback(message: contract.Message) -> None:
        heard.append(message.data)
        if len(heard) == 1:
            raise ValueError("broken")

    await bus.subscribe("roost.delta.r", callback)
    await bus.send("roost.delta.r", b"1")
    await bus.send("roost.delta.r", b"2")
    await soon(lambda: heard == [b"1", b"2"], "both")


async def test_a_payload_above_the_limit_arrives_whole(connect: Connect) -> None:
    bus = await connect()
    large = bytes(range(256)) * 6_000
    stored = await bus.publish(SUBJECT, large, id="large")
    assert (await bus.publish(SUBJECT, large, id="large")).duplicate
    found = await bus.get("INBOX", stored.seq)
    assert found is not None
    assert found.data == large
    async with pulling(bus) as got:
        await soon(lambda: got, "the delivery")
        assert got[0].data == large


async def test_blobs_are_kept_under_their_hash(connect: Connect) -> None:
    bus = await connect()
    name = await bus.blobs.put(b"picture")
    assert name == hashlib.sha256(b"picture").hexdigest()
    assert await bus.blobs.put(b"picture") == name
    assert await bus.blobs.get(name) == b"picture"
    assert await bus.blobs.get("0" * 64) is None
    assert await bus.blobs.get(await bus.blobs.put(b"")) == b""


async def test_a_table_keeps_the_newest_value_of_each_key(connect: Connect) -> None:
    bus = await connect()
    table = bus.table("MODELS")
    assert await table.get("echo.w1") is None
    await table.put("echo.w1", b"1")
    await table.put("echo.w2", b"2")
    await table.put("echo.w1", b"3")
    assert await table.get("echo.w1") == b"3"
    assert await table.entries() == {"echo.w1": b"3", "echo.w2": b"2"}
    await table.delete("echo.w2")
    assert await table.get("echo.w2") is None
    assert await table.keys() == ["echo.w1"]
    await table.put("echo.w2", b"4")
    assert (await table.entries())["echo.w2"] == b"4"


async def test_a_row_that_is_rewritten_while_a_table_is_read_is_not_missing(connect: Connect) -> None:
    bus = await connect()
    table = bus.table("WORKERS")
    keys = {f"w{i}" for i in range(5)}
    for key in keys:
        await table.put(key, b"0")

    async def rewrite() -> None:
        for i in range(400):
            await table.put(f"w{i % len(keys)}", b"%d" % i)

    reads = 0
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(rewrite())
        while not writing.done():
            assert (await table.entries()).keys() == keys
            reads += 1
    assert reads > 1
    await table.delete("w0")
    assert (await table.entries()).keys() == keys - {"w0"}


async def test_an_alert_is_an_event_that_can_be_read(connect: Connect) -> None:
    bus = await connect()
    await bus.alert("test", "something happened", level="critical", part="worker")
    (event,) = [m async for m in bus.read("EVENTS", "roost.event.alert.>")]
    assert event.subject == "roost.event.alert.test"
    assert b'"something happened"' in event.data
