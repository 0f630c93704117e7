"""One supervised child: started, watched, restarted with a capped back-off, stopped.

A unit knows nothing of what it runs; a `Service` does (a server of `bus.embedded`, or a part of `ops.part`). What
always holds: a unit has at most one process, and after `stop` it has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from bus import child
from ops.state import UnitState
from schemas.errors import ConfigError, RoostError
from schemas.event import PartState

Process = asyncio.subprocess.Process

FIRST_WAIT_S = 0.2
WAIT_S_MAX = 15.0
QUICK_RESTARTS = 3
"""Restarts at once: a killed process is nobody's fault. After these the waits double."""
SETTLED_S = 10.0
"""Whoever was ready for this long starts with a clean slate."""
PING_EVERY_S = 5.0
PINGS_MISSED_MAX = 3


class Service(Protocol):
    """What a unit runs."""

    name: str
    stop_s: float
    """Between SIGTERM and SIGKILL."""
    facts: dict[str, str]

    async def start(self, spawned: Callable[[int], None]) -> Process:
        """Start and wait until it serves; leaves no process behind when it raises or is cancelled.

        `ConfigError`: only the operator can help. Any other `RoostError`: try again.
        """
        ...

    async def ping(self) -> None:
        """Raise `RoostError` when it no longer answers."""
        ...

    def epitaph(self) -> str:
        """Where its last words are, for the reason of a restart."""
        ...


def wait_s(failures: int) -> float:
    """How long to wait before the next start after so many failures in a row."""
    return min(WAIT_S_MAX, FIRST_WAIT_S * 2.0 ** max(0, failures - QUICK_RESTARTS))


class Unit:
    """The life of one service. `run` returns only after `stop`."""

    def __init__(self, service: Service, data: Path, changed: Callable[[UnitState], None]) -> None:
        self.service = service
        self.data = data
        self.state = UnitState(name=service.name, since=time.time())
        self.settled = asyncio.Event()
        """Set once it is ready or has failed for good."""
        self._changed = changed
        self._stopping = asyncio.Event()
        self._again = asyncio.Event()
        self._failures = 0

    def _set(self, state: PartState, reason: str = "", *, pid: int | None = None, **more: int) -> None:
        facts = dict(self.service.facts) if state == "ready" else self.state.facts
        self.state = replace(
            self.state,
            state=state,
            reason=reason,
            pid=self.state.pid if pid is None else pid,
            since=time.time() if state != self.state.state else self.state.since,
            facts=facts,
            restarts=more.get("restarts", self.state.restarts),
        )
        if state in ("ready", "failed"):
            self.settled.set()
        self._changed(self.state)

    async def run(self) -> None:
        while not self._stopping.is_set():
            self._again.clear()
            reason, fatal = await self._once()
            child.forget(self.data, self.service.name)
            if self._stopping.is_set() or self._again.is_set():
                continue
            if fatal:
                self._set("failed", reason, pid=0)
                await self._pause(None)
            else:
                self._failures += 1
                self._set("starting", reason, pid=0, restarts=self.state.restarts + 1)
                await self._pause(wait_s(self._failures))
        self._set("stopped", pid=0)

    async def _once(self) -> tuple[str, bool]:
        """One life of the process: why it ended, and whether only the operator can help."""
        starting = asyncio.create_task(self.service.start(lambda pid: self._set("starting", pid=pid)))
        stopped = asyncio.create_task(self._either())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return "", False
            process = starting.result()
        except ConfigError as error:
            return error.message, True
        except RoostError as error:
            return error.message, False
        except OSError as error:  # a full disk, too many processes: may pass
            return str(error), False
        finally:
            stopped.cancel()
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, RoostError, OSError):
                await starting
        since = time.monotonic()
        self._set("ready")
        reason = await self._watch(process)
        if time.monotonic() - since >= SETTLED_S:
            self._failures = 0
        return reason, False

    async def _watch(self, process: Process) -> str:
        """Until the process ends, by itself, because it no longer answers, or because it is told to."""
        ended = asyncio.create_task(process.wait())
        told = asyncio.create_task(self._either())
        missed = 0
        try:
            while True:
                await asyncio.wait({ended, told}, timeout=PING_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return f"ended {how(process.returncode)}{self.service.epitaph()}"
                if told.done():
                    self._set("draining")
                    if not await child.end(process, self.service.stop_s):
                        self._set("draining", f"did not end within {self.service.stop_s:.0f} s and was killed")
                    return ""
                try:
                    await self.service.ping()
                    missed = 0
                except RoostError as error:
                    missed += 1
                    if missed >= PINGS_MISSED_MAX:
                        return error.message
        finally:
            told.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()
            ended.cancel()

    async def _either(self) -> None:
        """Returns when the unit is to stop or to start anew."""
        waits = [asyncio.create_task(event.wait()) for event in (self._stopping, self._again)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def _pause(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._either()

    def restart(self) -> None:
        """Drain and start anew, also when it has failed for good; `settled` tells when it serves again."""
        self.settled.clear()
        self._failures = 0
        self._again.set()

    def reload(self) -> None:
        """Have it look at its configuration again while it serves; one that is just starting will find the new one."""
        if self.state.pid and self.state.state in ("starting", "ready", "degraded"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.state.pid, signal.SIGHUP)

    def stop(self) -> None:
        """Drain and end; `run` then returns."""
        self._stopping.set()

    def kill(self) -> None:
        """End at once."""
        self._stopping.set()
        if self.state.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.state.pid, signal.SIGKILL)


def how(returncode: int | None) -> str:
    """`with exit code 1`, `by signal 9`."""
    return f"by signal {-returncode}" if returncode is not None and returncode < 0 else f"with exit code {returncode}"
