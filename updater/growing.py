"""A file of a release while it grows: chunk after chunk in order, each verified, the whole hashed as it passes.

Blocking: callers use a thread. What always holds: the file is a beginning of the right one, but for its last chunk if
the process was killed while that was written, and `resume` cuts such a torn end off.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from blake3 import blake3

from schemas.errors import Untrusted
from schemas.release import ReleaseFile
from updater.disk import on_disk
from updater.places import Place

Part = bytes | Place
"""A chunk that came from the source, or where it lies on this machine."""


class Growing:
    """One file. Its methods may be called from any thread, one after the other."""

    def __init__(self, folder: Path, file: ReleaseFile) -> None:
        self.file = file
        self.path = folder / file.path
        self.count = 0
        """Chunks that are written."""
        self.size = 0
        """Bytes that are written."""
        self._sha256 = hashlib.sha256()
        self._handle = -1

    def resume(self, stopped: Callable[[], bool]) -> None:
        """Verify what an earlier life has left of it, and cut it at the first chunk that is wrong."""
        with on_disk(self.path):
            if not self.path.exists():
                return
            with self.path.open("rb", buffering=0) as file:
                for chunk in self.file.chunks:
                    if stopped():
                        return
                    if not self._take(file.read(chunk.size)):
                        break
            os.truncate(self.path, self.size)

    @property
    def complete(self) -> bool:
        return self.count == len(self.file.chunks)

    def append(self, parts: Sequence[Part]) -> int:
        """Write the next chunks; returns how many were right. The first wrong one and those after it are not written.

        Raises `Retryable` when the disk is full.
        """
        with on_disk(self.path):
            self._open()
            for number, part in enumerate(parts):
                size = self.file.chunks[self.count].size
                data = _at(part, size) if isinstance(part, Place) else part
                if not self._take(data):
                    return number
                _write(self._handle, data)
            return len(parts)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def verify(self) -> None:
        """The whole file has the hash that its release says; raises `Untrusted`, and the file is gone then."""
        with on_disk(self.path):
            self._open()
            found = self._sha256.hexdigest()
            if found != self.file.sha256:
                self.path.unlink()
                raise Untrusted(
                    f"{self.file.path} has SHA-256 {found}, and its release says {self.file.sha256}, though all its "
                    "chunks are right; the publisher must make the release anew",
                    code="hash",
                )

    def _open(self) -> None:
        if self._handle < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._handle = os.open(self.path, flags, 0o644)

    def _take(self, data: bytes) -> bool:
        chunk = self.file.chunks[self.count]
        if len(data) != chunk.size or blake3(data).hexdigest() != chunk.blake3:
            return False
        self._sha256.update(data)
        self.count += 1
        self.size += chunk.size
        return True


def _at(place: Place, size: int) -> bytes:
    try:
        with place.path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), size, place.offset)
    except OSError:
        return b""


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
