"""A part of Roost (connectors, worker …) as a service that a unit runs: `roost run NAME` in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bus import child
from ops.logs import LogFile, Pump
from schemas.errors import ConfigError, Retryable

EXIT_CONFIG = 78
"""As in bus/part.py: starting again will not help."""
READY_FD = "ROOST_READY_FD"
START_S = 1_800.0
"""Loading a large model from a slow disk takes minutes."""
LAST_WORDS_S = 1.0
LEAVE_S = 10.0


class PartService:
    """One part. Tells that it is ready through a pipe, one JSON object a line (see `bus.part.report`)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        data: Path,
        env: dict[str, str],
        *,
        stop_s: float,
        say: Callable[[str], None],
    ) -> None:
        self.name = name
        self.command = command
        self.data = data
        self.env = env
        self.stop_s = stop_s
        self.facts: dict[str, str] = {}
        self.log = LogFile(data / "logs" / f"{name}.log")
        self.say = say
        self._talk: asyncio.Task[None] | None = None

    async def start(self, spawned: Callable[[int], None]) -> asyncio.subprocess.Process:
        await self._talked()
        read, write = os.pipe()
        try:
            env = {**os.environ, **self.env, READY_FD: str(write)}
            process = await child.spawn(
                self.data, self.name, self.command, env=env, output=asyncio.subprocess.PIPE, pass_fds=(write,)
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        spawned(process.pid)
        if process.stdout is None:
            raise RuntimeError("the part was started without a pipe")
        pump = Pump(self.name, self.log, self.say)
        told: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._talk = asyncio.create_task(_talk(pump, process.stdout, read, told))
        try:
            async with asyncio.timeout(START_S):
                facts = await told
        except TimeoutError:
            await child.end(process, self.stop_s)
            raise Retryable(f"not ready after {START_S:.0f} s; see {self.log.path}") from None
        except BaseException:
            await child.end(process, self.stop_s)
            raise
        if facts.pop("state", "") == "ready":
            self.facts = facts
            return process
        with contextlib.suppress(TimeoutError):  # it has failed and is ending; its exit code tells more than ours
            async with asyncio.timeout(LEAVE_S):
                await process.wait()
        await child.end(process, self.stop_s)
        await self._talked()
        reason = facts.get("reason") or pump.last or f"ended with {process.returncode} before it was ready"
        if process.returncode == EXIT_CONFIG:
            raise ConfigError(reason)
        raise Retryable(f"{reason} (see {self.log.path})")

    async def ping(self) -> None:
        """A part's own heartbeats are on the bus; that its process lives is enough here."""

    async def _talked(self) -> None:
        """Read what an ended process printed last; a grandchild that still holds the pipe is not waited for."""
        if self._talk is not None:
            await asyncio.wait({self._talk}, timeout=LAST_WORDS_S)
            self._talk.cancel()
            self._talk = None

    def epitaph(self) -> str:
        """Where its last words are."""
        return f"; see {self.log.path}"

    async def close(self) -> None:
        await self._talked()
        self.log.close()


async def _talk(pump: Pump, output: asyncio.StreamReader, read: int, told: asyncio.Future[dict[str, str]]) -> None:
    """Both pipes of one process until it has closed them; `told` gets its first word on whether it is ready."""
    async with asyncio.TaskGroup() as group:
        group.create_task(pump.run(output))
        group.create_task(_listen(read, told))


async def _listen(read: int, told: asyncio.Future[dict[str, str]]) -> None:
    """What the part reports, one JSON object a line. A pipe that closes first has told nothing."""
    reader = asyncio.StreamReader()
    file = os.fdopen(read, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), file
    )
    try:
        while line := await reader.readline():
            if not told.done():
                told.set_result(_facts(line))
    finally:
        transport.close()
        if not told.done():
            told.set_result({})


def _facts(line: bytes) -> dict[str, str]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in told.items()} if isinstance(told, dict) else {}
