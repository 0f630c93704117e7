"""Sending a repository: only what is not there yet, several files at once, the timestamp last.

What always holds: a reader of the place finds the old state or the new one, whole, at every moment and after a kill at
any; a run after a broken one sends the rest. Another repository, or a newer state of this one, is never written over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from blake3 import blake3
from msgspec import Struct
from tuf.api.metadata import Targets

from schemas.errors import Rejected, RoostError, Untrusted
from schemas.release import Chunk, Release, release_target
from updater.publish.create import memory
from updater.publish.keys import parsed
from updater.publish.places import Place
from updater.publish.repository import TIMESTAMP, Metas, Repository, root_path, target_path
from updater.publish.sign import in_order, needed

T = TypeVar("T")
CONNECTIONS = 8
Progress = Callable[[int, int], None]
"""Bytes that are there, and all."""


class Pushed(Struct, frozen=True):
    """What was sent, and the newest version of each model that the place has now."""

    files: int
    bytes: int
    newest: dict[str, str]


class _Theirs(Struct, frozen=True):
    """What the place says that it has. Unverified: it only saves questions, and shows what must not be replaced."""

    timestamp: bytes = b""
    roots: int = 0
    paths: frozenset[str] = frozenset()
    """Metadata in use there."""
    targets: frozenset[str] = frozenset()


async def push(
    repository: Path,
    place: Place,
    *,
    connections: int = CONNECTIONS,
    everything: bool = False,
    progress: Progress = lambda done, size: None,
) -> Pushed:
    """Send the folder `repository` to `place`. `everything`: ask for every chunk, also of releases that are there.

    Raises `Rejected` when `place` has something else or newer; errors of the place as they are.
    """
    ours = Repository(repository)
    metas = await asyncio.to_thread(ours.metas)
    _check_ours(repository, metas)
    targets = metas.targets.signed
    releases = await asyncio.to_thread(lambda: list(ours.releases(targets)))
    newest = {release.name: release.version for release in releases}
    async with place:
        theirs = await _look(metas, place)
        if theirs.timestamp == metas.data[-1] and theirs.roots == len(metas.roots) and not everything:
            return Pushed(0, 0, newest)
        sender = _Sender(ours, place, progress)
        unknown = [release for release in releases if everything or place_in(targets, release) not in theirs.targets]
        await sender.chunks(unknown, connections)
        await sender.files([target_path(file) for file in targets.targets.values()], connections)
        await place.settle()
        await sender.metadata(metas, theirs)
        await place.prune(await asyncio.to_thread(needed, ours, metas))
    return Pushed(sender.sent, sender.sent_bytes, newest)


class _Sender:
    def __init__(self, ours: Repository, place: Place, progress: Progress) -> None:
        self._ours = ours
        self._place = place
        self._progress = progress
        self.sent = 0
        self.sent_bytes = 0

    async def chunks(self, releases: Iterable[Release], connections: int) -> None:
        """Pieces of files, each read and found whole before it is sent."""
        needed = {chunk.blake3: chunk for release in releases for file in release.files for chunk in file.chunks}
        size, done = sum(chunk.size for chunk in needed.values()), 0

        async def send(chunk: Chunk) -> None:
            nonlocal done
            if not await self._place.has(chunk.path, chunk.size):
                data = await asyncio.to_thread(self._ours.read, chunk.path)
                if blake3(data).hexdigest() != chunk.blake3:
                    raise Untrusted(f"{self._ours.folder / chunk.path} was altered; run: roost release check")
                await self._write(chunk.path, data)
            done += chunk.size
            self._progress(done, size)

        await several(send, list(needed.values()), connections)

    async def files(self, paths: Sequence[str], connections: int) -> None:
        """Releases and lists of versions; their names hold their hashes."""

        async def send(path: str) -> None:
            data = await asyncio.to_thread(self._ours.read, path)
            if not await self._place.has(path, len(data)):
                await self._write(path, data)

        await several(send, paths, connections)

    async def metadata(self, metas: Metas, theirs: _Theirs) -> None:
        """Roots, targets, snapshot; then, if nobody else was faster, the timestamp."""
        roots = metas.roots
        known = parsed(roots[theirs.roots - 1]).signed if theirs.roots else None
        new = [(root_path(number), roots[number - 1]) for number in range(theirs.roots + 1, len(roots) + 1)]
        for path, data in in_order(metas, known, metas.files, new):
            there = await self._place.read(path)
            if path == TIMESTAMP and (there or b"") != theirs.timestamp:
                raise Rejected(f"{self._place.where}: somebody else published there meanwhile", code="published")
            if there == data:
                continue
            if there is not None and path != TIMESTAMP and path in theirs.paths:
                raise _diverged(self._place, path)
            await self._write(path, data)

    async def _write(self, path: str, data: bytes) -> None:
        await self._place.write(path, data)
        self.sent += 1
        self.sent_bytes += len(data)


async def several(work: Callable[[T], Awaitable[None]], items: Sequence[T], connections: int) -> None:
    """`work` for every item, so many at once; the first error ends all and is raised."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(connections, len(items))):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def place_in(targets: Targets, release: Release) -> str:
    return target_path(targets.targets[release_target(release.name, release.version)])


def _check_ours(repository: Path, metas: Metas) -> None:
    """What every updater would refuse is not sent."""
    if not metas.signed_for(metas.root.signed):
        raise Rejected(f"{repository} is not signed by its newest keys; run: roost release refresh", code="unsigned")
    for meta in (metas.root, metas.timestamp, metas.snapshot, metas.targets):
        if meta.signed.is_expired():
            remedy = "roost release keys renew" if meta is metas.root else "roost release refresh"
            raise Rejected(f"{repository}: the {meta.signed.type} has expired; run: {remedy}", code="expired")


async def _look(metas: Metas, place: Place) -> _Theirs:
    """What is there; raises `Rejected` when it is not an older state of ours."""
    roots, held = metas.roots, 0
    while (data := await place.read(root_path(held + 1))) is not None:
        if held >= len(roots) or data != roots[held]:
            raise Rejected(f"{place.where} has a repository of other or newer keys: root {held + 1}", code="other")
        held += 1
    timestamp = await place.read(TIMESTAMP)
    if timestamp is None:
        return _Theirs(roots=held)
    try:
        said = json.loads(timestamp)["signed"]
        version, snapshot = int(said["version"]), int(said["meta"]["snapshot.json"]["version"])
        path = f"metadata/{snapshot}.snapshot.json"
        listed = int(json.loads(await place.read(path) or b"")["signed"]["meta"]["targets.json"]["version"])
        targets_path = f"metadata/{listed}.targets.json"
        targets = json.loads(await place.read(targets_path) or b"")["signed"]["targets"]
        files = frozenset(
            f"targets/{name.rpartition('/')[0]}/{file['hashes']['sha256']}.{name.rpartition('/')[2]}"
            for name, file in targets.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Rejected(
            f"{place.where}: the metadata there is damaged ({error!r}); delete its {TIMESTAMP} and push again",
            code="damaged",
        ) from None
    mine = (metas.timestamp.signed.version, metas.snapshot.signed.version, metas.targets.signed.version)
    if any(there > here for there, here in zip((version, snapshot, listed), mine, strict=True)):
        raise Rejected(
            f"{place.where} has a newer state of this repository (timestamp {version}, here {mine[0]}); "
            "publish from the folder that it came from",
            code="newer",
        )
    if version == mine[0] and timestamp != metas.data[-1]:
        raise _diverged(place, TIMESTAMP)
    for name, file in targets.items():
        if _lost(metas.targets.signed, name, str(file["hashes"]["sha256"])):
            raise _diverged(place, name)
    return _Theirs(timestamp, held, frozenset({path, targets_path}), files)


def _lost(ours: Targets, path: str, sha256: str) -> bool:
    """Whether what they have at `path` is a release that we have otherwise, or never had."""
    name, _, file = path.rpartition("/")
    if file == "versions.json":
        return path not in ours.targets
    if path in ours.targets:
        return ours.targets[path].hashes["sha256"] != sha256
    return file.removesuffix(".json") not in memory(ours, name).withdrawn


def _diverged(place: Place, path: str) -> RoostError:
    return Rejected(
        f"{place.where} has another {path} than this repository: two copies of it were published to; "
        "publish from the one that came first",
        code="diverged",
    )
