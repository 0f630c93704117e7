"""The folder in which python-tuf keeps the metadata of one repository. Blocking: callers use a thread.

What always holds: only this user can look into it, one process at a time works in it, and its name is the hash of the
operator's root file, so that another root begins with nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import Retryable
from updater import seen
from updater.disk import on_disk

ROLES = ("root", "timestamp", "snapshot", "targets")
LOCK = ".lock"
LOCK_WAIT_S = 30.0
LOCK_LOOK_S = 0.02


def place(folder: Path, root: bytes) -> Path:
    """The folder of the repository with this root file, made where it is not there yet."""
    found = folder / hashlib.sha256(root).hexdigest()[:16]
    with on_disk(found):
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        found.chmod(0o700)
    return found


@contextmanager
def locked(place: Path, stopped: Callable[[], bool], wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Keep everybody else out of `place`; raises `Retryable` when somebody stays in it too long, or when stopped.

    What a killed python-tuf was writing is removed.
    """
    with on_disk(place):
        handle = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_s
        while not _taken(handle):
            if stopped() or time.monotonic() > deadline:
                raise Retryable(f"{place}: another updater is at work there", after_s=10.0, code="locked")
            time.sleep(LOCK_LOOK_S)
        for draft in place.glob("tmp*"):
            with suppress(OSError):
                draft.unlink()
        yield
    finally:
        os.close(handle)


def metadata(place: Path) -> dict[str, bytes]:
    """What is kept of each role; nothing of those that cannot be read."""
    found: dict[str, bytes] = {}
    for role in ROLES:
        with suppress(OSError):
            found[role] = (place / f"{role}.json").read_bytes()
    return found


def forget(place: Path) -> None:
    """Remove what python-tuf keeps, and only that."""
    for path in place.iterdir():
        if path.name in (*seen.COPIES, LOCK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EINTR):
            return False
        raise
    return True
