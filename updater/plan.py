"""What to do next for one slot. Pure: values in, values out; no clock, no disk, no bus.

What always holds: there is at most one swap; nothing goes to a version that is blocked; every state can be taken
up again after a kill by asking `move` once more. `after` has what is true when a move was made, `asked` what orders
change.
"""

from __future__ import annotations

from msgspec import Struct

from schemas.update import RolloutConfig
from updater.state import SlotState, Step, Swap

BEFORE_FLIP: tuple[Step, ...] = ("fetching", "staged", "loading", "shadow", "canary")
FLIPPED = ("swapped", "rolled_back")
STAGED: tuple[Step, ...] = ("loading", "shadow", "canary")
"""Workers may have loaded something beside what serves."""


class Seen(Struct, frozen=True, kw_only=True):
    """What a decision needs besides the state."""

    now: float
    """Unix seconds, only to be written down."""
    current: str
    """What the link names; empty where it names none of the releases."""
    installed: frozenset[str] = frozenset()
    """Versions that are whole and on the disk."""
    made: frozenset[str] = frozenset()
    """Those of them that were fetched; the others are the operator's own."""
    versions: tuple[str, ...] = ()
    """What the source has, the oldest first; empty while that is not known."""
    rollout: RolloutConfig = RolloutConfig()
    left_s: float = 0.0
    """Of a step that lasts for a time; by a clock that does not jump."""


class Rest(Struct, frozen=True):
    """Nothing is to be done until something changes."""


class Begin(Struct, frozen=True):
    """A swap to `version` begins."""

    version: str


class Fetch(Struct, frozen=True):
    version: str


class Hold(Struct, frozen=True):
    """It is here; the operator has to say `apply`."""

    version: str


class Load(Struct, frozen=True):
    """Workers load it beside what serves; `trial`: after a try in a disposable process, and with golden prompts."""

    version: str
    trial: bool


class Share(Struct, frozen=True):
    """What is staged gets `canary` percent of new conversations or copies of `shadow` percent, for `left_s`."""

    version: str
    left_s: float
    canary: int = 0
    shadow: int = 0


class Flip(Struct, frozen=True):
    """The link is to name `version`, and everybody is to know."""

    version: str


class Watch(Struct, frozen=True):
    version: str
    left_s: float


class Settle(Struct, frozen=True):
    version: str


class Next(Struct, frozen=True):
    """Only the state has to change: the step is over."""


class Drop(Struct, frozen=True):
    """The swap is not wanted any more."""

    reason: str


Move = Rest | Begin | Fetch | Hold | Load | Share | Flip | Watch | Settle | Next | Drop


# -- what to do -------------------------------------------------------------------------------------------------


def goal(state: SlotState, seen: Seen) -> str:
    """The version to go to; empty to stay.

    Of the source's versions only one that is newer than what serves, and not older than anything that has served:
    after a rollback over several versions those between are no updates.
    """
    if state.pinned:
        return state.pinned if state.pinned not in (seen.current, *state.blocked) else ""
    place = {version: i for i, version in enumerate(seen.versions)}
    served = max((place.get(change.version, -1) for change in state.history if change.what in FLIPPED), default=-1)
    for version in reversed(seen.versions):
        if place[version] <= place.get(seen.current, -1) or place[version] < served:
            return ""
        if version not in state.blocked:
            return version
    return ""


def move(state: SlotState, seen: Seen) -> Move:
    """The next thing to do."""
    swap = state.swap
    if swap is None:
        wanted = goal(state, seen)
        return Begin(wanted) if wanted else Rest()
    if swap.step in BEFORE_FLIP and (reason := _unwanted(state, swap, seen)):
        return Drop(reason)
    match swap.step:
        case "fetching":
            return Next() if here(swap.version, seen) else Fetch(swap.version)
        case "staged":
            return Next() if seen.rollout.auto or swap.by != "updater" else Hold(swap.version)
        case "loading":
            return Load(swap.version, trial=True)
        case "shadow":
            return Share(swap.version, seen.left_s, shadow=seen.rollout.shadow) if seen.left_s > 0 else Next()
        case "canary":
            return Share(swap.version, seen.left_s, canary=seen.rollout.canary) if seen.left_s > 0 else Next()
        case "rolling_back":
            return Load(swap.version, trial=False)
        case "switching":
            return Flip(swap.version)
        case "watching":
            elsewhere = bool(state.pinned) and goal(state, seen) not in ("", swap.version)
            return Watch(swap.version, seen.left_s) if seen.left_s > 0 and not elsewhere else Settle(swap.version)


def breaks_off(doing: Move, wanted: Move) -> bool:
    """Whether a move that is being made has to end for another one; one that differs only in time left goes on.

    A step that is over is no reason, except for `Hold`, which waits for that: a fetch whose last file is in its place
    still has to write down what it took.
    """
    if isinstance(wanted, Next):
        return isinstance(doing, Hold)
    return _kind(doing) != _kind(wanted)


def _kind(move: Move) -> tuple[object, ...]:
    return (type(move), getattr(move, "version", ""), getattr(move, "canary", 0), getattr(move, "shadow", 0))


def here(version: str, seen: Seen) -> bool:
    """On the disk, and not a folder of the operator's that has the name of one of the source's versions."""
    return version in seen.made or (version in seen.installed and version not in seen.versions)


def _unwanted(state: SlotState, swap: Swap, seen: Seen) -> str:
    """Why a swap that has not flipped the link should end; a newer version counts until workers load it."""
    if swap.version in state.blocked:
        return f"{swap.version} is blocked: {state.blocked[swap.version]}"
    if state.pinned and state.pinned != swap.version:
        return f"pinned to {state.pinned}"
    if swap.step != "fetching" and swap.version not in seen.installed:
        return f"{swap.version} is not on the disk any more"
    wanted = goal(state, seen)
    if swap.step not in STAGED and wanted not in ("", swap.version):
        return f"{wanted} is newer"
    return ""


def timed_s(step: Step, rollout: RolloutConfig) -> float:
    """How long a step lasts; 0 where that is not a matter of time."""
    if step in ("shadow", "canary"):
        return rollout.trial_s
    return rollout.watch_s if step in ("switching", "watching") else 0.0
