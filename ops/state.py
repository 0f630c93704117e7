"""The state of all parts, as the supervisor writes it to data/run/state.json and other commands read it."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from bus.child import alive
from bus.credentials import write_private
from schemas.event import PartState


class UnitState(Struct, frozen=True, kw_only=True):
    """One child of the supervisor."""

    name: str
    pid: int = 0
    state: PartState = "starting"
    since: float = 0.0
    """Unix time of the last change of `state`."""
    restarts: int = 0
    reason: str = ""
    facts: dict[str, str] = {}
    """What the part told when it was ready, such as `http`."""


class SystemState(Struct, frozen=True, kw_only=True):
    """The supervisor and its children."""

    pid: int
    created: float
    """The supervisor's time of creation, so that a stale file is recognised."""
    config: str
    started_at: float
    ready: bool = False
    parts: tuple[UnitState, ...] = ()

    def fact(self, name: str) -> str:
        """The first part's fact of this name, or nothing."""
        return next((part.facts[name] for part in self.parts if name in part.facts), "")


def state_file(data: Path) -> Path:
    return data / "run" / "state.json"


def write_state(data: Path, state: SystemState) -> None:
    write_private(state_file(data), msgspec.json.encode(state))


def read_state(data: Path) -> SystemState | None:
    """The state that a living supervisor wrote; None when there is none."""
    try:
        state = msgspec.json.decode(state_file(data).read_bytes(), type=SystemState)
    except (OSError, msgspec.MsgspecError):
        return None
    return state if alive(state.pid, state.created) else None
