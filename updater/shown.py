"""What the operator is shown of a slot's state. Pure."""

from __future__ import annotations

from schemas.update import Change, Phase, UpdateStatus
from updater.state import SlotState, Swap


def phase_of(swap: Swap) -> Phase:
    """A way back is one phase, whatever its step."""
    return "rolling_back" if swap.back else swap.step


def at_rest(state: SlotState, versions: tuple[str, ...], source_reason: str) -> tuple[Phase, str]:
    """(phase, reason) while nothing is under way: `failed` while the newest is blocked, and not by the operator."""
    newest = versions[-1] if versions else ""
    why = state.blocked.get(newest, "")
    last = next((change for change in reversed(state.history) if _gave_up(change, newest)), None)
    if why and not state.pinned and last is not None and last.by != "operator":
        return "failed", f"{newest} is blocked: {why}"
    return "idle", source_reason


def _gave_up(change: Change, version: str) -> bool:
    refused = change.what == "refused" and change.version == version
    return refused or (change.what == "rolled_back" and change.previous == version)


def still_says(row: UpdateStatus, swap: Swap) -> bool:
    """Whether a row is about this step of this swap: `staged` is also what waits for memory or a worker."""
    waits = row.phase == "staged" and swap.step == "loading"
    return row.version == swap.version and (row.phase == phase_of(swap) or waits)
