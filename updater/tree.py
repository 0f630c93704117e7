"""What lies in a folder of a slot, and clearing it. Blocking: callers use a thread.

What always holds: links are never followed; only what is in the folder itself goes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from schemas.errors import Untrusted


def size(path: Path) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def filled(folder: Path) -> bool:
    """It is a folder, and something is in it."""
    try:
        with os.scandir(folder) as entries:
            return any(entries)
    except (FileNotFoundError, NotADirectoryError):
        return False


def weed(folder: Path, paths: set[str]) -> None:
    """Remove all that is neither a file in `paths` nor a folder on the way to one."""
    ways = {str(way) for path in paths for way in PurePosixPath(path).parents}
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        for name in list(folders):
            if str(inside / name) not in ways or (Path(place) / name).is_symlink():
                folders.remove(name)
                remove(Path(place) / name)
        for name in files:
            if str(inside / name) not in paths or (Path(place) / name).is_symlink():
                remove(Path(place) / name)


def remove(path: Path) -> None:
    """A file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sync_whole(path: Path, expected: int) -> None:
    """The file is on the disk when this returns; raises `Untrusted` unless it has the bytes that are expected."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != expected:
            raise Untrusted(f"{path} has not the {expected} bytes of its release; it was not installed", code="release")
        os.fsync(file.fileno())
