"""How far a picture is, as pages are told: without HTTP and without a browser."""

from __future__ import annotations

from connectors.web.answer import Answer, Asked
from connectors.web.painting import PREVIEW_BYTES_MAX, Easel
from connectors.web.stream import EVENTS_MAX, Page
from schemas.message import Delta
from schemas.picture import Progress

JPEG = b"\xff\xd8\xff"


def shown(*told: tuple[Progress, float]):
    easel = Easel("r", "c")
    for progress, now in told:
        easel.take(progress, now)
    return easel.shown()


def test_the_time_left_follows_the_pace_and_is_unknown_before_there_is_one() -> None:
    first = (Progress(step=0, steps=10), 5.0)
    assert shown(first).left_s is None
    assert shown(first, (Progress(step=2, steps=10), 6.0)).left_s == 4.0
    slower = [(Progress(step=step, steps=100), 100.0 + step * 3) for step in range(20, 30)]
    assert shown(first, *slower).left_s == 71 * 3.0


def test_a_count_that_begins_again_is_not_taken_for_pace() -> None:
    again = shown((Progress(step=9, steps=10), 1.0), (Progress(step=1, steps=10), 2.0))
    assert (again.step, again.left_s) == (1, None)


def test_steps_stay_within_their_number_whatever_the_worker_says() -> None:
    assert (shown((Progress(step=99, steps=10), 0.0)).step, shown((Progress(step=-3, steps=0), 0.0)).steps) == (10, 1)


def test_a_preview_is_a_small_jpeg_and_the_newest_stays() -> None:
    good = (Progress(step=1, steps=9, preview=JPEG + b"1"), 0.0)
    for other in (b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n", JPEG + bytes(PREVIEW_BYTES_MAX)):
        assert shown(good, (Progress(step=2, steps=9, preview=other), 1.0)).preview == JPEG + b"1"
    assert shown(good, (Progress(step=2, steps=9, preview=JPEG + b"2"), 1.0)).preview == JPEG + b"2"


def test_an_answer_begun_anew_has_no_progress_and_late_news_of_the_first_attempt_count_for_nothing() -> None:
    told = Answer(Asked(request="r", conversation="c", text="?"))
    told.apply(Delta(request="r", progress=Progress(step=7, steps=9, preview=JPEG)), 1.0)
    assert told.snapshot().painting is not None
    told.apply(Delta(request="r", attempt=2), 2.0)
    assert told.snapshot().painting is None
    told.apply(Delta(request="r", attempt=1, progress=Progress(step=8, steps=9)), 3.0)
    assert told.snapshot().painting is None


async def test_only_the_newest_progress_waits_for_a_page_that_is_slow() -> None:
    page = Page()
    page.put(b"a")
    for n in range(EVENTS_MAX * 2):
        page.put_newest("one", b"<%d>" % n)
        page.put_newest("two", b"(%d)" % n)
    page.put(b"z")
    assert not page.cut
    assert await page.get() == b"a<1999>(1999)z"
    page.put_newest("one", b"later")
    assert await page.get() == b"later"


async def test_a_page_that_is_cut_off_keeps_no_pictures() -> None:
    page = Page()
    page.put_newest("one", b"x")
    page.end()
    page.put_newest("two", b"x")
    assert await page.get() == b""
