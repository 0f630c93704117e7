"""What the updater remembers of one slot between two lives: the file `updates.json` beside its links. Pure.

The links say what serves; this says why, what must not, and what was under way. What always holds: losing it costs
the operator nothing but history. `rebuilt` makes another from links and folders, and rather blocks a good version
than lets a bad one serve twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from schemas.release import Release
from schemas.update import Change

HISTORY_MAX = 200
"""Lines; the oldest go first."""
BLOCKED_MAX = 1_000
"""Versions; the first blocked go first, for they are the oldest."""

Step = Literal["fetching", "staged", "loading", "shadow", "canary", "switching", "watching", "rolling_back"]


class Swap(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A version on its way into use (`rolling_back`: once more): what a new life of the updater goes on with."""

    version: str
    step: Step = "fetching"
    at: float = 0.0
    """Unix seconds: when `step` began."""
    previous: str = ""
    """The version that served when the swap began, and that a roll-back brings back."""
    back: bool = False
    """It is that roll-back: `version` has served before, and `previous` is blocked."""
    until: float = 0.0
    """Unix seconds: when a step ends that lasts for a time."""
    crashes: int = 0
    """Workers that died while they tried it."""
    by: str = "updater"
    reason: str = ""
    fetched: int = 0
    """Bytes."""
    seconds: dict[str, float] = {}
    """Stages that are over, and how long each took."""


class SlotState(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """All of `updates.json`."""

    v: int = 1
    history: tuple[Change, ...] = ()
    """The oldest first."""
    blocked: dict[str, str] = {}
    """Versions that must not serve here, with the reasons."""
    pinned: str = ""
    swap: Swap | None = None

    def told(self, change: Change) -> SlotState:
        """With one more line of history."""
        return replace(self, history=(*self.history, change)[-HISTORY_MAX:])

    def block(self, version: str, reason: str) -> SlotState:
        blocked = {**self.blocked, version: reason}
        return replace(self, blocked=dict(list(blocked.items())[-BLOCKED_MAX:]))

    def unblock(self, version: str) -> SlotState:
        return replace(self, blocked={known: why for known, why in self.blocked.items() if known != version})


class Installed(Struct, frozen=True, kw_only=True):
    """A whole release on the disk, and when it was put there (Unix seconds)."""

    release: Release
    at: float


def rebuilt(releases: Mapping[str, Installed], current: str, since: float, standby: str) -> SlotState:
    """A state for a slot whose own was lost; `since` is when `current` was pointed where it points.

    A release that is newer than the current one was staged or rolled back, and nobody knows which: it is blocked.
    """
    found = sorted(releases.items(), key=lambda pair: (pair[1].at, pair[1].release.sequence))
    lines = [Change(at=one.at, what="fetched", version=version) for version, one in found]
    if current:
        previous = standby if standby != current else ""
        lines.append(Change(at=since, what="swapped", version=current, previous=previous, reason="read from the links"))
    state = SlotState(history=tuple(lines[-HISTORY_MAX:]))
    serving = releases.get(current)
    for version, one in found:
        if serving is not None and version != current and one.release.sequence > serving.release.sequence:
            state = state.block(version, "the record of updates was lost, and this may have been rolled back")
    return state
