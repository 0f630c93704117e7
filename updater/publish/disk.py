"""Files that are whole or not there: written under another name, flushed to the disk, renamed.

What always holds: a reader, and a writer that was killed and begins anew, sees the old bytes or the new ones. Names
that begin with a dot are nobody's but the writer's; what a killed one left of them may be deleted under the lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import Retryable
from updater.disk import sync_file, sync_folder

LOCK = ".lock"
LOCK_WAIT_S = 60.0
LOCK_STEP_S = 0.05
FLUSHES_AT_ONCE = 8


def write(path: Path, data: bytes | memoryview, *, mode: int = 0o644, flush: bool = True) -> None:
    """Put `data` at `path`; without `flush` it is the caller who flushes the file before anybody relies on it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
        file.write(data)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if flush:
        sync_folder(path.parent)


def flush_all(paths: Iterable[Path]) -> None:
    """Several at once, and then their folders: the disk puts the waits of many together."""
    files = list(paths)
    with ThreadPoolExecutor(FLUSHES_AT_ONCE) as pool:
        list(pool.map(sync_file, files))
        list(pool.map(sync_folder, sorted({file.parent for file in files})))


def make(folder: Path, *, mode: int = 0o755) -> None:
    """The folder and those above it, on the disk."""
    if folder.is_dir():
        return
    make(folder.parent)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


@contextmanager
def locked(folder: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """One publisher at a time; the lock ends with the process. Raises `Retryable` after `wait_s`."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Retryable(
                        f"{folder}: another publisher is at work there; try again when it has ended", code="locked"
                    ) from None
                time.sleep(LOCK_STEP_S)
        yield
    finally:
        os.close(descriptor)
