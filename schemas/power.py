"""What the power part of each machine tells: its level, what it draws, and what it may not set."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Level = Literal["low", "normal", "full"]
"""How much of the machine Roost uses: `full` under load, `low` when idle or saving, `normal` in between."""
LEVELS: tuple[Level, ...] = ("low", "normal", "full")
"""From the lowest up."""


class PowerStatus(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One machine. In the table POWER under its host's name; rewritten every few seconds.

    What cannot be read is absent.
    """

    host: str
    profile: str
    level: Level
    under_load: Level
    """What a worker with work in hand raises itself to, without waiting for `level` to follow."""
    seen_at: float
    v: int = 1
    on_battery: bool | None = None
    """None on a machine without a battery."""
    sets: str = ""
    """What sets the processor: `sysfs`, `power-profiles-daemon`, or nothing."""
    reason: str = ""
    """Why something is not set or not measured."""
    source: str = ""
    """What is measured: `rapl` (processors and their memory), `battery` (the machine), `hwmon` (a meter or rail)."""
    watts: float | None = None
    joules: float | None = None
    """Measured since the part started."""
    tokens_per_joule: float | None = None
    """Over the last minute; absent while no tokens come."""


class PowerEvent(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A change, on `roost.event.power.<what>`."""

    host: str
    what: Literal["level", "battery", "mains", "refused", "restored"]
    at: float
    v: int = 1
    level: Level | None = None
    previous: Level | None = None
    reason: str = ""
