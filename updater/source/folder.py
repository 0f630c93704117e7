"""A repository in a folder of this machine: a disk, a stick, a share of another machine.

What always holds: nothing outside the folder is read, whatever links are in it, and nothing but regular files.
"""

from __future__ import annotations

import asyncio
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from schemas.errors import Disconnected, Untrusted
from updater.source.contract import Missing, Unready, plain, too_large


class FolderSource:
    """Reads on threads of its own: a share that hangs must not take those that the rest of the process needs."""

    def __init__(self, folder: Path, *, connections: int) -> None:
        self.where = str(folder)
        self._folder = folder
        self._threads = ThreadPoolExecutor(max(1, connections), thread_name_prefix="repository")

    async def read(self, path: str, limit: int) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, plain(path), limit)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, path: str, limit: int) -> bytes:
        try:
            folder = self._folder.resolve(strict=True)
            file = (folder / path).resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError):
            if self._folder.is_dir():
                raise Missing(f"{self.where} has no {path}") from None
            raise Unready(f"{self.where} is not there; is the disk or share mounted? (updates.source)") from None
        except (OSError, RuntimeError) as error:
            raise _unready(self.where, path, error) from None
        if not file.is_relative_to(folder):
            raise Untrusted(f"{self.where}: {path} leads out of the repository, to {file}", code="path")
        try:
            return self._content(file, path, limit)
        except FileNotFoundError:
            raise Missing(f"{self.where} has no {path}") from None
        except OSError as error:
            raise _unready(self.where, path, error) from None

    def _content(self, file: Path, path: str, limit: int) -> bytes:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as opened:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise Unready(f"{self.where}: {path} is no file")
            if status.st_size > limit:
                raise too_large(self.where, path, str(status.st_size), limit)
            data = opened.read(limit + 1)
        if len(data) > limit:
            raise too_large(self.where, path, "more", limit)
        return data


def _unready(where: str, path: str, error: OSError | RuntimeError) -> Unready | Disconnected:
    if isinstance(error, PermissionError):
        return Unready(f"{where}: {path} may not be read by this user; see the rights of the folder and the file")
    if isinstance(error, IsADirectoryError | RuntimeError):
        return Unready(f"{where}: {path} cannot be read: {error}")
    return Disconnected(f"{where}: {path} cannot be read: {error.strerror or error}")
