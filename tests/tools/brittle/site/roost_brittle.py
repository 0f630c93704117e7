"""A backend of type `brittle`: echo, but it misbehaves as the file behind `path` says. For tests alone."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from workers import Demand, Finished, Job
from workers.echo import EchoBackend, decode, read, version


class BrittleFile(Struct, frozen=True, forbid_unknown_fields=True):
    """`echo.json`, with what goes wrong."""

    mark: str = ""
    crash: Literal["", "load", "answer"] = ""
    """`os.abort()` in `load`, or in place of the first piece of answer number `after`, counted from 0."""
    hang: Literal["", "load", "answer"] = ""
    """For ever, deaf to a cancel; of answers from number `after` on."""
    after: int = 0
    says: Literal["", "garbage", "empty", "repeats"] = ""
    slow_ms: float = 0.0
    """Before each word."""
    load_ms: float = 0.0
    demand: int = 0
    """Bytes that it says it will take."""
    takes: int = 0
    """Bytes that it takes in `load`, whatever it said."""


class BrittleBackend(EchoBackend):
    """See the module."""

    slots = 64

    def demand(self, path: Path | None, limit: int | None) -> Demand:
        return Demand(weights=self._read(path).demand, what="as it says")

    def load(self, path: Path | None) -> None:
        self._file = found = self._read(path)
        self._answers = 0
        self.mark = found.mark
        self.version = version(read(path)) if path is not None else "brittle-1"
        self._held = bytearray(found.takes)
        time.sleep(found.load_ms / 1000)
        if found.crash == "load":
            os.abort()
        if found.hang == "load":
            _for_ever()

    def _read(self, path: Path | None) -> BrittleFile:
        return BrittleFile() if path is None else decode(read(path), path, BrittleFile)

    def generate(self, job: Job) -> Iterator[str | Finished]:
        number, self._answers = self._answers, self._answers + 1
        if self._file.crash == "answer" and number == self._file.after:
            os.abort()
        if self._file.hang == "answer" and number >= self._file.after:
            _for_ever()
        if self._file.says == "empty":
            yield Finished()
            return
        for item in super().generate(job):
            if isinstance(item, str):
                time.sleep(self._file.slow_ms / 1000)
                yield self._word(item, number)
            else:
                yield item

    def _word(self, word: str, seed: int) -> str:
        if self._file.says == "garbage":
            rng = random.Random(f"{word}{seed}")
            return "".join(chr(rng.randrange(0x2500, 0x2580)) for _ in range(12))
        return word.strip() + (" the same again" * 20) if self._file.says == "repeats" else word


def _for_ever() -> None:
    while True:
        time.sleep(3600)
