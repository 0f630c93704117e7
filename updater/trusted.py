"""What a publisher really published: TUF between an untrusted source and everything that reads a release.

python-tuf's client does the work; here are its thread, its disk and its errors in our words. The metadata that was
accepted is kept in a folder named by the operator's root file (`updates.root`), readable by this user only. What
always holds:

- Every chain begins at the operator's root, on each refresh: what lies in the folder is verified anew, and garbage
  there (a kill, a power cut, a bad disk) costs a download, never a refusal.
- Nothing older than what a refresh once returned is accepted again, even when the metadata in the folder is lost:
  `seen.py` keeps the numbers apart. Only removing the folder, or another root file, forgets them.
- One process at a time works in the folder; another waits, then gives up with `Retryable`.
- Nothing is believed that a signature does not cover: names, versions, lengths and hashes are checked before a
  release is handed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, TargetFile
from tuf.ngclient import Updater, UpdaterConfig

from schemas.errors import ConfigError, Disconnected, Retryable, RoostError, Untrusted
from schemas.release import VERSION, Release, Versions, check_release, release_target, versions_target
from updater import kept, seen
from updater.bridge import Bridge
from updater.disk import DENIED, FULL, on_disk
from updater.refused import refused
from updater.source.contract import Missing, Source

T = TypeVar("T")
D = TypeVar("D", Release, Versions)

LIMITS = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=8,
    root_max_length=512_000,
    timestamp_max_length=16_384,
    snapshot_max_length=2_000_000,
    targets_max_length=5_000_000,
)
VERSIONS_BYTES_MAX = 1_048_576
RELEASE_BYTES_MAX = 67_108_864
"""Of the description: some 800 000 chunks, 200 GB."""
WAIT_S = 900.0
"""For one file of metadata; the source has time-outs and limits of its own, far below."""
FORMAT = 1


class Trusted:
    """One repository as its root file vouches for it. `folder` holds what is kept of every repository."""

    def __init__(
        self,
        source: Source,
        root: Path,
        folder: Path,
        *,
        wait_s: float = WAIT_S,
        lock_wait_s: float = kept.LOCK_WAIT_S,
    ) -> None:
        self.source = source
        self._root = root
        self._folder = folder
        self._wait_s = wait_s
        self.lock_wait_s = lock_wait_s
        self._one = asyncio.Lock()

    async def refresh(self) -> Catalogue:
        """Ask the source what is new and verify it.

        Raises `Untrusted` (codes: see `refused.py`), `Retryable`, `ConfigError` for the root file, `AuthFailed`.
        Cancelling ends the thread too before it returns.
        """
        bridge = Bridge(self.source, asyncio.get_running_loop(), self._wait_s)
        place, updater = await self.apart(bridge, lambda: self._refresh(bridge))
        return Catalogue(self, bridge, place, updater)

    async def apart(self, bridge: Bridge, work: Callable[[], T]) -> T:
        """Do `work`, which uses `bridge`, on a thread, one at a time."""
        async with self._one:
            bridge.begin()
            thread = ThreadPoolExecutor(1, thread_name_prefix="tuf")  # its own: reads may need the loop's other threads
            running = asyncio.get_running_loop().run_in_executor(thread, work)
            thread.shutdown(wait=False)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                bridge.stop()
                await asyncio.wait([running])
                if not running.cancelled():
                    running.exception()
                raise
            except Disconnected as error:
                raise Retryable(error.message, code=error.code) from None

    def _refresh(self, bridge: Bridge) -> tuple[Path, Updater]:
        root = root_of(self._root)
        place = kept.place(self._folder, root)
        with kept.locked(place, lambda: bridge.stopped, self.lock_wait_s), on_disk(place):
            before = seen.load(place)
            try:
                updater = self._updated(bridge, place, root)
            except OSError as error:
                if error.errno in FULL | DENIED:
                    raise
                kept.forget(place)
                updater = self._updated(bridge, place, root)
            now = seen.of(**kept.metadata(place))
            if before is not None and (sentence := seen.older(now, before)):
                raise Untrusted(f"{self.source.where} was set back: {sentence}; nothing is taken back", code="older")
            seen.save(place, now)
        return place, updater

    def _updated(self, bridge: Bridge, place: Path, root: bytes) -> Updater:
        try:
            updater = Updater(str(place), "metadata", fetcher=bridge, config=LIMITS, bootstrap=root)
            updater.refresh()
        except (exceptions.RepositoryError, exceptions.DownloadError) as error:
            raise _said(error, bridge, place) from None
        return updater


class Catalogue:
    """What one refresh found. Reading it later fails when the publisher has withdrawn files since."""

    def __init__(self, trusted: Trusted, bridge: Bridge, place: Path, updater: Updater) -> None:
        self._trusted = trusted
        self._bridge = bridge
        self._place = place
        self._updater = updater

    async def versions(self, name: str) -> tuple[str, ...]:
        """The versions of a model, the oldest first; `Missing` when the publisher has no such model."""
        path = versions_target(name)
        listed = await self._decoded(path, VERSIONS_BYTES_MAX, Versions)
        wrong = [version for version in listed.versions if not VERSION.fullmatch(version)]
        if listed.name != name or wrong or len(set(listed.versions)) != len(listed.versions):
            raise Untrusted(f"{self._where}: {path} is no list of the versions of {name}", code="release")
        return listed.versions

    async def release(self, name: str, version: str) -> Release:
        """One release, checked; whether it is larger than the operator allows, `fetch` says."""
        path = release_target(name, version)
        release = await self._decoded(path, RELEASE_BYTES_MAX, Release)
        if (release.name, release.version) != (name, version):
            raise Untrusted(f"{self._where}: {path} is the release {release.name} {release.version}", code="release")
        check_release(release)
        return release

    @property
    def _where(self) -> str:
        return self._trusted.source.where

    async def _decoded(self, path: str, limit: int, kind: type[D]) -> D:
        file = await self._trusted.apart(self._bridge, lambda: self._find(path))
        if file is None:
            raise Missing(f"{self._where}: the publisher has no {path}")
        if file.length > limit:
            raise Untrusted(f"{self._where}: {path} has {file.length} bytes; {limit} are allowed", code="too_large")
        try:
            data = await self._trusted.source.read(target_path(file), file.length)
        except Disconnected as error:
            raise Retryable(error.message, code=error.code) from None
        return await asyncio.to_thread(decoded, data, file, kind, self._where)

    def _find(self, path: str) -> TargetFile | None:
        """On a thread: a repository may delegate, and then more metadata is read and kept."""
        wait_s = self._trusted.lock_wait_s
        with kept.locked(self._place, lambda: self._bridge.stopped, wait_s), on_disk(self._place):
            try:
                return self._updater.get_targetinfo(path)
            except (exceptions.RepositoryError, exceptions.DownloadError) as error:
                raise _said(error, self._bridge, self._place) from None


def root_of(path: Path) -> bytes:
    """The operator's root file; raises `ConfigError` when it is none."""
    remedy = "ask the publisher for the root.json that `roost release keys` made, and name it in updates.root"
    try:
        with path.open("rb") as file:
            data = file.read(LIMITS.root_max_length + 1)
    except OSError as error:
        raise ConfigError(f"updates.root: {path} cannot be read: {error.strerror}; {remedy}") from None
    try:
        root: Metadata[Root] = Metadata.from_bytes(data)
        if root.signed.type == Root.type:
            root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
            return data
        wrong = f"it is {root.signed.type} metadata"
    except exceptions.RepositoryError as error:
        wrong = str(error)
    raise ConfigError(f"updates.root: {path} is no root of a repository ({wrong}); {remedy}")


def _said(error: Exception, bridge: Bridge, place: Path) -> RoostError:
    """`error` of python-tuf in our words, with the newest metadata of each role: read just now, or on the disk."""
    metadata = kept.metadata(place)
    for path, data in bridge.fetched.items():
        metadata[path.removesuffix(".json").rpartition("/")[2].rpartition(".")[2]] = data
    return refused(error, bridge.last, metadata, bridge.where, datetime.now(UTC))


def target_path(file: TargetFile) -> str:
    """Where a target lies in a repository with consistent snapshots: its hash stands before its name."""
    folder, _, name = file.path.rpartition("/")
    return f"targets/{folder}/{next(iter(file.hashes.values()))}.{name}"


def decoded(data: bytes, file: TargetFile, kind: type[D], where: str) -> D:
    """The target in `data`, if these are the bytes that were signed; raises `Untrusted`."""
    try:
        file.verify_length_and_hashes(data)
    except exceptions.LengthOrHashMismatchError:
        raise Untrusted(f"{where}: {file.path} does not have the hash that was signed", code="hash") from None
    try:
        found = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Untrusted(f"{where}: {file.path} cannot be read: {error}", code="release") from None
    if found.v != FORMAT:
        raise Untrusted(f"{where}: {file.path} has format {found.v}; this Roost reads {FORMAT}", code="format")
    return found
