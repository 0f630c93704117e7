"""How many threads compute: each kind of work gets the number that is quickest for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.diffusion.schedulers import Schedulers
from workers.diffusion.threads import KNOWN_S, Threads


class Machine:
    """A clock, and threads that are set."""

    def __init__(self, most: int) -> None:
        self.now = 0.0
        self.used: list[int] = []
        self.count = 0
        self.threads = Threads(most, clock=lambda: self.now, apply=self.apply)

    def apply(self, count: int) -> None:
        self.count = count

    def works(self, times: int, kind: str, seconds: Callable[[int], float]) -> list[int]:
        """The numbers of threads that so many works got."""
        used = []
        for _ in range(times):
            self.threads.use(kind)
            used.append(self.count)
            self.now += seconds(self.count)
            self.threads.done()
        return used


@pytest.mark.parametrize(
    ("seconds", "right"),
    [
        pytest.param(lambda count: 8 / count, 8, id="all share it well"),
        pytest.param(lambda count: 1 + 0.5 * count, 1, id="they only wait for each other"),
        pytest.param(lambda count: 8 / count + count, 2, id="some do, and as many more are no quicker"),
    ],
)
def test_the_quickest_number_is_found_and_kept(seconds: Callable[[int], float], right: int) -> None:
    machine = Machine(8)
    tried = machine.works(12, "step", seconds)
    assert sorted(set(tried)) == [1, 2, 4, 8]
    assert set(machine.works(20, "step", seconds)) == {right}


def test_one_busy_moment_decides_nothing() -> None:
    machine = Machine(2)
    busy = iter([50.0, 1.0, 1.0])
    machine.works(6, "step", lambda count: next(busy) if count == 2 else 2.0)
    assert machine.works(1, "step", lambda _: 1.0) == [2]


def test_kinds_of_work_differ() -> None:
    machine = Machine(2)
    machine.works(6, "step", lambda count: count)
    machine.works(6, "decoding", lambda count: 1 / count)
    assert machine.works(1, "step", lambda _: 1.0) == [1]
    assert machine.works(1, "decoding", lambda _: 1.0) == [2]


def test_what_was_found_on_a_busy_machine_is_found_anew() -> None:
    machine = Machine(2)
    machine.works(6, "step", lambda count: count)
    assert machine.works(1, "step", lambda _: 1.0) == [1]
    machine.now += KNOWN_S
    assert 2 in machine.works(6, "step", lambda count: 1 / count)
    assert machine.works(1, "step", lambda _: 1.0) == [2]


def test_while_power_is_saved_no_more_than_that() -> None:
    machine = Machine(8)
    machine.threads.ease(0.25)
    assert max(machine.works(12, "step", lambda count: 8 / count)) == 2
    machine.threads.ease(1.0)
    assert max(machine.works(12, "step", lambda count: 8 / count)) == 8


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc: run it on Linux")
def test_a_look_at_the_steps_of_a_request_leaves_no_computing_threads_behind() -> None:
    diffusers = pytest.importorskip("diffusers", reason="drawing needs the extra diffusion")
    own = diffusers.DPMSolverMultistepScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    schedulers = Schedulers(own)

    def new() -> set[str]:
        before = set(os.listdir("/proc/self/task"))
        schedulers.check_steps("dpm++", 20)
        limit = time.monotonic() + 10  # threads that have ended are there for a moment
        while (left := set(os.listdir("/proc/self/task")) - before) and time.monotonic() < limit:
            time.sleep(0.01)
        return left

    with ThreadPoolExecutor(1) as painter, ThreadPoolExecutor(1) as lane:  # fresh threads, which stay
        painter.submit(Threads().use).result(60)
        assert lane.submit(new).result(60) == set()
