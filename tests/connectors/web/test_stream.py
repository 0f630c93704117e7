"""What pages are told, and that a slow one cannot hold anything up."""

from __future__ import annotations

from connectors.web.answer import Answer, Asked
from connectors.web.stream import EVENTS_MAX, Page
from schemas.message import Delta, Outbound


def answer() -> Answer:
    return Answer(Asked(request="r", conversation="c", text="?"))


def text_of(told: Answer) -> str:
    told.render()
    return "".join(told.blocks.html)


def test_deltas_are_laid_at_their_offset() -> None:
    told = answer()
    for delta in (
        Delta(request="r", text="hello"),
        Delta(request="r", at=5, text=" wurld"),
        Delta(request="r", at=7, text="orld"),
    ):
        told.apply(delta)
    assert text_of(told) == "<p>hello world</p>\n"


def test_a_higher_attempt_begins_anew_and_the_old_one_is_not_heard_any_more() -> None:
    told = answer()
    told.apply(Delta(request="r", text="old"))
    told.apply(Delta(request="r", attempt=2, text="new"))
    told.apply(Delta(request="r", attempt=1, at=3, text=" ghost"))
    assert text_of(told) == "<p>new</p>\n"


def test_after_a_gap_the_rest_is_shown_until_the_whole_answer_comes() -> None:
    told = answer()
    told.apply(Delta(request="r", at=100, text="later"))
    told.apply(Delta(request="r", at=105, text=" on"))
    assert text_of(told) == "<p>… later on</p>\n"
    final = told.final(Outbound(id="r", channel="web", conversation="c", text="the whole, and later on"))
    assert final.start == 0
    assert final.html == ["<p>the whole, and later on</p>\n"]


def test_only_a_change_of_state_or_place_is_news() -> None:
    told = answer()
    assert told.apply(Delta(request="r", state="queued", place=2))
    assert not told.apply(Delta(request="r", state="queued", place=2))
    assert told.apply(Delta(request="r", state="queued", place=1))
    assert told.apply(Delta(request="r", text="a"))
    assert not told.apply(Delta(request="r", at=1, text="b"))


async def test_a_page_that_lags_too_far_is_cut_off() -> None:
    page = Page()
    for _ in range(EVENTS_MAX + 1):
        page.put(b"x")
    assert page.cut
    assert await page.get() == b""


async def test_waiting_frames_go_out_together() -> None:
    page = Page()
    page.put(b"a")
    page.put(b"b")
    assert await page.get() == b"ab"
