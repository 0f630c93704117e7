"""Where the chunks of a release lie on this machine already. Blocking: callers use a thread.

Installed releases say in RELEASE.json what they are cut into; the operator's files do not, and are cut as the release
is. What always holds: a place is a hint. Its bytes are hashed before they are used, and a wrong one is fetched.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from schemas.release import FILES_MAX, SUFFIXES, Chunk, Release
from updater.publish.cut import pieces
from updater.store import Store

log = logging.getLogger(__name__)

WRONG_MAX = 8
"""So many wrong chunks of one file, and none of it is believed any more: it was replaced, not just hurt."""


class Place(NamedTuple):
    path: Path
    offset: int


class Places:
    """Places by BLAKE3, of chunks that `release` wants."""

    def __init__(self, release: Release) -> None:
        self._release = release
        wanted = Counter(chunk.blake3 for file in release.files for chunk in file.chunks)
        self._missing = set(wanted)
        self._repeated = {blake3 for blake3, times in wanted.items() if times > 1}
        self._places: dict[str, Place] = {}
        self._wrong: Counter[Path] = Counter()

    def __len__(self) -> int:
        return len(self._places)

    def find(self, store: Store, stopped: Callable[[], bool]) -> None:
        """Look through all that is installed: first through the lists, and only if chunks are missing, by cutting."""
        unlisted: list[Path] = []
        for version in reversed(store.installed()):
            known = store.release(version)
            if known is None:
                unlisted.extend(_weights(store.path(version)))
                continue
            for file in known.files:
                path = store.path(version) / file.path
                if path.is_file() and path.stat().st_size == file.size:
                    self._add(path, file.chunks)
                else:
                    unlisted.append(path)
        for path in unlisted:
            if self._missing and not stopped():
                try:
                    self._add(path, self._cut(path, stopped))
                except OSError as error:
                    log.warning("%s cannot be read (%s); its chunks are fetched", path, error.strerror or error)

    def get(self, chunk: Chunk) -> Place | None:
        return self._places.get(chunk.blake3)

    def wrote(self, chunk: Chunk, path: Path, offset: int) -> None:
        """A chunk of the release itself is now at this place: where it occurs again, it is copied."""
        if chunk.blake3 in self._repeated:
            self._places.setdefault(chunk.blake3, Place(path, offset))

    def wrong(self, chunk: Chunk) -> None:
        """What lies there is not this chunk."""
        place = self._places.pop(chunk.blake3)
        self._wrong[place.path] += 1
        if self._wrong[place.path] == WRONG_MAX:
            self._places = {blake3: other for blake3, other in self._places.items() if other.path != place.path}

    def _add(self, path: Path, chunks: Iterable[Chunk]) -> None:
        offset = 0
        for chunk in chunks:
            if chunk.blake3 in self._missing:
                self._missing.remove(chunk.blake3)
                self._places[chunk.blake3] = Place(path, offset)
            offset += chunk.size

    def _cut(self, path: Path, stopped: Callable[[], bool]) -> Iterator[Chunk]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for chunk, _ in pieces(descriptor, self._release.chunking):
                if stopped() or not self._missing:
                    return
                yield chunk
        finally:
            os.close(descriptor)


def _weights(folder: Path) -> list[Path]:
    """Files of an operator's folder that a release could have too."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return found[:FILES_MAX]
