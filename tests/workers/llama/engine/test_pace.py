"""What a step takes is learned, and the next one sized by it."""

from __future__ import annotations

import pytest

from workers.llama.engine.pace import SIZES, Pace


def taught(fixed_s: float, token_s: float, sizes: tuple[int, ...] = (1, 8, 64, 512)) -> Pace:
    pace = Pace()
    for size in sizes:
        pace.took(size, fixed_s + size * token_s)
    return pace


def test_nothing_known_is_said_so() -> None:
    assert Pace().of(4) == 0
    assert Pace().most(0.1) == 0


@pytest.mark.parametrize("tokens", [1, 2, 8, 30, 64, 300, 512])
def test_between_known_sizes_it_is_a_straight_line(tokens: int) -> None:
    assert taught(0.02, 0.001).of(tokens) == pytest.approx(0.02 + tokens * 0.001)


@pytest.mark.parametrize(("target", "tokens"), [(0.05, 30), (0.084, 64), (0.2, 180), (0.01, 0)])
def test_the_most_that_fits_counts_the_fixed_part_once(target: float, tokens: int) -> None:
    assert taught(0.02, 0.001).most(target) == pytest.approx(tokens, abs=1)


def test_a_larger_step_than_any_known_is_tried_and_then_known() -> None:
    pace = Pace()
    pace.took(1, 0.01)
    assert pace.most(0.1) == 1 + 18
    for _ in range(12):
        size = max(pace.most(0.1), 1)
        pace.took(size, 0.008 + 0.002 * size)
    assert 0.08 <= 0.008 + 0.002 * pace.most(0.1) <= 0.11


def test_a_step_that_was_disturbed_counts_little() -> None:
    pace = taught(0.0, 0.001)
    pace.took(64, 60.0)
    assert pace.of(64) < 0.1


def test_it_follows_a_machine_that_has_become_slower() -> None:
    pace = taught(0.0, 0.001)
    for _ in range(60):
        pace.took(64, 0.2)
    assert pace.of(64) == pytest.approx(0.2, rel=0.05)


def test_a_size_that_is_passed_over_as_too_slow_is_tried_again_one_day() -> None:
    pace = taught(0.0, 0.01)
    refused = 0
    while not pace.affords(64, 0.5):
        refused += 1
    assert 10 < refused < 100
    pace.took(64, 0.64)
    assert not pace.affords(64, 0.5)


def test_nothing_is_afforded_while_nothing_is_known() -> None:
    assert not Pace().affords(64, 1e9)


def test_every_size_has_a_place() -> None:
    pace = Pace()
    for tokens in range(1, 5000, 7):
        pace.took(tokens, 0.001 * tokens)
    assert {pace.of(s) > 0 for s in SIZES} == {True}
