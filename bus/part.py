"""One process of Roost: connects, tells the supervisor that it is ready, and drains on SIGTERM.

A part is named in the entry-point group `roost.parts`; `roost run NAME` loads it and calls `run`. What always
holds: SIGTERM, SIGINT and the death of the supervisor end the part by the same path, within `limits.drain_s`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import uvloop

from bus.client import Bus
from bus.endpoints import resolve
from schemas.config import Config
from schemas.errors import ConfigError, RoostError

if TYPE_CHECKING:
    from bus.sessions import Sessions

log = logging.getLogger("roost.part")

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: restarting will not help
READY_FD = "ROOST_READY_FD"
RUNNING = "ROOST_RUNNING_CONFIG"
"""Names the file with the configuration that the supervisor has accepted; SIGHUP says that it is another."""


class Part:
    """What a part's body works with. `stopping` is set when it should drain and return."""

    def __init__(self, name: str, config: Config, data: Path, bus: Bus, sessions: Sessions) -> None:
        self.name = name
        self.config = config
        self.data = data
        self.bus = bus
        self.sessions = sessions
        self.stopping = asyncio.Event()
        self._changed = asyncio.Event()

    async def reloaded(self) -> Config:
        """Wait until the configuration is another than `config`, which is then the new one; the newest counts."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                config = msgspec.json.decode(await asyncio.to_thread(self._file().read_bytes), type=Config)
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("the changed configuration cannot be read, the old one stays: %s", error)
                continue
            if config != self.config:
                self.config = config
                return config

    def listen(self) -> None:
        """From now on look at the configuration when the supervisor says so, and once because it may have before."""
        if RUNNING in os.environ:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._changed.set)
            self._changed.set()

    def _file(self) -> Path:
        return Path(os.environ[RUNNING])

    def ready(self, **facts: str) -> None:
        """Tell the supervisor that this part serves; `facts` (such as `http=URL`) go into `roost status`."""
        report({"state": "ready", **facts})


def report(facts: dict[str, str]) -> None:
    """One JSON line to the supervisor, if there is one."""
    fd = os.environ.get(READY_FD)
    if fd:
        try:
            os.write(int(fd), json.dumps(facts).encode() + b"\n")
        except OSError as error:
            log.warning("the supervisor does not listen: %s", error)


Body = Callable[[Part], Awaitable[None]]


async def _serve(name: str, config: Config, data: Path, body: Body) -> None:
    from bus.sessions import Sessions  # 30 MB, and not every part has sessions

    endpoints = resolve(config, data)
    sessions = Sessions.connect(endpoints, config.sessions, data)
    bus = await Bus.connect(endpoints, config, name=f"roost-{name}")
    part = Part(name, config, data, bus, sessions)
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, part.stopping.set)
    part.listen()
    try:
        await sessions.check()
        await body(part)
    finally:
        await bus.close()
        await sessions.close()


def run(name: str, config: Config, data: Path, body: Body) -> int:
    """Run one part to its end; the exit code says whether a restart can help (`EXIT_CONFIG`: no)."""
    try:
        uvloop.run(_serve(name, config, data, body))
    except ConfigError as error:
        report({"state": "failed", "reason": error.message})
        print(f"roost {name}: {error.message}", file=sys.stderr)
        return EXIT_CONFIG
    except RoostError as error:
        report({"state": "failed", "reason": error.message})
        print(f"roost {name}: {error.message}", file=sys.stderr)
        return 1
    return 0
