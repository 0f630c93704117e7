"""The ops part: `roost run ops`. Looks after the machine: its power, and new versions of its models.

It handles no message. What always holds: it begins without a bus and goes on while the bus is away; at its end the
machine is as it was found.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bus import streams, subjects
from bus.client import Bus
from bus.contract import Message
from bus.endpoints import resolve
from bus.part import EXIT_CONFIG, report
from bus.site import site
from bus.stop import stop
from ops.config import RUNNING, running
from ops.load import look, unfinished
from ops.rounds import EVERY_S, Rounds
from ops.watching import Watching
from schemas.config import Config
from schemas.errors import ConfigError, Disconnected, Retryable, RoostError
from schemas.update import RolloutConfig

log = logging.getLogger("roost.ops")

TELL_S = streams.LIVE_S / 6
"""How often the row is rewritten, and the tables are read, while nothing happens."""
CONNECT_AGAIN_S = 5.0
GOODBYE_S = 3.0


async def connected(rounds: Rounds, config: Config, data: Path) -> None:
    """Keep a connection to the bus and tell each other news over it. Until cancelled."""
    said = False
    while True:
        try:
            bus = await Bus.connect(resolve(config, data), config, name="roost-ops", wait=False)
        except RoostError as error:
            if not said:
                log.warning("no bus yet; the machine is looked after without: %s", error.message)
            said = True
            await asyncio.sleep(CONNECT_AGAIN_S)
            continue
        watching = Watching(bus, site(data), lambda model: _rollout(config, model))
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(watching.run())
                try:
                    await _talk(bus, rounds, config)
                finally:
                    await stop(watch)
        finally:
            await _goodbye(bus, rounds)


async def _talk(bus: Bus, rounds: Rounds, config: Config) -> None:
    """The client reconnects by itself, so that this ends only by being cancelled."""

    async def woken(message: Message) -> None:
        rounds.work(True)

    await bus.subscribe(subjects.wake(rounds.host), woken)
    applied = asyncio.Event()

    def again() -> None:
        """A server that was started anew has lost the live tables, which are in its memory."""
        applied.clear()
        rounds.changed.set()

    bus.on_reconnect.append(again)
    loop = asyncio.get_running_loop()
    full_at = told_at = 0.0
    away = False
    while True:
        try:
            if not applied.is_set():
                applied.set()
                await streams.apply(bus, config)
            busy = await unfinished(bus) > 0
            if busy or loop.time() - full_at >= TELL_S:
                load = await look(bus, rounds.host)
                busy, full_at = load.working, loop.time()
                rounds.generated(load.tokens)
            rounds.work(busy)
            if rounds.changed.is_set() or loop.time() - told_at >= TELL_S:
                rounds.changed.clear()
                await bus.table("POWER").put(rounds.host, msgspec.json.encode(rounds.row()))
                told_at = loop.time()
                while rounds.news:
                    event = rounds.news.popleft()
                    await bus.event("power", event.what, body=event)
            away = False
        except (RoostError, msgspec.MsgspecError) as error:
            if not away:
                log.info("the bus is away: %s", error)
            away = True
            applied.clear()
            rounds.work(False)  # nothing new can come; a worker that finishes its work keeps itself up
            await asyncio.sleep(EVERY_S)
            continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVERY_S):
                await rounds.changed.wait()


def _rollout(config: Config, model: str) -> RolloutConfig:
    """How new versions of `model` are watched, as the supervisor has it configured now."""
    with contextlib.suppress(ConfigError):
        file = os.environ.get(RUNNING)
        config = running(Path(file)) if file else config
    return next((entry.rollout for entry in config.models if entry.name == model), RolloutConfig())


async def _goodbye(bus: Bus, rounds: Rounds) -> None:
    """Take the row away, so that no worker goes by what nobody keeps."""
    with contextlib.suppress(TimeoutError, Retryable, Disconnected):
        async with asyncio.timeout(GOODBYE_S):
            if bus.connected:
                await bus.table("POWER").delete(rounds.host)
            await bus.close()


async def serve(config: Config, data: Path) -> None:
    """Until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    rounds = Rounds(config.power, data, subjects.host(socket.gethostname()))
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(rounds.run(stopping))
        begun = asyncio.create_task(rounds.begun.wait())
        await asyncio.wait({working, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        link = tasks.create_task(connected(rounds, config, data))
        report({"state": "ready"})
        await stopping.wait()
        await stop(link)


@contextlib.contextmanager
def alone(data: Path) -> Iterator[None]:
    """One such part for each data folder: two would undo each other's work. The lock dies with the process."""
    (data / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(data / "run" / "ops.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError(f"the part ops runs already with data folder {data}") from None
    finally:
        os.close(file)


def main(config: Config, data: Path) -> int:
    try:
        resolve(config, data)
        with alone(data):
            asyncio.run(serve(config, data))
    except ConfigError as error:
        report({"state": "failed", "reason": error.message})
        print(f"roost ops: {error.message}", file=sys.stderr)
        return EXIT_CONFIG
    return 0
