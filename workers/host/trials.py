"""Trials of a worker: loads a model in a disposable process (`trial`) before it may come into this one.

What always holds: one at a time; a trial ends within its time and leaves no process behind; what it dies of is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import msgspec

from schemas.errors import Retryable, Untrusted
from workers.host.budget import Memory
from workers.host.room import NoRoom
from workers.host.slot import Files
from workers.host.trial import Asked, Told

log = logging.getLogger("roost.trial")

KEPT_S = 300.0
"""A process that was made ready and is not used goes after this."""
LINES_MAX = 100
SHOWN_BYTES = 2_000
PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
"""Of the environment; what else is there (keys, passwords) is no business of a file that nobody has tried yet."""
SPOKEN = {
    "SIGXCPU": "computed for too long",
    "SIGKILL": "was killed; most likely the machine ran out of memory",
    "SIGXFSZ": "tried to write a file",
}


class BadModel(Untrusted):
    """It is the model's fault: this version must not serve."""

    code = "bad_model"


class Trials:
    """See the module."""

    def __init__(self, *, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._turn = asyncio.Lock()
        self._ready: tuple[str, Process] | None = None
        self._until: asyncio.TimerHandle | None = None

    async def prepare(self, kind: str) -> None:
        """Have a process ready for a model of this type, for some minutes."""
        async with self._turn:
            process = self._taken(kind) or await _started(kind)
            self._ready = kind, process
            self._until = asyncio.get_running_loop().call_later(self._kept_s, self._let_go)

    async def run(self, files: Files, place: str, memory: Memory, *, limit: int, wait_s: float) -> float:
        """Try these files; returns the seconds that it took.

        Raises `BadModel`, `NoRoom`, or `Retryable` where the installation lacks something.
        """
        asked = Asked(
            model=files.model,
            place=place,
            limit=limit,
            free=memory.free,
            whole=memory.whole,
            cpu_s=wait_s * (os.cpu_count() or 1),
        )
        async with self._turn:
            begun = time.monotonic()
            process = self._taken(files.model.type) or await _started(files.model.type)
            try:
                told = await _talk(process, asked, wait_s)
            finally:
                await _end(process)
            if told.ok:
                return time.monotonic() - begun
        if told.code == "no_memory":
            raise NoRoom(told.text, never=told.never)
        if told.code == "bad_model":
            raise BadModel(f"in its trial: {told.text}")
        raise Retryable(told.text)

    def close(self) -> None:
        self._let_go()

    def _taken(self, kind: str) -> Process | None:
        """The process that is ready, if it is one for this type and lives."""
        ready = self._ready
        if ready is None or ready[0] != kind or ready[1].returncode is not None:
            self._let_go()
            return None
        self._forget()
        return ready[1]

    def _forget(self) -> None:
        if self._until is not None:
            self._until.cancel()
        self._ready = self._until = None

    def _let_go(self) -> None:
        if self._ready is not None:
            _kill(self._ready[1])
        self._forget()


async def _started(kind: str) -> Process:
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    command = (sys.executable, "-m", "workers.host.trial", kind, str(os.getpid()))
    try:
        return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment)
    except OSError as error:
        raise Retryable(f"no process for a trial can be started: {error}", code="unavailable") from None


async def _talk(process: Process, asked: Asked, wait_s: float) -> Told:
    """Give it its task and follow it to the end; whatever goes wrong in it is an answer, too."""
    assert process.stdin is not None
    last = Told(at="starting")
    said = bytearray()
    reading = asyncio.ensure_future(_read(process, said))
    try:
        async with asyncio.timeout(wait_s):
            with contextlib.suppress(ConnectionError):
                process.stdin.write(msgspec.json.encode(asked) + b"\n")
                await process.stdin.drain()
            async for told in _lines(process):
                if told.ok is not None:
                    return told
                last = told
            await process.wait()
    except TimeoutError:
        return Told(ok=False, code="bad_model", text=f"it did not get on within {wait_s:g} s, while {last.at}")
    finally:
        _kill(process)
        await asyncio.wait({reading}, timeout=1.0)
        reading.cancel()
        if said:
            log.info("the trial of %s said: %s", asked.place, said[-SHOWN_BYTES:].decode(errors="replace"))
    return Told(ok=False, code="bad_model", text=f"it {_died(process.returncode or 0)} while {last.at}")


async def _lines(process: Process) -> AsyncIterator[Told]:
    """What it tells, as long as it can be read."""
    assert process.stdout is not None
    for _ in range(LINES_MAX):
        try:
            line = await process.stdout.readline()
            if not line:
                return
            yield msgspec.json.decode(line, type=Told)
        except (ValueError, msgspec.MsgspecError):
            return


async def _read(process: Process, said: bytearray) -> None:
    """Keep the end of what it prints; more than some is thrown away."""
    assert process.stderr is not None
    while chunk := await process.stderr.read(65_536):
        said += chunk
        del said[: max(0, len(said) - SHOWN_BYTES)]


def _died(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{SPOKEN.get(name, 'crashed')} ({name})"


def _kill(process: Process) -> None:
    if process.returncode is None:
        for kill in (os.killpg, os.kill):  # it may have no group of its own yet
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(process.pid, signal.SIGKILL)


async def _end(process: Process) -> None:
    _kill(process)
    await process.wait()
