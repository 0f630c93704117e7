"""Which changes of a slot are told, and as what."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from schemas.update import Change
from updater.news import news
from updater.state import HISTORY_MAX, SlotState, Swap

SWAP = Swap(step="loading", version="2", previous="1")


def told(old: SlotState, **change: Any) -> list[tuple[str, str]]:
    new = replace(old, swap=None).told(Change(at=1.0, version="2", previous="1", reason="why", **change))
    return [(one.event, one.alert) for one in news("talk", old, new)]


def test_what_needs_somebody_is_an_alert_and_what_happened_an_event() -> None:
    old = SlotState(swap=SWAP)
    assert told(old, what="refused") == [("refused", "update_refused")]
    assert told(old, what="settled") == [("settled", "")]
    assert told(old, what="rolled_back") == [("", "update_rolled_back")]
    assert told(old, what="pinned", by="hand") == [("", "update_by_hand")]
    assert told(old, what="pinned") == told(old, what="fetched") == told(old, what="swapped") == []


def test_a_version_is_staged_when_all_workers_have_loaded_it_and_a_way_back_is_not_told_so() -> None:
    for step in ("shadow", "canary", "switching"):
        [one] = news("talk", SlotState(swap=SWAP), SlotState(swap=replace(SWAP, step=step)))
        assert (one.event, one.version, one.previous) == ("staged", "2", "1")
    assert news("talk", SlotState(swap=replace(SWAP, step="staged")), SlotState(swap=SWAP)) == []
    back = replace(SWAP, back=True, step="rolling_back")
    assert news("talk", SlotState(swap=back), SlotState(swap=replace(back, step="switching"))) == []


def test_a_full_history_that_loses_its_first_line_tells_only_the_new_one() -> None:
    lines = tuple(Change(at=float(i), what="settled", version=str(i)) for i in range(HISTORY_MAX))
    assert told(SlotState(history=lines, swap=SWAP), what="refused") == [("refused", "update_refused")]
    same = (Change(at=1.0, what="refused", version="2", previous="1", reason="why"),) * HISTORY_MAX
    full = SlotState(history=same)
    assert news("talk", full, full) == []
