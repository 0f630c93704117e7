"""Routing at the door: what the router learns from bus, sessions and earlier messages. Over the bus in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from bus import streams
from bus.memory import Faults, MemoryBus, MemoryServer
from bus.memory_sessions import MemorySessions, MemoryStore
from connectors import Capabilities
from connectors.host.gateway import Catalogue, seats_of
from connectors.host.ingress import Ingress, abilities_of, conversation_token
from connectors.host.metrics import Metrics
from connectors.host.recall import Last, Recall, last_of, tokens_of
from connectors.host.route import Seat
from schemas.config import ConnectorConfig, ModelConfig
from schemas.errors import Retryable
from schemas.message import Format, Inbound, Message, Outbound, RequestState, Route, Sampling, Sender, Tool, Usage
from schemas.model import ModelStatus
from schemas.session import Entry
from tests.bus.real import config_of

CHAT, OTHER = ModelConfig(name="chat", type="echo"), ModelConfig(name="other", type="echo")
CODER = ModelConfig(name="coder", type="echo", routes=("code",))
CODE = "Write a Python function that reverses a list"


@pytest.fixture
def faults() -> Faults:
    return Faults(rng=random.Random(0))


@pytest.fixture
async def bus(faults: Faults) -> AsyncIterator[MemoryBus]:
    config = replace(config_of(), models=(CHAT, OTHER, CODER))
    bus = MemoryBus(MemoryServer(faults), config)
    await streams.apply(bus, bus.config)
    yield bus
    await bus.close()


@pytest.fixture
def sessions() -> MemorySessions:
    return MemorySessions(MemoryStore())


class Door:
    """One connector's door in a house whose workers tell what the test says."""

    def __init__(self, bus: MemoryBus, sessions: Any) -> None:
        self.bus = bus
        self.house: Any = Catalogue(bus, bus.config)  # type: ignore[arg-type]
        connector = ConnectorConfig(type="test", name="door")
        capabilities = Capabilities(authenticates=True)
        self.ingress = Ingress(bus, sessions, bus.config, connector, capabilities, Metrics(), self.house)

    async def live(self, *rows: ModelStatus) -> None:
        table = self.bus.table("MODELS")
        for key in await table.keys():
            await table.delete(key)
        for row in rows:
            await table.put(f"{row.name}.{row.worker}", msgspec.json.encode(row))
        await self.house.refresh()

    async def say(self, id_: str, text: str, conversation: str = "talk", **fields: Any) -> str:
        inbound = Inbound(id=id_, conversation=conversation, sender=Sender("ann"), text=text, **fields)
        return (await self.ingress.emit(inbound)).model


def row(name: str, state: Any = "ready", worker: str = "w1", **fields: Any) -> ModelStatus:
    return ModelStatus(name=name, type="echo", worker=worker, state=state, **{"slots": 1, **fields})


async def stored(bus: MemoryBus) -> list[Inbound]:
    return [msgspec.json.decode(m.data, type=Inbound) async for m in bus.read("INBOX", "roost.in.>")]


async def test_a_stored_message_has_its_kind_its_reason_and_no_command(bus: MemoryBus, sessions: Any) -> None:
    assert await Door(bus, sessions).say("1", "/code sort this") == "coder"
    (message,) = await stored(bus)
    assert (message.text, message.kind, message.model) == ("sort this", "code", "coder")
    assert message.route == Route(kind="code", reason="command", why="chosen by /code")
    state = await sessions.find("door", message.id)
    assert (state.asked, state.model) == ("sort this", "coder")


async def test_of_a_history_that_the_caller_brings_the_newest_question_counts_and_nothing_is_taken_off(
    bus: MemoryBus, sessions: Any
) -> None:
    history = (Message("user", "/image hi"), Message("assistant", "Hi."), Message("user", CODE))
    assert await Door(bus, sessions).say("1", "", history=history) == "coder"
    (message,) = await stored(bus)
    assert (message.text, message.history) == ("", history)


async def test_load_spreads_single_texts_and_moves_no_conversation(bus: MemoryBus, sessions: Any) -> None:
    door = Door(bus, sessions)
    await door.live(row("chat"), row("other"), row("coder"))
    assert [await door.say(f"s{i}", "hi there", history=()) for i in range(4)] == ["chat", "other", "chat", "other"]
    assert await door.say("c1", "hi", "calm") == "chat"
    assert [await door.say(f"c{i}", "and then?", "calm") for i in range(2, 5)] == ["chat"] * 3


async def test_a_new_process_reads_from_the_session_which_model_a_conversation_had(
    bus: MemoryBus, sessions: Any
) -> None:
    talk = conversation_token("door", "talk")
    state = RequestState(id="r", state="answered", channel="door", conversation=talk)
    lines = [
        Entry(role="user", text=CODE, request="r", at=1.0),
        Entry(role="assistant", text="def f(): …", request="r", at=2.0, model="other", route=Route(kind="code")),
    ]
    await sessions.finish(state, lines)
    door = Door(bus, sessions)
    assert door.ingress.recall.of(talk) is None
    assert await door.say("1", "thank you so much") == "other"
    assert await Door(bus, sessions).say("2", "now make it shorter") == "coder", "about code, which has a model"


async def test_sessions_that_are_away_keep_nobody_from_asking(bus: MemoryBus) -> None:
    class Away(MemorySessions):
        async def history(self, channel: str, conversation: str) -> tuple[Entry, ...]:
            raise Retryable("sessions: away")

    assert await Door(bus, Away(MemoryStore())).say("1", "hi") == "chat"


async def test_a_conversation_moves_when_it_outgrows_the_window_of_its_model(bus: MemoryBus, sessions: Any) -> None:
    door = Door(bus, sessions)
    await door.live(row("chat", context=2048), row("other", context=8192), row("coder"))
    assert await door.say("1", "word " * 600) == "chat"
    talk = conversation_token("door", "talk")
    reply = Outbound(id="1", channel="door", conversation=talk, model="chat", usage=Usage(1700, 100, 0))
    door.ingress.recall.answered(reply)
    assert await door.say("2", "and then?") == "other"
    assert (await stored(bus))[-1].route.reason == "context"


async def test_a_model_whose_worker_is_gone_is_replaced_and_the_reason_travels_with_the_message(
    bus: MemoryBus, sessions: Any
) -> None:
    door = Door(bus, sessions)
    await door.live(row("chat"), row("other", "failed"), row("coder", "absent"))
    assert await door.say("1", CODE) == "chat"
    (message,) = await stored(bus)
    assert message.route == Route(kind="code", reason="failover", wanted="coder", why="coder has no live worker")
    assert await door.say("2", "hi", model="other", history=()) == "other", "named, without a fallback: it waits"


async def test_a_message_that_came_before_is_told_where_it_lies_whatever_is_chosen_now(
    bus: MemoryBus, sessions: Any, faults: Faults
) -> None:
    door = Door(bus, sessions)
    await door.live(row("chat"), row("other"))
    faults.lose_receipt = 1.0
    with pytest.raises(Retryable):
        await door.say("1", "hi", history=())
    faults.lose_receipt = 0.0
    await door.live(row("chat", "failed"), row("other"))
    assert await door.say("1", "hi", history=()) == "chat"
    assert [message.model for message in await stored(bus)] == ["chat"]


async def test_nothing_is_known_of_workers_before_the_first_look(bus: MemoryBus, sessions: Any) -> None:
    door = Door(bus, sessions)
    assert door.house.seats() is None
    await door.live(row("chat"))
    assert list(door.house.seats()) == ["chat"]


def test_several_workers_of_a_model_are_one_seat_and_dead_ones_none() -> None:
    rows = [
        row("a", "asleep", "w1", slots=2, context=4096),
        row("a", "ready", "w2", slots=4, context=2048, kinds=("chat", "embedding")),
        row("b", "failed"),
        row("c", "unloading"),
    ]
    seat = Seat(state="ready", slots=6, context=2048, kinds=("chat", "embedding"))
    assert seats_of(rows, {}) == {"a": seat}


def test_a_model_that_fell_asleep_keeps_the_window_it_had() -> None:
    before = seats_of([row("a", context=4096)], {})
    assert seats_of([row("a", "asleep")], before)["a"].context == 4096


def test_what_a_request_wants_is_named_as_backends_name_it() -> None:
    sampling = Sampling(
        tools=(Tool("f"),), format=Format(type="json"), logprobs=0, n=2, logit_bias={"1": 1.0}, adapter="a"
    )
    assert abilities_of(sampling) == {"tools", "format", "logprobs", "n", "logit_bias", "adapter"}
    assert abilities_of(Sampling()) == frozenset()


def test_recall_counts_as_the_model_counted_and_forgets_the_oldest() -> None:
    recall = Recall(2)
    for name in ("a", "b", "c"):
        recall.note(name, Last("chat", "chat", 5))
    assert recall.of("a") is None
    recall.answered(Outbound(id="r", channel="d", conversation="b", model="chat", usage=Usage(70, 7, 0)))
    recall.answered(Outbound(id="r", channel="d", conversation="c", model="other", usage=Usage(70, 7, 0)))
    assert (recall.of("b"), recall.of("c")) == (Last("chat", "chat", 77), Last("chat", "chat", 5))
    recall.drop("b")
    assert recall.of("b") is None
    assert last_of([]) == Last()


@pytest.mark.parametrize(
    ("text", "least", "most"), [("Hello, how are you today?", 6, 12), ("今天天气怎么样", 5, 9), ("", 0, 0)]
)
def test_tokens_are_estimated_on_the_long_side(text: str, least: int, most: int) -> None:
    assert least <= tokens_of(text) <= most
