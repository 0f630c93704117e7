"""Ingress: what `emit` promises; over the bus in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from bus import streams
from bus.memory import Faults, MemoryBus, MemoryServer
from bus.memory_sessions import MemorySessions, MemoryStore
from connectors import Capabilities
from connectors.host.gateway import Catalogue
from connectors.host.ingress import Ingress, conversation_token, request_token
from connectors.host.metrics import Metrics
from schemas.config import ConnectorConfig
from schemas.errors import QueueFull, Rejected, Retryable
from schemas.message import Inbound, Outbound, RequestState, Sender
from tests.bus.real import config_of

OPEN = Capabilities(authenticates=True)


@pytest.fixture
def faults() -> Faults:
    return Faults(rng=random.Random(0))


@pytest.fixture
async def bus(faults: Faults) -> AsyncIterator[MemoryBus]:
    bus = MemoryBus(MemoryServer(faults), config_of(conversation_queue_max=3, sender_queue_max=4))
    await streams.apply(bus, bus.config)
    yield bus
    await bus.close()


@pytest.fixture
def sessions() -> MemorySessions:
    return MemorySessions(MemoryStore())


def door(
    bus: MemoryBus, sessions: Any, capabilities: Capabilities = OPEN, house: Any = None, **connector: Any
) -> Ingress:
    config = ConnectorConfig(type="test", name="chat", **connector)
    return Ingress(bus, sessions, bus.config, config, capabilities, Metrics(), house or Catalogue(bus, bus.config))


def message(id_: str, text: str = "hi", conversation: str = "talk", sender: str = "ann", **fields: Any) -> Inbound:
    return Inbound(id=id_, conversation=conversation, sender=Sender(sender), text=text, **fields)


async def inbox(bus: MemoryBus) -> list[Inbound]:
    return [msgspec.json.decode(m.data, type=Inbound) async for m in bus.read("INBOX", "roost.in.>")]


async def test_an_accepted_message_is_stored_with_tokens_for_ids(bus: MemoryBus, sessions: Any) -> None:
    accepted = await door(bus, sessions).emit(message("platform/1"))
    (stored,) = await inbox(bus)
    assert stored.id == accepted.request == request_token("chat", "platform/1")
    assert stored.conversation == accepted.conversation == conversation_token("chat", "talk")
    assert (stored.channel, stored.model, accepted.seq) == ("chat", "echo", 1)
    assert stored.received_at > 0
    state = await sessions.find("chat", accepted.request)
    assert (state.state, state.asked, state.sender, state.seq) == ("queued", "hi", "ann", 1)


async def test_the_same_id_is_accepted_once(bus: MemoryBus, sessions: Any) -> None:
    ingress = door(bus, sessions)
    first = await ingress.emit(message("m1"))
    second = await ingress.emit(message("m1", "other words"))
    assert not first.duplicate
    assert second.duplicate
    assert second.request == first.request
    assert len(await inbox(bus)) == 1


async def test_the_same_id_that_was_answered_gets_its_answer_even_when_sessions_forgot_that_it_came(
    bus: MemoryBus, sessions: Any
) -> None:
    ingress = door(bus, sessions)
    accepted = await ingress.emit(message("m1"))
    reply = Outbound(id=accepted.request, channel="chat", conversation=accepted.conversation, text="yes")
    done = RequestState(
        id=accepted.request, state="answered", channel="chat", conversation=accepted.conversation, reply=reply
    )
    await sessions.finish(done, [])
    again = await ingress.emit(message("m1"))
    assert again.duplicate
    assert again.reply == reply


async def test_messages_of_one_conversation_are_stored_in_the_order_in_which_they_came(
    bus: MemoryBus, sessions: Any, faults: Faults
) -> None:
    faults.delay_s_max = 0.01
    ingress = door(bus, sessions)
    await asyncio.gather(*(ingress.emit(message(f"m{i}", str(i))) for i in range(3)))
    assert [m.text for m in await inbox(bus)] == ["0", "1", "2"]


async def test_a_lost_receipt_stores_once(bus: MemoryBus, sessions: Any, faults: Faults) -> None:
    faults.lose_receipt = 1.0
    ingress = door(bus, sessions)
    with pytest.raises(Retryable):
        await ingress.emit(message("m1"))
    faults.lose_receipt = 0.0
    assert (await ingress.emit(message("m1"))).duplicate
    assert len(await inbox(bus)) == 1


async def test_a_full_conversation_refuses_and_others_go_on(bus: MemoryBus, sessions: Any) -> None:
    ingress = door(bus, sessions)
    for i in range(3):
        await ingress.emit(message(f"m{i}"))
    with pytest.raises(QueueFull) as full:
        await ingress.emit(message("m3"))
    assert full.value.code == "conversation_full"
    assert await sessions.find("chat", request_token("chat", "m3")) is None, "nothing was stored"
    await ingress.emit(message("m4", conversation="another", sender="bob"))
    assert len(await inbox(bus)) == 4


async def test_one_sender_cannot_fill_the_queue(bus: MemoryBus, sessions: Any) -> None:
    ingress = door(bus, sessions)
    for i in range(4):
        await ingress.emit(message(f"m{i}", conversation=f"c{i}"))
    with pytest.raises(QueueFull) as full:
        await ingress.emit(message("m9", conversation="c9"))
    assert full.value.code == "sender_full"
    await ingress.emit(message("m10", conversation="c9", sender="bob"))


async def test_a_refused_message_does_not_count_as_unanswered(bus: MemoryBus, sessions: Any, faults: Faults) -> None:
    ingress = door(bus, sessions)
    faults.refuse_publish = 1.0
    for i in range(6):
        with pytest.raises(Retryable):
            await ingress.emit(message(f"m{i}", conversation=f"c{i}"))
    faults.refuse_publish = 0.0
    await ingress.emit(message("m9"))


async def test_unknown_senders_wait_at_the_door(bus: MemoryBus, sessions: Any) -> None:
    ingress = door(bus, sessions, Capabilities(), allow=("ann",))
    await ingress.emit(message("m1"))
    with pytest.raises(Rejected) as refused:
        await ingress.emit(message("m2", sender="eve"))
    assert refused.value.code == "forbidden"
    assert len(await inbox(bus)) == 1


async def test_an_unknown_model_stores_nothing(bus: MemoryBus, sessions: Any) -> None:
    with pytest.raises(Rejected):
        await door(bus, sessions).emit(message("m1", model="gpt-9"))
    assert await inbox(bus) == []
