"""A whole Roost that follows a publisher, for tests: slots with `brittle` models, whose words end with their version.

house = publisher(tmp_path / "house")
with following(tmp_path / "here", house) as roost:          # version "0" serves, put there by hand
    roost.publish("1")
    async with roost.bus() as bus:
        await roost.order(bus, "check")
        await roost.settled("1")
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from bus import subjects
from bus.client import Bus
from bus.endpoints import resolve
from bus.site import site
from schemas.config import config_of
from schemas.event import Alert
from schemas.release import Expected, Golden, Release
from schemas.turn import Turn
from schemas.update import UpdateOrder, UpdateTold
from tests.running import RunningRoost, wait_for
from tests.tools import brittle
from tests.updater.publishing import Publisher
from updater.state import SlotState

TALK = "talk"
FIRST = "0"
"""The version that the operator has put there."""
ROLLOUT: dict[str, Any] = {"watch_s": 0.5}
UPDATES: dict[str, Any] = {"free_bytes_min": "1 MB", "load_s": 30.0, "timeout_s": 5.0}
ORDER_S = 60.0
SETTLED_S = 60.0
IDLE_S = 30.0


def mark(version: str) -> str:
    """What each word of a version's answers ends with."""
    return f"~{version}"


def golden(version: str) -> Golden:
    """A prompt that this version alone answers as expected."""
    return Golden(prompt="good morning", expect=Expected(contains=(f"morning{mark(version)}",), finish="stop"))


class Following(RunningRoost):
    """One Roost with slots below `folder/models`, and the publisher that it trusts."""

    def __init__(
        self,
        folder: Path,
        house: Publisher,
        slots: Sequence[str] = (TALK,),
        *,
        source: str = "",
        kind: str = "brittle",
        entry: dict[str, Any] | None = None,
        rollout: dict[str, Any] | None = None,
        rollouts: dict[str, dict[str, Any]] | None = None,
        updates: dict[str, Any] | None = None,
        models: Path | None = None,
        first: bool = True,
        **config: Any,
    ) -> None:
        """`entry`: more settings of each model. `rollouts`: of single ones. `first`: "0" is there from the start."""
        self.house = house
        self.models = models or folder / "models"
        for name in slots if first else ():
            self.put(FIRST, name)
        entries = [
            {
                "name": name, "type": kind, "path": str(self.models / name / "current"),
                "rollout": {**ROLLOUT, **(rollout or {}), **(rollouts or {}).get(name, {})}, **(entry or {}),
            }
            for name in slots
        ]  # fmt: skip
        follow = {"source": source or str(house.repository), "root": str(house.root), **UPDATES, **(updates or {})}
        super().__init__(folder, {"models": entries, "updates": follow, **config})

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **brittle.environment()}

    # -- versions -----------------------------------------------------------------------------------------------

    def put(self, version: str, name: str = TALK, **wrong: Any) -> None:
        """As an operator does by hand: a folder, and the link to it."""
        slot = self.models / name
        brittle.link(slot / "current", brittle.release(slot / "releases" / version, mark(version), **wrong))

    def change(self, **sections: Any) -> None:
        """Write another configuration, as an editor does: whole, under another name first."""
        self.config = {**self.config, **sections}
        new = self.config_file.with_suffix(".new")
        new.write_text(yaml.safe_dump(self.config))
        new.replace(self.config_file)

    def publish(self, version: str, name: str = TALK, *, goldens: Sequence[Golden] = (), **wrong: Any) -> Release:
        """A release of `name`; `wrong`: see roost_brittle.py."""
        file = json.dumps({"mark": mark(version), **wrong}).encode()
        return self.house.release(name, version, {"echo.json": file}, goldens=goldens or (golden(version),))

    # -- what can be seen on the disk ---------------------------------------------------------------------------

    def slot(self, name: str = TALK) -> Path:
        return self.models / name

    def serves(self, name: str = TALK) -> str:
        """The version that the link names."""
        return os.readlink(self.slot(name) / "current").rpartition("/")[2]

    def record(self, name: str = TALK) -> SlotState:
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode((self.slot(name) / "updates.json").read_bytes(), type=SlotState)
        return SlotState()

    def litter(self, name: str = TALK) -> list[str]:
        """What lies in the slot and should not, once nothing is under way."""
        here = {"current", "standby", "releases", "updates.json", ".lock"}
        slot = self.slot(name)
        odd = [path.name for path in slot.iterdir() if path.name not in here]
        return odd + [path.name for path in (slot / "releases").iterdir() if path.name.startswith(".")]

    async def settled(self, version: str, name: str = TALK, timeout_s: float = SETTLED_S) -> SlotState:
        """Wait until `version` serves and nothing is under way."""

        async def so() -> SlotState | None:
            record = self.record(name)
            return record if record.swap is None and self.serves(name) == version and _told(record, version) else None

        state: SlotState = await wait_for(so, timeout_s, f"{name} {version} settles; now {self.record(name)}")
        return state

    async def blocked(self, version: str, name: str = TALK, timeout_s: float = SETTLED_S) -> str:
        """Wait until `version` is blocked and nothing is under way; returns the reason."""

        async def so() -> str:
            record = self.record(name)
            return record.blocked.get(version, "") if record.swap is None else ""

        try:
            reason: str = await wait_for(so, timeout_s, f"{name} {version} is blocked")
        except AssertionError as error:
            raise AssertionError(f"{error}; now {self.record(name)}") from None
        return reason

    # -- asking -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """With the rights of Roost's own parts."""
        config = config_of(self.config, self.config_file)
        bus = await Bus.connect(resolve(config, self.data), config, name="test")
        try:
            yield bus
        finally:
            await bus.close()

    async def order(self, bus: Bus, do: Any, name: str = "", **more: Any) -> UpdateTold:
        order = UpdateOrder(do=do, name=name, **more)
        answer = await bus.request(subjects.updater(site(self.data)), msgspec.json.encode(order), ORDER_S)
        return msgspec.json.decode(answer, type=UpdateTold)

    async def take(self, bus: Bus, version: str, name: str = TALK, **wrong: Any) -> None:
        """Publish a version and have it looked for; returns when the updater has begun."""
        self.publish(version, name, **wrong)
        told = await self.order(bus, "check")
        assert told.ok, told.text

    async def alerts(self, bus: Bus) -> dict[str, list[str]]:
        """All that were published: messages by code."""
        found: dict[str, list[str]] = {}
        async for message in bus.read("EVENTS", "roost.event.alert.*"):
            alert = msgspec.json.decode(message.data, type=Alert)
            found.setdefault(alert.code, []).append(alert.message)
        return found

    async def turns(self, bus: Bus) -> list[Turn]:
        """All finished exchanges, the oldest first, once no request is under way: replies come before turns."""

        async def idle() -> bool:
            return (await bus.stream_infos())["INBOX"].messages == 0

        await wait_for(idle, IDLE_S, "every request is acknowledged")
        return [msgspec.json.decode(m.data, type=Turn) async for m in bus.read("TURNS", subjects.TURNS_ALL)]

    async def dead(self, bus: Bus) -> int:
        return (await bus.stream_infos())["DEAD"].messages


def _told(record: SlotState, version: str) -> bool:
    """Its history says that it was swapped in, or nobody has swapped anything yet."""
    swaps = [change.version for change in record.history if change.what in ("swapped", "rolled_back")]
    return not swaps or swaps[-1] == version


@contextmanager
def following(folder: Path, house: Publisher, slots: Sequence[str] = (TALK,), **options: Any) -> Iterator[Following]:
    """Start, and stop whatever happens."""
    roost = Following(folder, house, slots, **options)
    began = time.monotonic()
    try:
        roost.start()
        print(f"started in {time.monotonic() - began:.1f} s")
        yield roost
    except BaseException:
        print(roost.logs())
        raise
    finally:
        roost.stop()
