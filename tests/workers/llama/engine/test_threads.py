"""The number of threads follows what other programs leave."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from workers.llama.engine.threads import LOOK_S, ThreadChoice, used_by_others


class World:
    """A machine whose other programs use `others` cores."""

    def __init__(self, most: int, cores: int) -> None:
        self.now = self.used = self.others = 0.0
        self.looks = 0
        self.choice = ThreadChoice(most, cores, used=self._used, clock=lambda: self.now)

    def _used(self) -> float:
        self.looks += 1
        return self.used

    def run(self, seconds: float, others: float, step_s: float = 0.05) -> list[int]:
        """Steps of `step_s` for so long; the threads of each."""
        used = []
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            self.used += others * step_s
            used.append(self.choice.next())
        return used


def test_a_quiet_machine_uses_all_its_cores() -> None:
    assert set(World(2, 2).run(60, 0.1)) == {2}


def test_a_busy_program_gets_its_core_within_a_second_and_we_get_it_back() -> None:
    world = World(2, 2)
    world.run(5, 0.05)
    assert world.run(1, 0.95)[-1] == 1
    assert set(world.run(10, 0.95)) == {1}
    assert world.run(1, 0.05)[-1] == 2


def test_a_short_burst_is_nobodys_core() -> None:
    world = World(2, 2)
    world.run(5, 0.05)
    assert set(world.run(0.3, 0.9)) == {2}
    assert set(world.run(5, 0.05)) == {2}


def test_between_the_two_shares_nothing_changes() -> None:
    world = World(2, 2)
    assert set(world.run(20, 0.25)) == {2}
    world.run(2, 0.9)
    assert set(world.run(20, 0.25)) == {1}


@pytest.mark.parametrize(("others", "threads"), [(0.0, 8), (1.9, 6), (3.5, 4), (7.9, 1), (12.0, 1)])
def test_on_many_cores_we_take_what_is_left(others: float, threads: int) -> None:
    assert World(8, 8).run(5, others)[-1] == threads


def test_with_fewer_threads_than_cores_others_have_the_rest() -> None:
    world = World(4, 8)
    assert set(world.run(5, 3.9)) == {4}
    assert world.run(2, 6.0)[-1] == 2


def test_the_limit_holds_and_can_be_lifted() -> None:
    world = World(4, 4)
    world.choice.limit = 1
    assert world.run(1, 0.0)[-1] == 1
    world.choice.limit = 4
    assert world.run(1, 0.0)[-1] == 4


def test_it_looks_four_times_a_second_however_short_the_steps() -> None:
    world = World(2, 2)
    world.run(2, 0.0, step_s=0.001)
    assert world.looks <= 2 / LOOK_S + 2


def test_the_real_books_count_another_program_and_not_ourselves() -> None:
    code = "import time; e = time.monotonic() + 0.8\nwhile time.monotonic() < e: pass"
    ours, others = time.process_time(), used_by_others()
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        other.wait(60)
    assert time.process_time() - ours < 0.3
    assert used_by_others() - others > 0.3
