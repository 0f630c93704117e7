"""What is true of a slot after a move of `plan` was made. Pure.

What always holds: the history tells of everything that changed what serves or may serve; a version that was refused
is blocked in the same breath.
"""

from __future__ import annotations

from msgspec.structs import replace

from schemas.update import Change, RolloutConfig
from updater.plan import Seen, timed_s
from updater.state import SlotState, Step, Swap

CRASHES_MAX = 2
"""A version is blocked when workers have died on it, or hung, this often: once may be an accident."""


def begun(state: SlotState, seen: Seen, version: str) -> SlotState:
    """`fetching` ends at once for what is on the disk."""
    by = "operator" if state.pinned == version else "updater"
    return replace(state, swap=Swap(version=version, at=seen.now, previous=seen.current, by=by))


def fetched(state: SlotState, now: float, size: int, seconds: dict[str, float]) -> SlotState:
    """All of it has come and was verified; `size`: bytes that had to come over the line."""
    swap = under_way(state)
    change = Change(at=now, what="fetched", version=swap.version, seconds=seconds, fetched=size)
    return replace(state, swap=replace(swap, step="staged", at=now, fetched=size, seconds=seconds)).told(change)


def advanced(state: SlotState, seen: Seen, *, alone: bool = False) -> SlotState:
    """A step is over, and went well. `alone`: what served was freed for it, so that nothing is there to compare."""
    swap = under_way(state)
    compared = bool(seen.current) and not alone
    step = _after(swap.step, seen.rollout if compared else RolloutConfig())
    lasts_s = timed_s(step, seen.rollout) if swap.previous and not swap.back else 0.0
    return replace(state, swap=replace(swap, step=step, at=seen.now, until=seen.now + lasts_s if lasts_s else 0.0))


def _after(step: Step, rollout: RolloutConfig) -> Step:
    if step == "fetching":
        return "staged"
    if step == "staged":
        return "loading"
    if step == "loading" and rollout.shadow:
        return "shadow"
    if step in ("loading", "shadow") and rollout.canary:
        return "canary"
    return "switching"


def took(state: SlotState, seconds: dict[str, float]) -> SlotState:
    """Stages are over."""
    swap = under_way(state)
    return replace(state, swap=replace(swap, seconds={**swap.seconds, **seconds}))


def flipped(state: SlotState, now: float) -> SlotState:
    """The link names the version, and that was announced."""
    swap = under_way(state)
    change = Change(
        at=now,
        what="rolled_back" if swap.back else "swapped",
        version=swap.version,
        previous=swap.previous,
        reason=swap.reason,
        by=swap.by,
        seconds=swap.seconds,
        fetched=swap.fetched,
    )
    return replace(state, swap=None if swap.back else replace(swap, step="watching", at=now)).told(change)


def settled(state: SlotState, now: float) -> SlotState:
    swap = under_way(state)
    change = Change(at=now, what="settled", version=swap.version, previous=swap.previous)
    return replace(state, swap=None).told(change)


def dropped(state: SlotState) -> SlotState:
    """The swap is not wanted any more; nothing had changed."""
    return replace(state, swap=None)


def refused(state: SlotState, now: float, reason: str, *, by: str = "updater") -> SlotState:
    """The version at work must not serve here; what serves stays."""
    swap = under_way(state)
    change = Change(
        at=now, what="refused", version=swap.version, previous=swap.previous, reason=reason, by=by, seconds=swap.seconds
    )
    pinned = "" if state.pinned == swap.version else state.pinned
    return replace(state, swap=None, pinned=pinned).block(swap.version, reason).told(change)


def crashed(state: SlotState, now: float, reason: str) -> SlotState:
    """Workers died on it, or did not answer in time; the second time it is the version's fault."""
    swap = under_way(state)
    if swap.crashes + 1 >= CRASHES_MAX:
        return refused(state, now, f"tried {swap.crashes + 1} times: {reason}")
    return replace(state, swap=replace(swap, crashes=swap.crashes + 1, step="loading", at=now, until=0.0))


def under_way(state: SlotState) -> Swap:
    if state.swap is None:
        raise ValueError("no swap is under way")
    return state.swap
