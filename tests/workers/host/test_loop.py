"""The worker's side of the straight line, with real lanes; over the bus in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from bus import contract, dead, streams, subjects
from bus.consume import AGAIN, Consumer
from bus.memory import MemoryBus, MemoryServer
from bus.memory_sessions import MemorySessions, MemoryStore
from schemas.config import ModelConfig
from schemas.message import Delta, Inbound, Message, Outbound, RequestState, Sender
from schemas.turn import Turn
from tests.bus.real import config_of, soon
from workers import Backend
from workers.echo import EchoBackend
from workers.host.lane import Lane
from workers.host.loop import ModelLoop, taken
from workers.host.resident import Resident

CONFIG = config_of(ack_wait_s=0.6, deliveries_max=2)
MODEL = ModelConfig(name="echo", type="echo")


class House:
    """A bus, sessions, and workers that come and go on them."""

    def __init__(self) -> None:
        self.server, self.store = MemoryServer(), MemoryStore()
        self.bus = MemoryBus(self.server, CONFIG)
        self.sessions = MemorySessions(self.store)

    @contextlib.asynccontextmanager
    async def worker(
        self, name: str, *, delay_ms: float = 0.0, slots: int = 4, backend: Backend | None = None
    ) -> AsyncIterator[Consumer]:
        bus, sessions = MemoryBus(self.server, CONFIG), MemorySessions(self.store)
        echo = EchoBackend(EchoBackend.Settings(delay_ms=delay_ms, delay_token_ms=delay_ms), slots)
        lane = Lane("echo", backend or echo)
        await lane.load(None)
        house = asyncio.TaskGroup()
        resident = Resident("echo", house)
        resident.replace(lane)
        loop = ModelLoop(bus, sessions, name, MODEL, resident)
        consumer_name, spec = streams.work_consumer("echo", CONFIG.limits)
        consumer = Consumer(bus, streams.INBOX, consumer_name, spec, loop, slots=slots, parked_max=8)

        async def offered(message: contract.Message) -> None:
            await taken(bus, {"echo": consumer}, message)

        async def cancelled(message: contract.Message) -> None:
            loop.cancel(message.subject.rpartition(".")[2])

        await bus.subscribe(subjects.take(name), offered)
        await bus.subscribe(subjects.cancel(), cancelled)
        stopping = asyncio.Event()
        async with house:
            running = house.create_task(consumer.run(stopping))
            await soon(lambda: not consumer.full, "the worker runs")
            yield consumer
            stopping.set()
            await running
            await resident.unload()
        await bus.close()

    async def ask(self, id_: str, text: str = "hello there", conversation: str = "c1", **fields: Any) -> None:
        inbound = Inbound(
            id=id_, conversation=conversation, sender=Sender("ann"), text=text, channel="chat", model="echo", **fields
        )
        await self.bus.publish(subjects.inbox("echo", "chat", conversation), msgspec.json.encode(inbound), id=id_)
        state = RequestState(
            id=id_, state="queued", channel="chat", conversation=conversation, sender="ann", asked=text
        )
        await self.sessions.accept(state)

    async def replies(self, count: int) -> list[Outbound]:
        async def found() -> list[Outbound]:
            stored = [m.data async for m in self.bus.read("OUTBOX", "roost.out.>")]
            return [msgspec.json.decode(data, type=Outbound) for data in stored] if len(stored) >= count else []

        return list(await soon(found, f"{count} replies"))

    async def turns(self) -> list[Turn]:
        return [msgspec.json.decode(m.data, type=Turn) async for m in self.bus.read("TURNS", "roost.turn.>")]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await streams.apply(house.bus, CONFIG)
    yield house
    await house.bus.close()


async def test_a_question_becomes_a_reply_a_turn_and_two_lines_of_history(house: House) -> None:
    async with house.worker("w1"):
        await house.ask("r1", reply={"to": "x"}, received_at=1.0)
        (reply,) = await house.replies(1)
        assert (reply.id, reply.text, reply.finish, reply.version) == ("r1", "hello there", "stop", "echo-1")
        assert reply.reply == {"to": "x"}
        assert reply.timings.queued_ms > 0
    (turn,) = await house.turns()
    assert (turn.id, turn.worker, turn.attempt, turn.inbound.reply) == ("r1", "w1", 1, {})
    assert [e.text for e in await house.sessions.history("chat", "c1")] == ["hello there", "hello there"]
    state = await house.sessions.find("chat", "r1")
    assert state is not None
    assert state.state == "answered"


async def test_the_model_sees_all_that_was_said_before(house: House) -> None:
    async with house.worker("w1"):
        for i in range(3):
            await house.ask(f"r{i}", "two words")
        replies = await house.replies(3)
    assert [r.usage.prompt_tokens for r in replies] == [2, 6, 10]


async def test_a_request_with_its_own_history_leaves_no_session(house: House) -> None:
    async with house.worker("w1"):
        await house.ask("r1", "", "r1", history=(Message("user", "brought along"),))
        (reply,) = await house.replies(1)
    assert reply.text == "brought along"
    assert await house.sessions.history("chat", "r1") == ()


async def test_pieces_go_out_as_they_come_and_join_to_the_answer(house: House) -> None:
    deltas: list[Delta] = []

    async def heard(message: contract.Message) -> None:
        deltas.append(msgspec.json.decode(message.data, type=Delta))

    await house.bus.subscribe(subjects.delta("r1"), heard)
    async with house.worker("w1", delay_ms=20):
        await house.ask("r1", "one two three four", stream=True)
        (reply,) = await house.replies(1)
        await soon(lambda: "".join(d.text for d in deltas) == reply.text, "all pieces")
    assert deltas[0] == Delta(request="r1"), "word that it has begun"
    at = 0
    for delta in deltas:
        assert delta.at == at
        at += len(delta.text)
    assert len(deltas) > 2


async def test_a_cancelled_request_ends_early(house: House) -> None:
    async with house.worker("w1", delay_ms=30):
        await house.ask("r1", " ".join(["word"] * 500))

        async def running() -> bool:
            state = await house.sessions.find("chat", "r1")
            return state is not None and state.state == "running"

        await soon(running, "it runs")
        while not [m async for m in house.bus.read("OUTBOX", "roost.out.>")]:
            await house.bus.send(subjects.cancel("r1"), b"")
            await asyncio.sleep(0.01)
        (reply,) = await house.replies(1)
    assert reply.finish == "cancelled"
    assert len(reply.text) < 500


async def test_a_request_cancelled_while_it_waited_is_not_run(house: House) -> None:
    await house.ask("r1")
    await house.sessions.cancel("chat", "r1")
    async with house.worker("w1"):
        (reply,) = await house.replies(1)
    assert (reply.finish, reply.text) == ("cancelled", "")


async def test_a_conversation_stays_with_its_worker_while_that_lives_and_then_moves_on(house: House) -> None:
    async with house.worker("w1"):
        await house.ask("r0")
        await house.replies(1)
        async with house.worker("w2", slots=16):
            for i in range(1, 9):
                await house.ask(f"r{i}")
            await house.replies(9)
        assert {t.worker for t in await house.turns()} == {"w1"}
    async with house.worker("w2"):
        await house.ask("r9")
        await house.replies(10)
    turns = await house.turns()
    assert turns[-1].worker == "w2"
    assert [t.id for t in turns] == [f"r{i}" for i in range(10)]
    assert [t.usage.prompt_tokens for t in turns] == [2 + 4 * i for i in range(10)]


async def test_a_second_delivery_of_an_answered_request_publishes_the_same_answer(house: House) -> None:
    await house.ask("r1", "second delivery")
    answered = Outbound(id="r1", channel="chat", conversation="c1", text="the first answer")
    done = RequestState(id="r1", state="answered", channel="chat", conversation="c1", reply=answered)
    await house.sessions.finish(done, [])
    async with house.worker("w1"):
        (reply,) = await house.replies(1)
    assert reply.text == "the first answer"


async def test_an_exhausted_message_is_told_and_requeued_it_is_answered_anew(house: House) -> None:
    poison = MemoryBus(house.server, CONFIG)
    name, spec = streams.work_consumer("echo", CONFIG.limits)
    await poison.ensure_consumer(streams.INBOX, name, spec)
    seen: list[int] = []

    async def swallow(delivery: Any) -> None:
        seen.append(delivery.deliveries)

    puller = poison.pull(streams.INBOX, name, swallow, lambda: 1)
    pulling = asyncio.create_task(puller.run())
    await house.ask("r1")
    await soon(lambda: len(seen) >= 2, "two processes die of it")
    pulling.cancel()
    await poison.close()
    async with house.worker("w1"):
        (refusal,) = await house.replies(1)
        assert refusal.error is not None
        assert refusal.error.code == "exhausted"
        state = await house.sessions.find("chat", "r1")
        assert state is not None
        assert (state.state, state.reason) == ("dead", refusal.error.message)
        ((seq, letter),) = await dead.dead_letters(house.bus)
        assert (letter.id, letter.code) == ("r1", "exhausted")
        await dead.requeue(house.bus, seq)
        replies = await house.replies(2)
        assert replies[1].text == "hello there"
        state = await house.sessions.find("chat", "r1")
        assert state is not None
        assert state.state == "answered"
        await house.ask("r2")
        assert (await house.replies(3))[2].usage.prompt_tokens == 6, "the failed attempt is not shown to the model"
    assert await dead.dead_letters(house.bus) == []


async def test_a_republished_reply_says_that_it_may_have_been_stored_before(house: House) -> None:
    first = MemoryBus(house.server, CONFIG)
    name, spec = streams.work_consumer("echo", CONFIG.limits)
    await first.ensure_consumer(streams.INBOX, name, spec)
    seen: list[Any] = []

    async def swallow(delivery: Any) -> None:
        seen.append(delivery)

    pulling = asyncio.create_task(first.pull(streams.INBOX, name, swallow, lambda: 1 - len(seen)).run())
    await house.ask("r1")
    await soon(lambda: seen, "the first delivery")
    pulling.cancel()
    await first.close()
    async with house.worker("w1"):
        await house.replies(1)
    (stored,) = [m async for m in house.bus.read("OUTBOX", "roost.out.>")]
    assert AGAIN in stored.headers


async def test_what_is_no_message_becomes_a_dead_letter_and_stops_nobody(house: House) -> None:
    async with house.worker("w1"):
        await house.bus.publish("roost.in.echo.chat.c9", b"\xff not json")
        await house.ask("r1")
        await house.replies(1)

        async def letters() -> Any:
            return await dead.dead_letters(house.bus)

        ((_, letter),) = await soon(letters, "the letter")
    assert (letter.code, letter.payload) == ("malformed", b"\xff not json")
