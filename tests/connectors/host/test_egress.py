"""Egress: each reply once, in order, in pieces that the platform can hold; over the bus in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from bus import streams, subjects
from bus.consume import AGAIN, Consumer
from bus.memory import MemoryBus, MemoryServer
from bus.memory_sessions import MemorySessions, MemoryStore
from connectors import Capabilities
from connectors.host.admit import Meter
from connectors.host.egress import Egress, Sent
from connectors.host.exchange import Exchanges
from connectors.host.metrics import Metrics
from schemas.errors import QueueFull, Retryable
from schemas.message import Attachment, Outbound
from tests.bus.real import config_of, soon

CONFIG = config_of(ack_wait_s=5.0, sender_queue_max=1)
PICTURE = Attachment(sha256="0" * 64, media_type="image/png", size_bytes=1)


class Platform:
    """A connector that fails as often as it is told to."""

    capabilities = Capabilities(text_bytes_max=20)

    def __init__(self) -> None:
        self.got: list[Outbound] = []
        self.fails = 0

    async def send(self, message: Outbound) -> None:
        if self.fails:
            self.fails -= 1
            raise Retryable("the platform is away", after_s=0.1)
        self.got.append(message)


class Line:
    """One connector's delivery, and what it shares with the process."""

    def __init__(self, bus: MemoryBus, sessions: Any) -> None:
        self.platform: Any = Platform()
        self.meter = Meter(CONFIG.limits)
        self.sent = Sent(sessions)
        self.exchanges = Exchanges(bus, sessions)
        egress = Egress(self.platform, self.sent, self.exchanges, self.meter, Metrics())
        name, spec = streams.delivery_consumer("chat", CONFIG.limits)
        self.consumer = Consumer(bus, streams.OUTBOX, name, spec, egress, slots=4)


@contextlib.asynccontextmanager
async def delivering(bus: MemoryBus, sessions: Any) -> AsyncIterator[Line]:
    line, stopping = Line(bus, sessions), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(line.sent.run())
        running = tasks.create_task(line.consumer.run(stopping))
        yield line
        stopping.set()
        await running
        writing.cancel()


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    bus = MemoryBus(MemoryServer(), CONFIG)
    await streams.apply(bus, CONFIG)
    yield bus
    await bus.close()


@pytest.fixture
def sessions() -> MemorySessions:
    return MemorySessions(MemoryStore())


async def put(
    bus: MemoryBus, id_: str, text: str = "hi", conversation: str = "c1", again: bool = False, **fields: Any
) -> None:
    reply = Outbound(id=id_, channel="chat", conversation=conversation, text=text, **fields)
    headers = {AGAIN: "1"} if again else None
    await bus.publish(subjects.outbox("chat", conversation), msgspec.json.encode(reply), id=None, headers=headers)


async def empty(bus: MemoryBus) -> None:
    async def is_empty() -> bool:
        return (await bus.stream_infos())["OUTBOX"].messages == 0

    await soon(is_empty, "all replies are delivered")


async def test_a_reply_that_failed_is_sent_again_and_not_overtaken(bus: MemoryBus, sessions: Any) -> None:
    async with delivering(bus, sessions) as line:
        line.platform.fails = 1
        for i in range(3):
            await put(bus, f"r{i}", str(i))
        await put(bus, "other", "other", "c2")
        await empty(bus)
    assert [m.text for m in line.platform.got if m.conversation == "c1"] == ["0", "1", "2"]
    assert len(line.platform.got) == 4


async def test_a_long_reply_comes_in_pieces_and_its_attachments_with_the_last(bus: MemoryBus, sessions: Any) -> None:
    async with delivering(bus, sessions) as line:
        await put(bus, "r1", "one two three four five six seven", attachments=(PICTURE,), notes=("note",))
        await empty(bus)
    assert " ".join(m.text for m in line.platform.got) == "one two three four five six seven"
    assert all(len(m.text.encode()) <= 20 for m in line.platform.got)
    assert [len(m.attachments) for m in line.platform.got] == [0] * (len(line.platform.got) - 1) + [1]
    assert [m.notes for m in line.platform.got][-1] == ("note",)
    assert {m.id for m in line.platform.got} == {"r1"}


async def test_an_empty_reply_is_sent_too(bus: MemoryBus, sessions: Any) -> None:
    async with delivering(bus, sessions) as line:
        await put(bus, "r1", "")
        await empty(bus)
    assert [m.text for m in line.platform.got] == [""]


async def test_a_reply_stored_anew_is_not_sent_twice_by_this_process_or_the_next(bus: MemoryBus, sessions: Any) -> None:
    async with delivering(bus, sessions) as line:
        await put(bus, "r1")
        await put(bus, "r1")
        await empty(bus)
        assert len(line.platform.got) == 1
    async with delivering(bus, sessions) as line:
        await put(bus, "r1", again=True)
        await empty(bus)
        assert line.platform.got == []


async def test_an_answer_closes_its_senders_account(bus: MemoryBus, sessions: Any) -> None:
    async with delivering(bus, sessions) as line:
        line.meter.opened("ann", "r1")
        with pytest.raises(QueueFull):
            line.meter.admit("ann", 0.0)
        await put(bus, "r1")
        await empty(bus)
        line.meter.admit("ann", 0.0)


async def test_what_is_no_reply_becomes_a_dead_letter_and_stops_nobody(bus: MemoryBus, sessions: Any) -> None:
    async with delivering(bus, sessions) as line:
        await bus.publish(subjects.outbox("chat", "c1"), b"not a reply")
        await put(bus, "r1")
        await empty(bus)
        assert [m.id for m in line.platform.got] == ["r1"]
    assert (await bus.stream_infos())["DEAD"].messages == 1
