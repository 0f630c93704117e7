"""The state of the whole system: what the supervisor wrote, and what the bus knows, in one picture.

The shape of `Status` is public: scripts read it as `roost status --json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from bus import subjects
from bus.client import Bus
from bus.contract import StreamInfo
from bus.endpoints import resolve
from bus.streams import TURNS
from ops.since import first_since
from ops.state import SystemState, UnitState, read_state
from schemas.config import Config
from schemas.errors import RoostError
from schemas.model import ModelStatus
from schemas.power import PowerStatus
from schemas.update import UpdateStatus

BUS_TIMEOUT_S = 1.5
CLOSE_TIMEOUT_S = 0.3
"""The answer comes within two seconds, also when the bus is down."""
RATE_OVER_S = 60.0
BEST_FIRST = ("ready", "loading", "asleep", "unloading", "failed", "absent")


class PartRow(Struct, frozen=True, kw_only=True):
    """One process."""

    name: str
    pid: int
    state: str
    rss_bytes: int
    since: float = 0.0
    restarts: int = 0
    reason: str = ""
    facts: dict[str, str] = {}


class ModelRow(Struct, frozen=True, kw_only=True):
    """One model, over all workers that serve it."""

    name: str
    type: str
    version: str
    state: str
    reason: str = ""
    workers: int = 0
    slots: int = 0
    busy: int = 0
    context: int = 0
    memory_bytes: int = 0
    """By plan, in all workers that have it loaded."""
    load_s: float = 0.0
    tokens: int = 0
    tokens_per_s: float = 0.0


class StreamRow(Struct, frozen=True):
    """One stream; `pending` waits or is being worked on."""

    messages: int
    pending: int
    bytes: int = 0


class Status(Struct, frozen=True, kw_only=True):
    """What `roost status --json` prints."""

    ready: bool
    http: str
    nats: str
    client_nkey: str
    access_code_file: str
    data: str
    config: str
    logs: str
    started_at: float = 0.0
    supervisor: PartRow | None = None
    parts: tuple[PartRow, ...] = ()
    models: tuple[ModelRow, ...] = ()
    streams: dict[str, StreamRow] = {}
    rates: dict[str, float] = {}
    power: tuple[PowerStatus, ...] = ()
    """Level, watts and joules of each machine, as far as they are known."""
    updates: tuple[UpdateStatus, ...] = ()
    """New versions on their way, of each model with slots on each machine."""
    problem: str = ""
    """Why something above is missing."""


def rss(pid: int) -> int:
    """Resident memory of a process in bytes; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    except psutil.Error:
        return 0


def part_row(unit: UnitState) -> PartRow:
    """One line of the supervisor's state; a process that has just died is not ready, whatever was written."""
    memory = rss(unit.pid)
    gone = unit.state == "ready" and memory == 0
    return PartRow(
        name=unit.name,
        pid=unit.pid,
        state="starting" if gone else unit.state,
        rss_bytes=memory,
        since=unit.since,
        restarts=unit.restarts,
        reason=unit.reason,
        facts=unit.facts,
    )


def model_rows(config: Config, rows: list[ModelStatus]) -> list[ModelRow]:
    """Configured models first, then what other workers serve; the best state of all workers counts."""
    found: dict[str, list[ModelStatus]] = {model.name: [] for model in config.models}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    types = {model.name: model.type for model in config.models}
    out = []
    for name, of_model in found.items():
        best = min(of_model, key=lambda row: BEST_FIRST.index(row.state), default=None)
        out.append(
            ModelRow(
                name=name,
                type=best.type if best else types[name],
                version=best.version if best else "",
                state=best.state if best else "absent",
                reason=best.reason if best else "no worker serves it",
                workers=sum(row.state == "ready" for row in of_model),
                slots=sum(row.slots for row in of_model),
                busy=sum(row.busy for row in of_model),
                context=best.context if best else 0,
                memory_bytes=sum(row.memory_bytes for row in of_model),
                load_s=best.load_s if best else 0.0,
                tokens=sum(row.tokens for row in of_model),
                tokens_per_s=max((row.tokens_per_s for row in of_model), default=0.0),
            )
        )
    return out


class _Seen:
    """What the bus has told so far; what comes too late is missing, and the rest still counts."""

    def __init__(self) -> None:
        self.models: list[ModelStatus] = []
        self.streams: dict[str, StreamInfo] = {}
        self.rates: dict[str, float] = {}
        self.power: list[PowerStatus] = []
        self.updates: list[UpdateStatus] = []


async def _ask_bus(config: Config, data: Path, seen: _Seen) -> None:
    bus = await Bus.connect(resolve(config, data), config, name="roost-status", wait=False)
    try:
        rows, seen.streams = await asyncio.gather(bus.table("MODELS").entries(), bus.stream_infos())
        seen.models = [msgspec.json.decode(raw, type=ModelStatus) for raw in rows.values()]
        machines = await bus.table("POWER").entries()
        seen.power = [msgspec.json.decode(raw, type=PowerStatus) for raw in machines.values()]
        slots = await bus.table("UPDATES").entries()
        seen.updates = [msgspec.json.decode(raw, type=UpdateStatus) for raw in slots.values()]
        if TURNS in seen.streams:
            last = seen.streams[TURNS].last_seq
            first = await first_since(bus, TURNS, subjects.TURNS_ALL, time.time() - RATE_OVER_S, last)
            seen.rates["turns_per_minute"] = float(last + 1 - first)
    finally:
        with contextlib.suppress(TimeoutError):  # a bus that hangs would hold us for the time of its own limits
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await bus.close()


async def status(config_path: Path, config: Config, data: Path) -> Status:
    """Look at everything; what does not answer in time is left out, with the reason in `problem`."""
    state = read_state(data)
    seen = _Seen()
    problem = "" if state else f"Roost is not running with data folder {data}; start it with `make up` or `roost up`"
    nats = ""
    try:
        nats = ",".join(resolve(config, data).nats)
        if state or config.bus.servers:
            async with asyncio.timeout(BUS_TIMEOUT_S):
                await _ask_bus(config, data, seen)
    except TimeoutError:
        problem = f"the bus does not answer within {BUS_TIMEOUT_S} s"
    except RoostError as error:
        problem = problem or error.message
    parts = tuple(part_row(unit) for unit in state.parts) if state else ()
    secrets = data / "secrets"
    return Status(
        ready=state is not None and state.ready and all(part.state == "ready" for part in parts),
        http=state.fact("http") if state else "",
        nats=nats,
        client_nkey=str(secrets / "client.nk"),
        access_code_file=str(secrets / "web-access-code"),
        data=str(data),
        config=str(config_path),
        logs=str(data / "logs"),
        started_at=state.started_at if state else 0.0,
        supervisor=_supervisor(state) if state else None,
        parts=parts,
        models=tuple(model_rows(config, seen.models)),
        streams={name: StreamRow(info.messages, info.pending, info.bytes) for name, info in seen.streams.items()},
        rates=seen.rates,
        power=tuple(seen.power),
        updates=tuple(sorted(seen.updates, key=lambda row: (row.name, row.site))),
        problem=problem,
    )


def _supervisor(state: SystemState) -> PartRow:
    return PartRow(name="supervisor", pid=state.pid, state="ready", rss_bytes=rss(state.pid), since=state.started_at)
