"""How much power the machine should use. Pure: it is told the time and what is seen; it reads and sets nothing.

What always holds: work raises the level at once; it falls one step at a time, only after a rest, and a plug that
wavers changes nothing, so that a level does not flap.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from schemas.config import PowerConfig
from schemas.power import LEVELS, Level

HOLD_S = 5.0
"""A person who reads an answer and asks on finds the machine as it was."""
PLUG_S = 5.0
"""Mains or battery counts when it has stayed for this long."""

ACTIVE_DRIVERS = frozenset({"intel_pstate", "amd-pstate-epp"})
"""Their `powersave` governor follows the load by itself; with other drivers that name means the lowest clock."""
GOVERNORS: dict[Level, tuple[str, ...]] = {
    "full": ("performance", "schedutil", "ondemand"),
    "normal": ("schedutil", "ondemand", "conservative"),
    "low": ("conservative", "schedutil", "ondemand"),
}
ACTIVE_GOVERNORS: dict[Level, tuple[str, ...]] = {
    "full": ("performance",),
    "normal": ("powersave",),
    "low": ("powersave",),
}
PREFERENCES: dict[Level, tuple[str, ...]] = {
    "full": ("performance", "balance_performance"),
    "normal": ("balance_performance", "default"),
    "low": ("power", "balance_power"),
}
PROFILES: dict[Level, tuple[str, ...]] = {
    "full": ("performance", "balanced"),
    "normal": ("balanced",),
    "low": ("power-saver",),
}
"""What power-profiles-daemon is asked for."""


class Seen(Struct, frozen=True, kw_only=True):
    """The machine now. `at` is a monotonic clock in seconds; `on_battery` is None without a battery."""

    at: float
    working: bool
    on_battery: bool | None = None


class Stand(Struct, frozen=True, kw_only=True):
    """What was decided, and what the next decision needs to remember."""

    level: Level
    worked_at: float
    on_battery: bool | None = None
    other_since: float | None = None
    """Since when mains or battery has differed from `on_battery`."""


def under_load(config: PowerConfig, on_battery: bool | None) -> Level:
    """The level while there is work."""
    if config.profile == "saver":
        return "low"
    return "normal" if config.profile == "balanced" and on_battery else "full"


def begin(config: PowerConfig, seen: Seen) -> Stand:
    """The first decision: as after some work."""
    level: Level = under_load(config, seen.on_battery) if config.profile != "balanced" else "normal"
    return step(config, Stand(level=level, worked_at=seen.at, on_battery=seen.on_battery), seen)


def step(config: PowerConfig, stand: Stand, seen: Seen) -> Stand:
    """The next decision."""
    stand = _plug(stand, seen)
    if seen.working:
        stand = replace(stand, worked_at=seen.at)
    top = under_load(config, stand.on_battery)
    if seen.working or config.profile != "balanced":
        return replace(stand, level=top)
    rest_s = seen.at - stand.worked_at
    if rest_s < min(HOLD_S, config.idle_after_s):
        return replace(stand, level=lower(stand.level, top))
    if rest_s < config.idle_after_s and not stand.on_battery:
        return replace(stand, level=lower(stand.level, "normal"))
    return replace(stand, level="low")


def _plug(stand: Stand, seen: Seen) -> Stand:
    if seen.on_battery == stand.on_battery:
        return replace(stand, other_since=None)
    if stand.other_since is None:
        return replace(stand, other_since=seen.at)
    if seen.at - stand.other_since < PLUG_S:
        return stand
    return replace(stand, on_battery=seen.on_battery, other_since=None)


def lower(one: Level, other: Level) -> Level:
    """The lower of two levels."""
    return min(one, other, key=LEVELS.index)


def governor(level: Level, driver: str, offered: Sequence[str]) -> str | None:
    """The cpufreq governor for `level` among those the driver offers; None: the one that was there before."""
    wanted = ACTIVE_GOVERNORS if driver in ACTIVE_DRIVERS else GOVERNORS
    return next((name for name in wanted[level] if name in offered), None)


def preference(level: Level, offered: Sequence[str]) -> str | None:
    """The energy-performance preference for `level`, as `governor`."""
    return next((name for name in PREFERENCES[level] if name in offered), None)


def profile(level: Level, offered: Sequence[str]) -> str | None:
    """The profile of power-profiles-daemon for `level`, as `governor`."""
    return next((name for name in PROFILES[level] if name in offered), None)
