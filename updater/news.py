"""What of a slot's change is worth an event or an alert. Pure.

The link is the truth, and these only tell of it; `swapped` and `rolled_back`, which workers wait for, are published by
who flips the link.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from schemas.update import Change
from updater.state import SlotState

STAGED = ("shadow", "canary", "switching")
ADDED_MAX = 3
"""Lines of history that one change adds at most."""


class News(Struct, frozen=True, kw_only=True):
    """One thing to tell: an event (`event` is its kind) and an alert, where these are not empty."""

    event: Literal["", "staged", "settled", "refused"] = ""
    alert: str = ""
    text: str = ""
    version: str = ""
    previous: str = ""
    reason: str = ""


def news(name: str, old: SlotState, new: SlotState) -> list[News]:
    """What to tell of the slot `name`, in order."""
    found, was, swap = [], old.swap, new.swap
    if was and swap and was.version == swap.version and was.step == "loading" and swap.step in STAGED:
        found.append(News(event="staged", version=swap.version, previous=swap.previous))
    return [*found, *(told for change in _added(old, new) if (told := _of(name, change)) is not None)]


def _added(old: SlotState, new: SlotState) -> tuple[Change, ...]:
    """Lines that the history has more; an old one may have lost its first."""
    for count in range(ADDED_MAX + 1):
        kept = new.history[: len(new.history) - count]
        if kept == old.history[len(old.history) - len(kept) :]:
            return new.history[len(kept) :]
    return new.history[-1:]


def _of(name: str, change: Change) -> News | None:
    plain = News(version=change.version, previous=change.previous, reason=change.reason)
    match change.what:
        case "refused":
            text = f"{name} {change.version} is blocked: {change.reason}"
            return replace(plain, event="refused", alert="update_refused", text=text)
        case "settled":
            return replace(plain, event="settled")
        case "rolled_back":
            text = f"{name} went back from {change.previous or 'nothing'} to {change.version}: {change.reason}"
            return replace(plain, alert="update_rolled_back", text=text)
        case "pinned" if change.by == "hand":
            text = f"{name} is pinned to {change.version}: {change.reason}; `roost update unpin {name}` goes on"
            return replace(plain, alert="update_by_hand", text=text)
        case _:
            return None
