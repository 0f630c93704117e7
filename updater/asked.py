"""What the operator's orders, `ops` and hands on the link make of a slot's state. Pure.

What always holds: an order that cannot be carried out raises `Rejected` with the reason and changes nothing; a rollback
blocks the version that it leaves in the same breath; a link that was changed by hand is left where it is.
"""

from __future__ import annotations

from msgspec.structs import replace

from schemas.errors import Rejected
from schemas.update import Change
from updater.after import refused
from updater.plan import FLIPPED, STAGED, Seen
from updater.state import SlotState, Swap


def by_hand(state: SlotState, seen: Seen) -> SlotState | None:
    """The state after somebody has changed the link: pinned there; None if nobody has."""
    swap = state.swap
    if swap is None:
        last = next((change.version for change in reversed(state.history) if _serves(change)), seen.current)
        expected = {last}
    elif swap.step == "switching":
        expected = {swap.previous, swap.version}
    else:
        expected = {swap.version if swap.step == "watching" else swap.previous}
    if not seen.current or seen.current in expected:
        return None
    change = Change(
        at=seen.now,
        what="pinned",
        version=seen.current,
        previous=min(expected),
        by="hand",
        reason="the link `current` was changed by hand",
    )
    return replace(state, swap=None, pinned=seen.current).told(change)


def applied(state: SlotState, by: str) -> SlotState:
    """What waits may be taken."""
    swap = state.swap
    if swap is None or swap.step not in ("fetching", "staged"):
        raise Rejected("nothing waits for `apply`; `roost update status` shows what is under way", code="nothing")
    return replace(state, swap=replace(swap, by=by))


def pinned(state: SlotState, seen: Seen, version: str, by: str) -> SlotState:
    """Stay at `version`, or go to it; by default the one that serves."""
    version = version or seen.current
    if not version:
        raise Rejected("there is no version to pin; say which", code="no_version")
    if version in state.blocked:
        why = state.blocked[version]
        raise Rejected(f"{version} is blocked ({why}); `roost update unblock` permits it again", code="blocked")
    if version not in (seen.current, *seen.installed, *seen.versions):
        there = ", ".join(seen.versions) or "an unknown number of versions"
        raise Rejected(f"{version} is neither on the disk nor in the source, which has {there}", code="no_version")
    change = Change(at=seen.now, what="pinned", version=version, previous=seen.current, by=by)
    return replace(state, pinned=version).told(change)


def unpinned(state: SlotState, now: float, by: str) -> SlotState:
    """Follow the source again."""
    if not state.pinned:
        raise Rejected("it is not pinned", code="nothing")
    return replace(state, pinned="").told(Change(at=now, what="unpinned", version=state.pinned, by=by))


def unblocked(state: SlotState, version: str) -> SlotState:
    """Permit a version again."""
    if version not in state.blocked:
        there = ", ".join(state.blocked) or "none"
        raise Rejected(f"{version or 'no version'} is not blocked; blocked are: {there}", code="nothing")
    return state.unblock(version)


def rolled_back(state: SlotState, seen: Seen, to: str, reason: str, by: str) -> SlotState:
    """Go back to `to`, or to the version before; what only workers have tried is refused instead.

    `ops` may do so only while something is tried or watched: its word may come late.
    """
    swap, reason = state.swap, reason or f"rolled back by {by}"
    if swap is not None and swap.back and to in ("", swap.version):
        raise Rejected(f"it is going back to {swap.version} already", code="nothing")
    tried = swap is not None and (swap.step in STAGED or (swap.step == "switching" and seen.current == swap.previous))
    if tried and to in ("", seen.current):
        return refused(state, seen.now, reason, by=by)
    if by == "ops" and (swap is None or swap.step not in ("switching", "watching")):
        raise Rejected("nothing is tried or watched any more", code="nothing")
    target = to or _before(state, seen)
    _may_go_back(state, seen, target)
    back = Swap(
        version=target, step="rolling_back", at=seen.now, previous=seen.current, back=True, by=by, reason=reason
    )
    left = state.block(seen.current, reason) if seen.current else state
    return replace(left, swap=back, pinned=target if state.pinned == target else "")


def _may_go_back(state: SlotState, seen: Seen, target: str) -> None:
    others = sorted(seen.installed - {seen.current, *state.blocked})
    there = f"on the disk are: {', '.join(others) or 'no others'}"
    if not target:
        raise Rejected(f"no earlier version is known; name one with --to; {there}", code="no_version")
    if target == seen.current:
        raise Rejected(f"{target} serves already", code="nothing")
    if target in state.blocked:
        raise Rejected(f"{target} is blocked ({state.blocked[target]}); {there}", code="blocked")
    if target not in seen.installed:
        raise Rejected(f"{target} is not on the disk (`roost update pin` fetches it); {there}", code="no_version")


def _before(state: SlotState, seen: Seen) -> str:
    """The version that served last before the current one, is on the disk and not blocked; empty if there is none."""
    told = [version for c in state.history if _serves(c) for version in (c.previous, c.version)]
    begun = [state.swap.previous] if state.swap is not None else []
    usable = seen.installed - {seen.current, *state.blocked}
    return next((version for version in (*begun, *reversed(told)) if version in usable), "")


def _serves(change: Change) -> bool:
    return change.what in FLIPPED or (change.what == "pinned" and change.by == "hand")
