"""Writing that survives a power cut, and errors of the disk in our words. Blocking: callers use a thread.

What always holds: under a name that `written` or `linked` returns from, there is the old thing or the whole new one.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConfigError, Retryable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
FULL_AFTER_S = 300.0


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Errors of the operating system become ours: a full disk is `Retryable`, a closed folder `ConfigError`."""
    try:
        yield
    except OSError as error:
        place = f"{folder}: {error.strerror or error}"
        if error.errno in FULL:
            raise Retryable(f"{place}; {_figures(folder)}. Make room", after_s=FULL_AFTER_S, code="disk_full") from None
        if error.errno in DENIED:
            raise ConfigError(f"{place}; Roost must be able to write there ({error.filename})") from None
        raise Retryable(f"{place} ({error.filename})", code="disk") from None


def sync_folder(folder: Path) -> None:
    """New, renamed and removed names in `folder` are on the disk when this returns."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """What was written to the file so far is on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(handle)
    finally:
        os.close(handle)


def written(path: Path, content: bytes) -> None:
    """Replace the file `path` atomically. The temporary name is always the same, so a kill leaves one at most."""
    draft = path.with_name(f".{path.name}.new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def linked(link: Path, target: str) -> None:
    """Make `link` a link to `target`, relative to its folder, atomically."""
    draft = link.with_name(f".{link.name}.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(link)
    sync_folder(link.parent)


def room(folder: Path, needed: int, left: int) -> None:
    """Raise `Retryable` unless `needed` bytes fit on the disk of `folder` and `left` bytes would still be free."""
    free = shutil.disk_usage(folder).free
    if free - needed < left:
        raise Retryable(
            f"{folder}: {megabytes(free)} are free, {megabytes(needed)} are needed for the release and "
            f"{megabytes(left)} shall be left (updates.free_bytes_min). Make room, or lower updates.keep",
            after_s=FULL_AFTER_S,
            code="disk_full",
        )


def disk_bytes(folder: Path) -> int:
    """The size of the disk that `folder` is on, or will be."""
    return shutil.disk_usage(_there(folder)).total


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _figures(folder: Path) -> str:
    usage = shutil.disk_usage(_there(folder))
    return f"{megabytes(usage.free)} of {megabytes(usage.total)} are free"


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
