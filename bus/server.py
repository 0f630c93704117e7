"""What both embedded servers share: start until they serve, ask whether they still do."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from bus import child
from bus.programs import Version, last_line, loopback, require, require_free
from schemas.errors import ConfigError, Retryable

Process = asyncio.subprocess.Process
Spawned = Callable[[int], None]

START_S = 120.0
"""Reading a large store back takes a while; a server that needs longer is stuck."""
STOP_S = 10.0
PING_S = 5.0
POLL_S = 0.02
CLASHES_MAX = 5
LOG_BYTES_MAX = 10_000_000


class Server(ABC):
    """One embedded server. `port` is known from the first start on and stays the same over restarts."""

    name: str
    stop_s = STOP_S

    def __init__(self, listen: str, place: str, data: Path, binary: Path, least: Version) -> None:
        self.host, self.port = loopback(listen, place)
        self.place = place
        self.data = data
        self.binary = binary
        self.least = least
        self.chosen = self.port == 0
        self.facts: dict[str, str] = {}
        self.log = data / "logs" / f"{self.name}.log"

    @abstractmethod
    def prepare(self) -> tuple[list[str], dict[str, str]]:
        """Write the configuration; returns the command and the variables to add to the environment."""

    @abstractmethod
    async def listening(self, process: Process) -> bool:
        """One real question to the server: does it serve?"""

    async def start(self, spawned: Spawned) -> Process:
        """Start and wait until it serves. `ConfigError` for what the operator must mend, `Retryable` otherwise."""
        await asyncio.to_thread(require, self.binary, self.least)
        for attempt in range(CLASHES_MAX):
            self._require_free()
            process = await self._spawn()
            spawned(process.pid)
            try:
                async with asyncio.timeout(START_S):
                    while process.returncode is None:
                        if await self.listening(process):
                            self.facts = {"address": f"{self.host}:{self.port}"}
                            return process
                        await asyncio.sleep(POLL_S)
            except TimeoutError:
                await child.end(process, STOP_S)
                raise Retryable(f"{self.name} does not answer after {START_S:.0f} s; see {self.log}") from None
            except BaseException:
                await child.end(process, STOP_S)
                raise
            if not (self.chosen and attempt + 1 < CLASHES_MAX):
                break
            self.port = 0
        raise Retryable(f"{self.name} ended at once: {last_line(self.log)} (see {self.log})")

    def _require_free(self) -> None:
        """`ConfigError` before the first start; later the port is ours, and whoever has it now may go again."""
        if not self.port:
            return
        try:
            require_free(self.host, self.port, self.place)
        except ConfigError as error:
            if self.facts or self.chosen:
                raise Retryable(error.message) from None
            raise

    def epitaph(self) -> str:
        """Where its last words are."""
        return f"; see {self.log}"

    async def ping(self) -> None:
        """Raises `Retryable` when the server no longer answers."""
        try:
            async with asyncio.timeout(PING_S):
                ok = await self.answers()
        except (OSError, TimeoutError):
            ok = False
        if not ok:
            raise Retryable(f"{self.name} does not answer on {self.host}:{self.port}")

    @abstractmethod
    async def answers(self) -> bool:
        """Ask over the network."""

    async def _spawn(self) -> Process:
        command, extra = self.prepare()
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.data), "LC_ALL": "C", **extra}
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await child.spawn(self.data, self.name, command, env=env, output=output)
        finally:
            os.close(output)
