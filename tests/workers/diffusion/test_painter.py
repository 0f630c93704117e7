"""The painter's thread: hand-over, ends, and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from workers.diffusion.painter import GivenUp, Painter, Work

WAIT_S = 10.0


@pytest.fixture
def painter() -> Iterator[Painter]:
    made = Painter("painter-test")
    yield made
    made.close()


def finish(painter: Painter, work: Work) -> None:  # type: ignore[type-arg]
    while not painter.step(WAIT_S):
        pass
    assert work.done


def test_it_stops_after_each_step_until_it_is_asked_for_the_next(painter: Painter) -> None:
    done: list[int] = []

    def run(pause: Callable[[], None]) -> str:
        for i in range(3):
            done.append(i)
            pause()
        return "painted"

    work = Work(run)
    painter.begin(work)
    assert done == []
    for i in range(3):
        assert not painter.step(WAIT_S)
        assert done == list(range(i + 1))
    assert painter.step(WAIT_S)
    assert (work.result, work.error) == ("painted", None)


def test_a_long_step_does_not_hold_the_lane(painter: Painter) -> None:
    go = threading.Event()
    work = Work(lambda _pause: go.wait(WAIT_S))
    painter.begin(work)
    assert not painter.step(0.01)
    assert not painter.step(0.01)
    go.set()
    finish(painter, work)
    assert work.result is True


def test_a_work_that_is_given_up_ends_at_its_next_pause(painter: Painter) -> None:
    steps: list[int] = []

    def run(pause: Callable[[], None]) -> None:
        while True:
            steps.append(1)
            pause()

    work = Work(run)
    painter.begin(work)
    painter.step(WAIT_S)
    painter.give_up()
    finish(painter, work)
    assert isinstance(work.error, GivenUp)
    assert steps == [1]
    assert painter.call(lambda: 7) == 7


def test_a_step_can_be_left_in_its_middle(painter: Painter) -> None:
    inside, asked = threading.Event(), threading.Event()

    def run(_pause: Callable[[], None]) -> None:
        painter.look()
        inside.set()
        asked.wait(WAIT_S)
        painter.look("a module", "its inputs")
        raise AssertionError("went on")

    work = Work(run)
    painter.begin(work)
    painter.step(0.0)
    assert inside.wait(WAIT_S)
    painter.give_up()
    asked.set()
    finish(painter, work)
    assert isinstance(work.error, GivenUp)


def test_what_a_work_raises_is_told_and_the_next_one_runs(painter: Painter) -> None:
    def fail() -> None:
        raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        painter.call(fail)
    assert painter.call(lambda: threading.current_thread().name) == "painter-test"


def test_two_works_at_once_are_refused(painter: Painter) -> None:
    painter.begin(Work(lambda pause: pause()))
    with pytest.raises(RuntimeError, match="has a work already"):
        painter.begin(Work(lambda pause: pause()))


def test_closing_ends_the_thread_between_and_within_works() -> None:
    for begun in (False, True):
        painter = Painter("painter-closing")

        def run(pause: Callable[[], None]) -> None:
            while True:
                pause()

        if begun:
            painter.begin(Work(run))
            painter.step(WAIT_S)
        painter.close()
        assert "painter-closing" not in {thread.name for thread in threading.enumerate()}
        with pytest.raises(RuntimeError, match="closed"):
            painter.begin(Work(run))


def test_a_work_that_has_not_begun_ends_with_the_painter() -> None:
    painter = Painter("painter-unbegun")
    work = Work(lambda pause: pause())
    painter.begin(work)
    painter.close()
    assert work.done
    assert isinstance(work.error, GivenUp)
