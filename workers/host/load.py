"""From an entry of `models[]` to a loaded lane: backend, file, memory, scratch folder; and the way back when it fails.

What always holds: whatever goes wrong, lane, memory and folder are given back before the error leaves here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from schemas.config import ModelConfig
from schemas.strict import bytes_of
from workers import Demand
from workers.host import heap
from workers.host.budget import measure, taken
from workers.host.lane import Lane
from workers.host.registry import backend_of
from workers.host.resident import Freed, Resident
from workers.host.room import Grant, Room
from workers.host.slot import Files

log = logging.getLogger("roost.load")

SURPRISE = 0.25
"""A plan that is wrong by more than this share, and by more than 50 MB, is worth a warning."""
SURPRISE_BYTES = 50_000_000


class Loaded(Struct, frozen=True):
    """A lane that can serve, with what is to be known of it; `freed` gives all back once the lane is closed."""

    lane: Lane
    files: Files
    grant: Grant
    load_s: float
    freed: Freed
    warning: str = ""


class Scratch:
    """Folders of this worker's lanes: one for each, empty when it is given out, deleted when the lane is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[Path] = set()

    def clear(self) -> None:
        """Delete what an earlier process left. Blocking."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def take(self, model: str) -> Path:
        """The first free folder of a model: beside an old lane that still runs, a new one gets its own. Blocking."""
        number = 0
        while (path := self._folder / model / str(number)) in self._used:
            number += 1
        self._used.add(path)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700, parents=True)
        return path

    def give_back(self, path: Path) -> None:
        self._used.discard(path)
        shutil.rmtree(path, ignore_errors=True)


async def load(
    files: Files,
    place: str,
    owner: Resident,
    room: Room,
    scratch: Scratch,
    *,
    evict: bool,
    wait_s: float,
    given_up: Callable[[], bool],
    quiet: bool = False,
) -> Loaded:
    """Load one model, where need be by unloading others (`evict`); `given_up` ends a wait for memory early.

    `quiet`: at low priority, and warmed up, because another lane serves meanwhile. Raises `ConfigError` (settings, or a
    file that is absent), `NoRoom` with figures, or what the backend raises.
    """
    model, path = files.model, files.path
    async with room.in_turn if not evict else contextlib.nullcontext():
        lane = await _lane(files, place, scratch, quiet=quiet)
        grant: Grant | None = None

        async def freed() -> None:
            asyncio.get_running_loop().call_later(heap.COLLECT_S, heap.collect)
            if grant is not None:
                grant.give_back()
            if lane.backend.scratch is not None:
                await asyncio.to_thread(scratch.give_back, lane.backend.scratch)

        try:
            demand = await _demand(lane, model, path, room)
            grant = await room.take(owner, model, lane, demand, evict=evict, wait_s=wait_s, given_up=given_up)
        except BaseException:
            await lane.close()
            await freed()
            raise
    alone, before = room.loading == 1, taken()
    warning = _slow(grant)
    if warning:
        log.warning("%s: %s", place, warning)
    started = time.monotonic()
    try:
        await lane.load(path)
    except BaseException:
        await lane.close()
        await freed()
        raise
    load_s = time.monotonic() - started - lane.warm_s
    grant.loaded(load_s)
    log.info("%s %s ready after %.2f s", place, lane.version, load_s)
    if alone and room.loading == 0 and demand.total:
        _compare(place, demand, taken() - before)
    return Loaded(lane, files, grant, load_s, freed, warning)


async def _lane(files: Files, place: str, scratch: Scratch, *, quiet: bool) -> Lane:
    """The backend on a lane of its own, not loaded yet."""
    backend = backend_of(files.model, place)
    backend.release = files.release
    backend.scratch = await asyncio.to_thread(scratch.take, files.model.name)
    return Lane(files.model.name, backend, quiet=quiet)


async def _demand(lane: Lane, model: ModelConfig, path: Path | None, room: Room) -> Demand:
    """What the backend says; where it cannot tell, what the operator says."""
    demand = await lane.demand(path, room.limit(model))
    if demand.total == 0 and model.size is not None:
        return Demand(weights=bytes_of(model.size, measure().whole), what="models[].size")
    return demand


def _slow(grant: Grant) -> str:
    if not grant.paged:
        return ""
    return (
        f"{grant.paged / 1e9:.1f} GB of its weights do not stay in memory and are read from the file again for every "
        "token: it will be as slow as the disk"
    )


def _compare(place: str, demand: Demand, grown: int) -> None:
    """Was the plan right? Pages of a mapped file do not count: they are the system's to drop."""
    planned = demand.least
    much = grown - planned > max(SURPRISE * planned, SURPRISE_BYTES)
    log.log(
        logging.WARNING if much else logging.INFO,
        "%s: planned %.1f MB (%s), the process grew by %.1f MB",
        place,
        planned / 1e6,
        demand.what or "no details",
        grown / 1e6,
    )
