"""What can be wrong between a publisher and a Roost: lines, servers, metadata, sizes. The old version serves on.

One Roost that fetches over HTTP, from a server that comes, goes and cuts as a test says; each fault has its own slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.client import Bus
from bus.programs import free_port
from schemas.model import ModelEvent
from schemas.release import Release
from tests.running import wait_for
from tests.updater import evil
from tests.updater.cutting import noise, weights
from tests.updater.publishing import publisher
from tests.updater.source.servers import response
from tests.updates.following import Following, following, golden, mark
from tests.updates.talkers import Talk, faults, talking

SEED = int(os.environ.get("ROOST_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
SLOTS = ("cut", "gone", "silent", "metadata", "large", "slow")
PORT = free_port("127.0.0.1")
MB = 1_000_000


class Line:
    """The way to a repository, over HTTP."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.cuts: list[int] = []
        """Chunks are sent to these bytes, one after the other, and then the connection ends."""
        self.silent_at: int | None = None
        """From this many chunk bytes on nothing goes on."""
        self.slow_s = 0.0
        """So long each chunk takes."""
        self.sent = 0
        """Bytes of chunks."""

    async def talk(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split()[1].decode().lstrip("/")
        file = self.repository / path
        if not file.is_file():
            writer.write(response(b"", status="404 Not Found"))
            return
        whole = response(file.read_bytes())
        if path.startswith("chunks/"):
            if self.silent_at is not None and self.sent >= self.silent_at:
                writer.write(whole[: len(whole) // 2])
                await writer.drain()
                await asyncio.Event().wait()
            if self.cuts:
                whole = whole[: self.cuts.pop() % len(whole)]
            self.sent += len(whole)
            await asyncio.sleep(self.slow_s)
        writer.write(whole)


@asynccontextmanager
async def line(here: Following) -> AsyncIterator[Line]:
    """The server is there meanwhile."""
    made = Line(here.house.repository)
    talking: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await made.talk(await reader.readuntil(b"\r\n\r\n"), writer)
            await writer.drain()
        writer.close()
        talking.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", PORT)
    try:
        yield made
    finally:
        server.close()
        for task in list(talking):
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Following]:
    folder = tmp_path_factory.mktemp("source")
    house = publisher(folder / "house")
    with following(
        folder / "here", house, SLOTS, source=f"http://127.0.0.1:{PORT}/", entry={"delay_token_ms": 5},
        updates={"timeout_s": 1.0, "release_bytes_max": "8 MB"},
    ) as roost:  # fmt: skip
        yield roost


def large(here: Following, name: str, version: str, size: int) -> Release:
    files = {
        "echo.json": json.dumps({"mark": mark(version)}).encode(),
        "weights.safetensors": weights(noise(100 * SLOTS.index(name) + int(version), size)),
    }
    return here.house.release(name, version, files, goldens=(golden(version),))


@asynccontextmanager
async def asking(here: Following, name: str, *good: str) -> AsyncIterator[tuple[Bus, Talk]]:
    """Two conversations go on meanwhile, and get answers of `good` alone."""
    try:
        async with here.bus() as bus:
            async with talking(here, name, count=2, name=name) as talk:
                yield bus, talk
                await answers(talk)
            assert faults(talk, await here.turns(bus), good) == []
    except BaseException:
        print(here.logs())
        raise


async def answers(talk: Talk) -> None:
    before = len(talk.replies)

    async def more() -> bool:
        return len(talk.since(before)) >= 4

    await wait_for(more, 30, "answers go on")


def reads(here: Following, bus: Bus, name: str, *words: str, phase: str = "") -> Callable[[], Awaitable[bool]]:
    """Whether the row says these words."""

    async def so() -> bool:
        (row,) = (await here.order(bus, "status", name)).rows
        return all(word in row.reason for word in words) and phase in ("", row.phase)

    return so


@pytest.mark.timeout(60)
async def test_without_its_source_a_roost_serves_what_it_has_and_says_so(here: Following) -> None:
    async with asking(here, "cut", "0") as (bus, _):
        told = await here.order(bus, "check")
        assert not told.ok
        assert "the source cannot be asked" in told.text
        assert str(PORT) in told.text
        await wait_for(reads(here, bus, "cut", "the source cannot be asked", phase="idle"), 10, "the row tells")


@pytest.mark.timeout(90)
async def test_a_line_that_is_cut_at_any_byte_is_taken_up_again(here: Following) -> None:
    print(f"ROOST_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    async with asking(here, "cut", "0", "1") as (bus, talk), line(here) as way:
        size = large(here, "cut", "1", 4 * MB).size
        way.cuts = [rng.randrange(1, 400_000) for _ in range(12)]
        await here.order(bus, "check")
        before = len(talk.replies)
        await here.settled("1", "cut")
        assert way.cuts == []
        assert way.sent <= size + 12 * 400_000 + MB, "only what was cut is asked for again"
        assert before


@pytest.mark.timeout(90)
async def test_a_source_that_goes_in_the_middle_is_waited_for_and_nothing_is_fetched_twice(here: Following) -> None:
    async with asking(here, "gone", "0", "1") as (bus, _):
        async with line(here) as way:
            size = large(here, "gone", "1", 6 * MB).size
            way.silent_at = 3 * MB
            await here.order(bus, "check")

            async def half() -> bool:
                return way.sent >= 3 * MB

            await wait_for(half, 20, "half of it has come")
            first = way.sent
        await wait_for(reads(here, bus, "gone", "127.0.0.1", phase="fetching"), 30, "the row tells of the line")
        assert here.serves("gone") == "0"
        assert here.cli("update", "status").returncode == 0
        async with line(here) as way:
            await here.settled("1", "gone")
            assert way.sent + first <= size + 3 * MB, "what had come is not asked for again"


async def fetching(bus: Bus, name: str) -> list[ModelEvent]:
    """All events that told how far a fetch is, the oldest first."""
    found = bus.read("EVENTS", f"roost.event.model.{name}.fetching")
    return [msgspec.json.decode(message.data, type=ModelEvent) async for message in found]


@pytest.mark.timeout(90)
async def test_over_a_slow_line_events_tell_how_far_it_is(here: Following) -> None:
    async with asking(here, "slow", "0", "1") as (bus, _), line(here) as way:
        files = {f"part-{number}.safetensors": weights(noise(number, 20_000)) for number in range(80)}  # a chunk each
        files["echo.json"] = json.dumps({"mark": mark("1")}).encode()
        size = here.house.release("slow", "1", files, goldens=(golden("1"),)).size
        way.slow_s = 0.4
        await here.order(bus, "check")

        async def midway() -> list[ModelEvent]:
            return [event for event in await fetching(bus, "slow") if 0 < event.done < event.size]

        await wait_for(midway, 30, "an event tells of a part that has come")
        assert here.serves("slow") == "0", "it was told while it was fetched"
        way.slow_s = 0.0
        await here.settled("1", "slow")
        events = await fetching(bus, "slow")
        told = {(event.model, event.what, event.version, event.previous, event.size) for event in events}
        assert told == {("slow", "fetching", "1", "0", size)}
        assert len(events) >= 2, "one at the beginning, and one each few seconds"
        assert [event.done for event in events] == sorted(event.done for event in events)


@pytest.mark.timeout(60)
async def test_a_source_that_says_nothing_any_more_is_given_up_in_time(here: Following) -> None:
    async with asking(here, "silent", "0", "1") as (bus, _), line(here) as way:
        large(here, "silent", "1", MB)
        way.silent_at = 0
        await here.order(bus, "check")
        await wait_for(reads(here, bus, "silent", "1 s", phase="fetching"), 30, "the row tells that nothing comes")
        way.silent_at = None
        await here.settled("1", "silent")


@pytest.mark.timeout(90)
async def test_metadata_that_is_old_expired_or_altered_changes_nothing_and_alerts(here: Following) -> None:
    house = here.house
    async with asking(here, "metadata", "0", "1", "3") as (bus, _), line(here):
        await here.take(bus, "1", "metadata")
        await here.settled("1", "metadata")
        kept = evil.copied(house, "kept")
        here.publish("2", "metadata", goldens=(golden("never"),))
        await here.order(bus, "check")
        await here.blocked("2", "metadata")

        async def wrong(*words: str) -> None:
            told = await here.order(bus, "check")
            assert not told.ok
            assert all(word in told.text for word in ("cannot be trusted", *words)), told.text
            alerts = (await here.alerts(bus))["updates_untrusted"]
            assert any(all(word in alert for word in words) for alert in alerts), alerts
            assert here.serves("metadata") == "1"

        newest = evil.copied(house, "newest")
        evil.put_back(house, kept)  # an older repository, properly signed
        await wrong("older")
        evil.put_back(house, newest)
        assert (await here.order(bus, "check")).ok
        house.refresh(days=-1)
        await wrong("expired")
        evil.put_back(house, newest)
        evil.altered(evil.newest(house, "timestamp"))
        await wrong("not signed")
        evil.put_back(house, newest)
        (house.repository / "metadata" / "timestamp.json").write_bytes(b"{" * 500)
        await wrong()
        evil.put_back(house, newest)
        house.refresh()  # a number above the one that had expired
        house.refresh()
        await here.take(bus, "3", "metadata")
        await here.settled("3", "metadata")


@pytest.mark.timeout(60)
async def test_a_release_beyond_the_limit_is_not_even_begun_and_a_smaller_one_is_taken(here: Following) -> None:
    async with asking(here, "large", "0", "2") as (bus, _), line(here) as way:
        large(here, "large", "1", 9 * MB)
        await here.order(bus, "check")
        await wait_for(reads(here, bus, "large", "updates.release_bytes_max (8 MB)"), 20, "the row tells of the limit")
        assert (way.sent, here.serves("large")) == (0, "0")
        large(here, "large", "2", MB)
        await here.order(bus, "check")
        await here.settled("2", "large")
        assert here.litter("large") == []
