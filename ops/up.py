"""`roost up`: the supervisor. Embedded servers first, then one process per part; each may die and comes back.

The supervisor handles no message and holds no state that matters: kill it, start it again, and every accepted
message is still there. What always holds: one supervisor per data folder, and one ready line on standard output.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import msgspec
import psutil
from msgspec.structs import replace

from bus import child
from bus.credentials import prepare, write_private
from bus.embedded import NAMES, announce, servers_of
from bus.endpoints import run_file
from ops.config import RUNNING, load, reactions, running_file
from ops.part import PartService
from ops.reload import Watch
from ops.state import SystemState, UnitState, state_file, write_state
from ops.unit import Service, Unit
from schemas.config import Config
from schemas.errors import ConfigError

ACCESS_CODE = "web-access-code"
STOP_MARGIN_S = 5.0
"""A part gets its drain limit and this long to close, before it is killed."""

Commands = Mapping[str, Sequence[str]]


def lock(data: Path) -> TextIO:
    """Take the data folder for this process; raises `ConfigError` when another supervisor has it."""
    prepare(data)
    file = os.fdopen(os.open(data / "run" / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise ConfigError(
            f"Roost is running already with data folder {data}{f' (pid {owner})' if owner else ''}; "
            "stop it first, or choose another folder with --data"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def part_commands() -> dict[str, list[str]]:
    """The parts that are installed, and how each is run."""
    from importlib.metadata import entry_points

    names = sorted(entry.name for entry in entry_points(group="roost.parts"))
    return {name: [sys.executable, "-P", "-m", "ops.cli", "run", name] for name in names}


def needed(name: str, config: Config) -> bool:
    """Whether a part has anything to do; a process that has nothing to do costs 40 MB."""
    return name != "updater" or config.updates is not None


class Supervisor:
    """All units of one data folder. `run` returns an exit code when everything has stopped."""

    def __init__(self, path: Path, config: Config, data: Path, commands: Commands) -> None:
        self.path, self.config, self.data, self.commands = path, config, data, commands
        self.servers = servers_of(config, data)
        self.units: dict[str, Unit] = {}
        self.parts: dict[str, PartService] = {}
        self.stopping = asyncio.Event()
        self.state = SystemState(
            pid=os.getpid(), created=psutil.Process().create_time(), config=str(path), started_at=time.time()
        )
        self._told: dict[str, tuple[str, str]] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        watch = Watch(self.path, self.data, self.config, say)
        problem = ""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for server in self.servers:
                    self._begin(server)
                await self._until_settled(list(self._lives))
                problem = self._failed()
                if not problem and not self.stopping.is_set():
                    announce(self.servers, self.data)
                    self._accept(self.config)
                    greeting = group.create_task(self._greet())
                    watching = group.create_task(watch.run(self._accept))
                    await self.stopping.wait()
                    greeting.cancel()
                    watching.cancel()
                await self._stop()
        finally:
            for part in self.parts.values():
                await part.close()
            for file in (run_file(self.data), running_file(self.data), state_file(self.data)):
                file.unlink(missing_ok=True)
        if problem:
            raise ConfigError(problem)
        return 0

    def _begin(self, service: Service) -> None:
        assert self._group is not None
        unit = Unit(service, self.data, self._changed)
        self.units[service.name] = unit
        self._lives[service.name] = self._group.create_task(unit.run())

    def _part(self, name: str) -> PartService:
        env = {
            "ROOST_CONFIG": str(self.path),
            "ROOST_DATA": str(self.data),
            RUNNING: str(running_file(self.data)),
            "MALLOC_ARENA_MAX": "2",  # glibc else gives each thread an arena of its own, which costs memory
        }
        stop_s = self.config.limits.drain_s + STOP_MARGIN_S
        self.parts[name] = PartService(name, self.commands[name], self.data, env, stop_s=stop_s, say=say)
        return self.parts[name]

    async def _until_settled(self, names: list[str]) -> None:
        """Until each is ready or has failed for good, or until we are told to stop."""
        stopped = asyncio.create_task(self.stopping.wait())
        try:
            for name in names:
                settled = asyncio.create_task(self.units[name].settled.wait())
                await asyncio.wait({settled, stopped}, return_when=asyncio.FIRST_COMPLETED)
                settled.cancel()
        finally:
            stopped.cancel()

    def _failed(self) -> str:
        return "; ".join(unit.state.reason for unit in self.units.values() if unit.state.state == "failed")

    async def _stop(self) -> None:
        """Whoever takes messages in first, the servers last; a step waits for the one before."""
        lives = self._lives
        rest = [name for name in lives if name not in NAMES and name != "connectors"]
        for step in (["connectors"], rest, ["valkey"], ["nats"]):
            for name in step:
                if name in self.units:
                    self.units[name].stop()
            if waiting := [lives[name] for name in step if name in lives]:
                await asyncio.wait(waiting)

    def _signalled(self) -> None:
        if not self.stopping.is_set():
            say("stopping: unfinished answers are kept; press Ctrl-C again to end at once")
            self.stopping.set()
            return
        for unit in self.units.values():
            unit.kill()

    # -- news ---------------------------------------------------------------------------------------------------

    def _changed(self, state: UnitState) -> None:
        parts = tuple(unit.state for unit in self.units.values())
        wanted = {server.name for server in self.servers} | set(self._wanted())
        ready = all(part.state == "ready" for part in parts) and wanted == {part.name for part in parts}
        self.state = replace(self.state, parts=parts, ready=ready)
        try:
            write_state(self.data, self.state)
        except OSError as error:
            say(f"{state_file(self.data)}: {error.strerror}")
        news = (state.state, state.reason)
        if self._told.get(state.name) == news:
            return
        before = self._told.get(state.name)
        self._told[state.name] = news
        if state.state == "failed":
            say(f"{state.name} has failed: {state.reason}")
            if state.name in self.commands:
                say(f"{state.name} is tried again when {self.path} changes")
        elif state.reason:
            say(f"{state.name}: {state.reason}{'' if self.stopping.is_set() else '; starting it again'}")
        elif state.state == "ready" and before is not None and state.restarts:
            say(f"{state.name} is ready again")

    async def _greet(self) -> None:
        """The one ready line, once every part is ready for the first time."""
        while not self.state.ready:
            waiting = [unit for unit in self.units.values() if not unit.settled.is_set()]
            if waiting:
                await waiting[0].settled.wait()
            else:
                await asyncio.sleep(0.1)  # one has failed or is on its way back
        print(ready_line(self.state, self.data, tty=sys.stdout.isatty()), flush=True)

    def _wanted(self) -> list[str]:
        return [name for name in self.commands if needed(name, self.config)]

    def _accept(self, config: Config, sections: frozenset[str] = frozenset()) -> None:
        """Make `config` the one that parts run with; those that it concerns take it up, or are started anew."""
        # the servers run as they were started; what was changed about them waits for the next start
        self.config = replace(config, bus=self.config.bus, sessions=self.config.sessions)
        try:
            write_private(running_file(self.data), msgspec.json.encode(self.config))
        except OSError as error:
            say(f"{running_file(self.data)}: {error.strerror}; the parts go on with the old configuration")
            return
        wanted = self._wanted()
        for name in [name for name in self.parts if name not in wanted]:
            self._end(name)
        asked = reactions(sections, list(self.parts))
        for name in wanted:
            if name not in self.parts:
                self._begin(self._part(name))
                continue
            self.parts[name].stop_s = self.config.limits.drain_s + STOP_MARGIN_S
            if self.units[name].state.state == "failed" or asked.get(name) == "restart":
                say(f"{name} is restarted with the new configuration")
                self.units[name].restart()
            elif asked.get(name) == "reload":
                say(f"{name} takes the new configuration up")
                self.units[name].reload()

    def _end(self, name: str) -> None:
        """A part that has nothing to do any more goes; what is on the bus for it waits for its return."""
        say(f"{name} is not needed any more")
        unit, life, part = self.units[name], self._lives.pop(name), self.parts.pop(name)
        unit.stop()

        async def buried() -> None:
            await asyncio.wait({life})
            if self.units.get(name) is unit:
                del self.units[name]
                self._changed(unit.state)
            await part.close()

        assert self._group is not None
        self._group.create_task(buried())


def ready_line(state: SystemState, data: Path, *, tty: bool) -> str:
    """`Roost is ready: http://…`, with the access code for a person and its file for everybody else."""
    line = "Roost is ready"
    if http := state.fact("http"):
        line += f": {http}"
    file = data / "secrets" / ACCESS_CODE
    if not file.exists():
        return line
    return f"{line} (access code: {file.read_text().strip()})" if tty else f"{line} (access code in {file})"


def say(text: str) -> None:
    """One line to the operator, on standard error: standard output is for the ready line."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(path: Path, data: Path, *, commands: Commands | None = None) -> int:
    """Run until told to stop; raises `RoostError` for what prevents the start. `commands`: other parts, for tests."""
    path, data = path.resolve(), data.resolve()
    config = load(path)
    held = lock(data)
    try:
        for name in (run_file(data), state_file(data)):
            name.unlink(missing_ok=True)
        if ended := child.end_leftovers(data, NAMES):
            say(f"ended what an earlier start left running: {', '.join(ended)}")
        supervisor = Supervisor(path, config, data, part_commands() if commands is None else commands)
        return asyncio.run(supervisor.run())
    finally:
        held.close()
