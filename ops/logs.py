"""Logs of the parts: each line to data/logs/PART.log, warnings and errors to the terminal as well."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_BYTES_MAX = 10_000_000
LOG_FILES_MAX = 3
LINE_BYTES_MAX = 65_536
RECORD = re.compile(rb"\d{4}-\d\d-\d\d [\d:,.]+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)")
LOUD = {b"WARNING", b"ERROR", b"CRITICAL"}


class LogFile:
    """A file that moves to NAME.1, NAME.2 … when it has grown; the oldest is dropped."""

    def __init__(self, path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        self.path = path
        self.bytes_max = bytes_max
        self._open()

    def _open(self) -> None:
        self.file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)
        self.size = self.path.stat().st_size

    def write(self, line: bytes) -> None:
        if self.size + len(line) > self.bytes_max and self.size:
            self.file.close()
            for number in range(LOG_FILES_MAX - 1, 0, -1):
                older = self.path.with_name(f"{self.path.name}.{number}")
                if older.exists():
                    older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
            self._open()
        self.file.write(line)
        self.size += len(line)

    def close(self) -> None:
        self.file.close()


class Pump:
    """Moves what a part prints into its log, until the part closes its end. `last` is its last line."""

    def __init__(self, name: str, log: LogFile, say: Callable[[str], None]) -> None:
        self.name = name
        self.log = log
        self.say = say
        self.last = ""
        self._loud = False

    async def run(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(LINE_BYTES_MAX):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.line(line)
            if len(rest) > LINE_BYTES_MAX:
                self.line(rest)
                rest = b""
        if rest:
            self.line(rest)

    def line(self, line: bytes) -> None:
        """One line; those without a level of their own (tracebacks) belong to the record before them."""
        try:
            self.log.write(line + b"\n")
        except OSError as error:  # a full disk must not stop the part, whose pipe would run full
            self.say(f"{self.log.path}: {error.strerror}")
        if line.strip():
            self.last = line.decode(errors="replace").strip()
        if record := RECORD.fullmatch(line):
            self._loud = record[1] in LOUD
            if self._loud:
                self.say(f"{self.name}: {record[1].decode().lower()}: {record[2].decode(errors='replace')}")
        elif self._loud and line.strip():
            self.say(f"{self.name}:   {line.decode(errors='replace')}")
