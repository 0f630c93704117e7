"""The number of threads follows what other programs leave."""

from __future__ import annotations

from workers.llama.threads import ThreadChoice

SHAPE = (8, 8)


def steps(
    choice: ThreadChoice, count: int, seconds: dict[int, float], shape: tuple[int, int] = SHAPE
) -> dict[int, int]:
    """Run `count` steps that take `seconds[threads]`; how many ran with each number of threads."""
    used = dict.fromkeys(seconds, 0)
    for _ in range(count):
        threads = choice.next()
        used[threads] += 1
        choice.took(SHAPE, seconds[threads])
    return used


QUIET = {2: 0.04, 1: 0.07}
BUSY = {2: 0.2, 1: 0.08}


def test_a_quiet_machine_uses_all_its_cores_nearly_always() -> None:
    used = steps(ThreadChoice(2, 1), 4_000, QUIET)
    assert used[1] <= 0.01 * 4_000


def test_beside_another_program_fewer_threads_are_used_soon() -> None:
    choice = ThreadChoice(2, 1)
    steps(choice, 1_000, QUIET)
    used = steps(choice, 60, BUSY)
    assert choice.current == 1
    assert used[2] <= 10


def test_when_the_other_program_ends_all_cores_are_used_again() -> None:
    choice = ThreadChoice(2, 1)
    steps(choice, 3_000, BUSY)
    steps(choice, 160, QUIET)
    assert choice.current == 2


def test_trials_under_load_cost_little() -> None:
    choice = ThreadChoice(2, 1)
    used = steps(choice, 4_000, BUSY)
    assert used[2] <= 0.05 * 4_000


def test_batches_of_another_shape_are_not_taken_for_a_slower_machine() -> None:
    choice = ThreadChoice(2, 1)
    for i in range(2_000):
        size = 1 + i % 9
        threads = choice.next()
        choice.took((size, size), size * QUIET[threads])
    assert choice.current == 2


def test_with_one_core_there_is_nothing_to_choose() -> None:
    assert steps(ThreadChoice(1, 1), 500, {1: 0.1}) == {1: 500}
