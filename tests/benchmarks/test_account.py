"""The account of `swaps_under_load`: what would count as failed, lost, doubled, mixed or stale."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks.account import Account, Reply, Swapped, account
from schemas.message import Inbound, Sender
from schemas.turn import Turn

VERSION = "1+0123456789ab"
SWAPPED = (
    Swapped(release="1", flipped_at=10.0, settled_at=11.0),
    Swapped(release="2", flipped_at=20.0, settled_at=21.0),
)


def turn(**more: Any) -> Turn:
    inbound = Inbound(id="r1", conversation="c", sender=Sender("s"))
    known = {"id": "r1", "text": "a~odd b~odd", "version": VERSION, **more}
    return Turn(channel="nats", conversation="c", inbound=inbound, model="chat", finished_at=16.0, **known)


def reply(**more: Any) -> Reply:
    known = {"request": "r1", "version": VERSION, "text": "a~odd b~odd", "streamed": "a~odd b~odd", "ends": 1, **more}
    return Reply(id="mine", began=15.0, ended=16.0, **known)


def counts(found: Account) -> dict[str, int]:
    kinds = {kind: len(getattr(found, kind)) for kind in ("failed", "lost", "doubled", "mixed", "stale")}
    return {kind: count for kind, count in kinds.items() if count}


def mark(release: str) -> str:
    return "odd" if int(release) % 2 else "even"


def test_an_answer_that_is_whole_has_nothing_wrong() -> None:
    found = account([reply()], [turn()], SWAPPED, mark)
    assert (found.requests, found.across, found.restarted) == (1, 0, 0)
    assert counts(found) == {}


@pytest.mark.parametrize(
    ("replies", "turns", "kind"),
    [
        ([reply(ends=2)], [turn()], "doubled"),
        ([reply()], [turn(), turn()], "doubled"),
        ([reply(ends=0, text="", streamed=None)], [turn(text="", version=VERSION)], "lost"),
        ([reply()], [], "lost"),
        ([reply()], [turn(), turn(id="r2")], "lost"),
        ([reply(version="2+0123456789ab")], [turn()], "mixed"),
        ([reply(text="a~odd", streamed="a~odd")], [turn()], "mixed"),
        ([reply(streamed="a~odd c~odd")], [turn()], "mixed"),
        ([reply(text="a~odd b~even", streamed=None)], [turn(text="a~odd b~even")], "mixed"),
        ([reply(version="9+0123456789ab")], [turn(version="9+0123456789ab")], "mixed"),
    ],
)
def test_what_is_wrong_is_counted(replies: list[Reply], turns: list[Turn], kind: str) -> None:
    assert kind in counts(account(replies, turns, SWAPPED, mark))


def test_a_refused_request_is_failed_and_nothing_else() -> None:
    assert counts(account([reply(error="503", request="", ends=0)], [], SWAPPED, mark)) == {"failed": 1}


def test_an_older_release_after_a_swap_was_settled_is_stale() -> None:
    late = reply()
    late.began, late.ended = 22.0, 23.0
    assert counts(account([late], [turn()], SWAPPED, mark)) == {"stale": 1}


def test_an_older_release_between_flip_and_settled_is_not() -> None:
    early = reply()
    early.began, early.ended = 19.5, 21.5
    found = account([early], [replace(turn(), attempt=2)], SWAPPED, mark)
    assert counts(found) == {}
    assert (found.across, found.restarted) == (1, 1)
