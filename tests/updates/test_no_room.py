"""Machines that are too small for two versions at once, disks that are full, and two updaters in one folder."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.running import wait_for
from tests.updater.cutting import noise, weights
from tests.updater.publishing import publisher
from tests.updates.following import TALK, Following, golden, mark
from tests.updates.talkers import Talk, faults, talking

MB = 1_000_000


async def answers(talk: Talk, before: int, count: int) -> bool:
    return len(talk.since(before)) >= count


async def row_of(here: Following, bus: Any, phase: str, *words: str) -> bool:
    (row,) = (await here.order(bus, "status")).rows
    return row.phase == phase and all(word in row.reason for word in words)


@pytest.mark.timeout(120)
async def test_where_two_versions_do_not_fit_it_says_so_and_takes_turns_when_it_may(tmp_path: Path) -> None:
    here = Following(
        tmp_path / "here", publisher(tmp_path / "house"), first=False, entry={"delay_token_ms": 5},
        worker={"memory": "900 MB"},
    )  # fmt: skip
    here.put("0", demand=600 * MB)
    with started(here):
        async with here.bus() as bus:
            async with talking(here, count=4) as talk:
                await here.take(bus, "1", demand=600 * MB)
                await wait_for(lambda: row_of(here, bus, "staged", "MB"), 40, "the row tells that it does not fit")
                (row,) = (await here.order(bus, "status")).rows
                assert "600.0 MB" in row.reason
                before = len(talk.replies)
                await wait_for(lambda: answers(talk, before, 8), 30, "the old one answers on")
                assert (here.serves(), here.record().blocked) == ("0", {})

                entry = here.config["models"][0]
                here.change(models=[{**entry, "rollout": {**entry["rollout"], "in_place": True}}])
                await here.settled("1")
                before = len(talk.replies)
                await wait_for(lambda: answers(talk, before, 8), 30, "all ask on")
            assert faults(talk, await here.turns(bus), ("0", "1")) == []
            assert {reply.release for reply in talk.since(before)} == {"1"}
            assert not any(reply.refused for reply in talk.replies), "requests waited, and none was refused"
            assert await here.dead(bus) == 0


@contextmanager
def started(here: Following) -> Iterator[Following]:
    try:
        here.start()
        yield here
    except BaseException:
        print(here.logs())
        raise
    finally:
        here.stop()


@pytest.mark.timeout(120)
async def test_two_updaters_in_one_folder_take_turns(tmp_path: Path) -> None:
    house = publisher(tmp_path / "house")
    one = Following(tmp_path / "one", house, models=tmp_path / "models", updates={"check_every_s": 3600.0})
    two = Following(tmp_path / "two", house, models=tmp_path / "models", first=False)
    with started(one), started(two):
        async with one.bus() as bus, two.bus() as other:
            await wait_for(lambda: row_of(two, other, "idle", "another updater"), 20, "the second tells of the first")
            async with talking(one, count=2, name="one") as first, talking(two, count=2, name="two") as second:
                one.publish("1")
                both = await asyncio.gather(one.order(bus, "check"), two.order(other, "check"))
                assert both[0].ok
                assert not both[1].ok
                assert "another updater" in both[1].text
                await one.settled("1")
                await wait_for(lambda: answers(second, len(second.replies), 0), 5, "the second goes on")
                refused = await two.order(other, "rollback", TALK)
                assert not refused.ok
                assert one.serves() == "1"
            assert faults(first, await one.turns(bus), ("0", "1")) == []
            assert faults(second, await two.turns(other), ("0", "1")) == []
        one.stop()
        async with two.bus() as other:
            two.publish("2")

            async def taken() -> bool:
                await two.order(other, "check")
                return two.serves() == "2"

            await wait_for(taken, 40, "the second takes over")
            await two.settled("2")
            async with talking(two, count=2, name="then") as talk:
                await wait_for(lambda: answers(talk, 0, 4), 20, "it answers")
            assert faults(talk, await two.turns(other), ("2",)) == []
            assert two.litter() == []
            assert [c.version for c in two.record().history if c.what == "swapped"] == ["1", "2"]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("a right, not a package, is missing: run this as root where a tmpfs may be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path, left: int = 0) -> None:
    """Take all that is left of the disk but `left` bytes."""
    with file.open("wb", buffering=0) as filler:
        while shutil.disk_usage(file.parent).free > left:
            try:
                filler.write(bytes(65_536))
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    return
                raise


@pytest.mark.timeout(120)
async def test_a_disk_that_is_full_stops_nothing_and_is_used_when_it_is_not(tmp_path: Path) -> None:
    house = publisher(tmp_path / "house")

    def publish(version: str) -> None:
        files = {
            "echo.json": json.dumps({"mark": mark(version)}).encode(),
            "weights.safetensors": weights(noise(int(version), 6 * MB)),
        }
        house.release(TALK, version, files, goldens=(golden(version),))

    with small_disk(tmp_path / "disk", "24m") as disk:
        here = Following(
            tmp_path / "here", house, models=disk / "models", updates={"rate": "2 MB"},
            entry={"delay_token_ms": 5},
        )  # fmt: skip
        filler = disk / "filler"
        fill(filler, 4 * MB)
        with started(here):
            async with here.bus() as bus:
                async with talking(here, count=2) as talk:
                    # no room from the start: nothing is begun
                    publish("1")
                    await here.order(bus, "check")
                    await wait_for(lambda: row_of(here, bus, "fetching", "free"), 20, "the row tells of the disk")
                    filler.unlink()
                    await here.order(bus, "check")

                    # room, and then none in the middle
                    async def some() -> bool:
                        (row,) = (await here.order(bus, "status")).rows
                        return 0 < row.done < row.size

                    await wait_for(some, 30, "it comes")
                    await asyncio.to_thread(fill, filler)
                    await wait_for(lambda: row_of(here, bus, "fetching", "free"), 30, "the row tells of the disk")
                    assert here.serves() == "0"
                    before = len(talk.replies)
                    await wait_for(lambda: answers(talk, before, 4), 30, "the old one answers on")
                    filler.unlink()
                    await here.order(bus, "check")
                    await here.settled("1")
                assert faults(talk, await here.turns(bus), ("0", "1")) == []
                assert here.litter() == []
