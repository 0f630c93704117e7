"""A Roost whose model comes from a publisher's repository: show a version, wait until it serves, read what happened."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from benchmarks.load import Endpoint, conversations
from benchmarks.publisher import Publisher
from benchmarks.stack import Stack
from benchmarks.versions import linked
from bus import subjects
from bus.client import Bus
from bus.endpoints import resolve
from bus.site import site
from schemas.release import Expected, Golden
from schemas.turn import Turn
from schemas.update import Change, UpdateOrder, UpdateStatus, UpdateTold

MODEL = "chat"
"""The name of the model, of its slot and of its releases."""
FIRST = "0"
"""The release that serves at the start: put there by hand, as the starter model is."""
CAPITAL = Golden(
    kind="completion", prompt="The capital of France is", expect=Expected(contains=("Paris",)), max_tokens=8
)
"""The starter model knows it, in all versions."""
TAKE_S = 900.0
ORDER_S = 150.0
LOOK_S = 0.1
IDLE_S = 60.0
WATCH_S = 0.2
"""What was switched counts as settled after this; the benchmarks watch it themselves."""


class Updated:
    """A running Roost with the model `chat` in a slot."""

    def __init__(self, stack: Stack, bus: Bus, slot: Path, publisher: Publisher) -> None:
        self.stack, self.bus, self.slot, self.publisher = stack, bus, slot, publisher
        self.endpoint = Endpoint(f"{stack.http}/v1", MODEL, stack.key)
        self._site = site(stack.data)

    @property
    def link(self) -> Path:
        return self.slot / "current"

    async def order(self, do: Literal["check", "history", "status"]) -> UpdateTold:
        """Ask the updater; raises `RuntimeError` when it refuses."""
        order = UpdateOrder(do=do, name=MODEL)
        answer = await self.bus.request(subjects.updater(self._site), msgspec.json.encode(order), ORDER_S)
        told = msgspec.json.decode(answer, type=UpdateTold)
        if not told.ok:
            raise RuntimeError(f"update {do}: {told.text}")
        return told

    async def take(self, version: str) -> Change:
        """Show `version` and wait until it is settled; the line of the history that tells of the swap."""
        self.publisher.show(version)
        await self.order("check")
        return await self.settled(version)

    async def settled(self, version: str) -> Change:
        """Wait until nothing is under way; raises `RuntimeError` when another version serves then."""
        end = time.monotonic() + TAKE_S
        while time.monotonic() < end:
            told = await self.order("history")
            for change in reversed(told.history):
                if change.version == version and change.what in ("refused", "rolled_back"):
                    raise RuntimeError(f"version {version} was {change.what}: {change.reason}")
            done = {change.what for change in told.history if change.version == version}
            if "settled" in done:
                return next(c for c in reversed(told.history) if c.version == version and c.what == "swapped")
            await asyncio.sleep(LOOK_S)
        raise RuntimeError(f"version {version} was not settled within {TAKE_S:g} s: {await self.row()}")

    async def row(self) -> UpdateStatus:
        """How the slot is now."""
        return next(row for row in (await self.order("status")).rows if row.name == MODEL)

    async def turns(self) -> list[Turn]:
        """All finished exchanges, the oldest first, once no request is under way: replies come before turns."""
        end = time.monotonic() + IDLE_S
        while (await self.bus.stream_infos())["INBOX"].messages:
            if time.monotonic() > end:
                raise RuntimeError(f"requests are still in INBOX after {IDLE_S:g} s")
            await asyncio.sleep(LOOK_S)
        found = self.bus.read("TURNS", subjects.TURNS_ALL)
        return [msgspec.json.decode(message.data, type=Turn) async for message in found]

    async def dead(self) -> int:
        """Messages that were given up."""
        return (await self.bus.stream_infos())["DEAD"].messages

    async def worker(self) -> psutil.Process:
        """The process that answers."""
        parts = (await self.stack.state())["parts"]
        return psutil.Process(next(int(part["pid"]) for part in parts if part["name"].startswith("worker")))


@asynccontextmanager
async def updated(first: Path, publisher: Publisher, *, source: str = "", **entry: Any) -> AsyncIterator[Updated]:
    """A warm Roost that serves `first` (a file or folder) and follows `publisher`'s repository, or it at `source`.

    `entry`: settings of the model beside the usual ones of a llama model.
    """
    with tempfile.TemporaryDirectory(prefix="slots-", dir=publisher.folder) as folder:
        slot = Path(folder) / "models" / MODEL
        for file in sorted(first.iterdir()) if first.is_dir() else (first,):
            linked(file, slot / "releases" / FIRST / file.name)
        os.symlink(f"releases/{FIRST}", slot / "current")
        model = {
            "name": MODEL, "type": "llama", "path": str(slot / "current"), **entry,
            "rollout": {"watch_s": WATCH_S, **entry.get("rollout", {})},
        }  # fmt: skip
        updates = {"source": source or str(publisher.repository), "root": str(publisher.root)}
        async with Stack(models=(model,), more={"updates": updates}) as stack:
            bus = await Bus.connect(resolve(stack.config, stack.data), stack.config, name="bench", wait=False)
            try:
                roost = Updated(stack, bus, slot, publisher)
                (await conversations(roost.endpoint, 2, 1, 8)).whole("the first requests")
                yield roost
            finally:
                await bus.close()


def of_release(version: str) -> str:
    """The release that a turn's version names: `7+0123456789ab` is of release 7; of one put there by hand, `0`."""
    release, plus, _ = version.partition("+")
    return release if plus else FIRST


def swaps(usual: int, quick: bool) -> int:
    """How many swaps: `ROOST_BENCH_SWAPS`, or `usual`; three when it has to be quick."""
    return int(os.environ.get("ROOST_BENCH_SWAPS", 3 if quick else usual))
