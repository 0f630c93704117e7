"""Brings a release onto the disk: what this machine has is copied, the rest is read from the source, all is verified.

Each byte passes once: as chunks come they are hashed (BLAKE3 for the chunk, SHA-256 for the file), written in order and
sent to the disk in the background, so that little is left to do after the last one. What always holds: what is written
is verified; a fetch that ends early, in whatever way, leaves beginnings of files that the next one goes on with.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from msgspec import Struct

from schemas.errors import ConfigError, Rejected, Untrusted
from schemas.release import Release
from schemas.strict import bytes_of
from schemas.update import UpdatesConfig
from updater import formats
from updater.disk import disk_bytes, megabytes, on_disk, room, sync_file
from updater.growing import Growing, Part
from updater.pace import Meter, Pace, Progress
from updater.places import Place, Places
from updater.source.contract import Source
from updater.store import Store
from updater.window import Window

BATCH_BYTES = 4_194_304
"""Handed to the writing thread at once: it has low priority, and the last batch should not wait long for it."""
SYNC_BYTES = 16_777_216
"""Written since the last flush began: then another is begun, so that the last one of all is short."""

P = ParamSpec("P")
T = TypeVar("T")


class Fetched(Struct, frozen=True, kw_only=True):
    """A release that is installed: bytes that the source had to send, and the seconds of each stage.

    Stages: `resume` (verify what an earlier fetch has left), `find` (chunks that are here), `fetch` (first byte to
    last), `verify` (hash and format of files), `install`. `last_byte_to_done` is all that comes after the last byte of
    the release was at hand; `last_read_to_done` all after the source had sent its last, with what was copied since.
    """

    bytes: int
    seconds: dict[str, float]


async def fetch(
    release: Release, source: Source, store: Store, config: UpdatesConfig, progress: Callable[[Progress], None]
) -> Fetched:
    """Install `release`, which is trusted, in the slot `store`, whose lock the caller holds.

    Raises what the source raises; `Untrusted` when a chunk, a file or its format is wrong; `Rejected` when it is larger
    than `release_bytes_max`; `Retryable` when the disk is full or would be; `ConfigError` when its place is taken.
    `progress` is called on the loop, a few times a second.
    """
    if await asyncio.to_thread(lambda: store.release(release.version) == release and store.whole(release.version)):
        return Fetched(bytes=0, seconds={})
    job = _Job(release, source, store, config, progress)
    try:
        await job.begin()
        async with asyncio.TaskGroup() as group:
            await job.grow(group)
        await job.install()
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    finally:
        job.close()
    return Fetched(bytes=job.meter.fetched, seconds=job.seconds)


class _Job:
    def __init__(
        self,
        release: Release,
        source: Source,
        store: Store,
        config: UpdatesConfig,
        progress: Callable[[Progress], None],
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = asyncio.get_running_loop().time
        self.meter = Meter(release.size, self._clock, progress)
        self._release = release
        self._source = source
        self._store = store
        self._config = config
        self._places = Places(release)
        self._files: list[Growing] = []
        self._chunks = [chunk for file in release.files for chunk in file.chunks]
        self._stopped = threading.Event()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="fetch")
        self._flush: asyncio.Task[None] | None = None
        self._since = self._clock()
        self._last_byte = self._last_read = self._since

    async def begin(self) -> None:
        """Make room and take up what is there."""
        await self._ended(self._threads, self._resume)
        self._stage("resume")
        await self._ended(self._threads, self._places.find, self._store, self._stopped.is_set)
        self._stage("find")
        self.meter.add(done=sum(file.size for file in self._files))

    async def grow(self, group: asyncio.TaskGroup) -> None:
        """All files, one after the other, with the window of reads going over their borders."""
        pace = Pace(_rate(self._config))
        connections = max(1, self._config.connections)
        window = Window(group, self._source, self._chunks, self._places, pace, connections, self._came)
        base = 0
        for file in self._files:
            await self._file(file, base, window, group)
            base += len(file.file.chunks)

    async def install(self) -> None:
        await self._ended(None, self._store.finish, self._release)
        self._stage("install")
        self.seconds["last_byte_to_done"] = self._clock() - self._last_byte
        self.seconds["last_read_to_done"] = self._clock() - self._last_read
        self.meter.tell()

    def close(self) -> None:
        self._stopped.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for file in self._files:
            file.close()

    def _resume(self) -> None:
        release, config, folder = self._release, self._config, self._store.folder
        most = bytes_of(config.release_bytes_max, disk_bytes(folder))
        if release.size > most:
            raise Rejected(
                f"release {release.name} {release.version} has {megabytes(release.size)}, more than "
                f"updates.release_bytes_max ({config.release_bytes_max})",
                code="too_large",
            )
        incoming = self._store.incoming(release)
        for file in release.files:
            growing = Growing(incoming, file)
            self._files.append(growing)
            growing.resume(self._stopped.is_set)
            self._note(growing, 0)
        left = release.size - sum(file.size for file in self._files)
        room(folder, left, bytes_of(config.free_bytes_min, disk_bytes(folder)))

    async def _file(self, file: Growing, base: int, window: Window, group: asyncio.TaskGroup) -> None:
        synced = file.size
        while not file.complete:
            at, begin, size = base + file.count, file.count, file.size
            window.fill(at)
            parts = self._batch(file, base, window) or [await window.wait(at)]
            self._last_byte = self._clock()
            right = await self._ended(self._threads, file.append, parts)
            self._note(file, begin)
            window.written(at, right)
            self.meter.add(done=file.size - size)
            if right < len(parts):
                self._wrong(parts[right], at + right, window)
            if file.size - synced >= SYNC_BYTES and (self._flush is None or self._flush.done()):
                synced = file.size
                self._flush = group.create_task(self._ended(self._threads, _flush, file))
        self._stage("fetch")
        await self._ended(None, self._verify, file)
        self._stage("verify")

    def _batch(self, file: Growing, base: int, window: Window) -> list[Part]:
        """The next chunks of the file that are at hand."""
        parts: list[Part] = []
        size = 0
        for number in range(file.count, len(file.file.chunks)):
            chunk = file.file.chunks[number]
            part = self._places.get(chunk) or window.ready(base + number)
            size += chunk.size
            if part is None or (parts and size > BATCH_BYTES):
                break
            parts.append(part)
        return parts

    def _wrong(self, part: Part, at: int, window: Window) -> None:
        if isinstance(part, Place):
            self._places.wrong(self._chunks[at])
            window.rewind(at)
        else:
            window.wrong(at)

    def _note(self, file: Growing, begin: int) -> None:
        """Chunks of the file from `begin` on are written: where they occur again, they are copied."""
        offset = file.size
        for chunk in reversed(file.file.chunks[begin : file.count]):
            offset -= chunk.size
            self._places.wrote(chunk, file.path, offset)

    def _verify(self, file: Growing) -> None:
        file.verify()
        file.close()
        with on_disk(file.path):
            formats.check(file.path, file.file.path)

    def _came(self, size: int) -> None:
        self._last_read = self._clock()
        self.meter.add(fetched=size)

    def _stage(self, name: str) -> None:
        now = self._clock()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    async def _ended(self, threads: Executor | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in a thread; when this is cancelled, the thread is told and waited for, so that nothing runs on.

        What is done after the last byte is urgent and takes the loop's own threads (`None`).
        """
        work = asyncio.get_running_loop().run_in_executor(threads, partial(function, *args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stopped.set()
            await asyncio.gather(work, return_exceptions=True)
            raise


def _rate(config: UpdatesConfig) -> float | None:
    if config.rate is None:
        return None
    rate = bytes_of(config.rate, 0)
    if rate < 1:
        raise ConfigError(f"updates.rate: {config.rate} is no rate; bytes a second are expected, like 5 MB")
    return float(rate)


def _flush(file: Growing) -> None:
    with on_disk(file.path):
        sync_file(file.path)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one to tell: a proof that something is wrong before a failure that may pass."""
    plain = [_first(error) if isinstance(error, BaseExceptionGroup) else error for error in errors.exceptions]
    return next((error for error in plain if isinstance(error, Untrusted)), plain[0])
