"""How long a unit waits before it starts its service again."""

from __future__ import annotations

from ops.unit import QUICK_RESTARTS, WAIT_S_MAX, how, wait_s


def test_the_first_restarts_come_at_once_and_later_ones_ever_more_slowly_up_to_a_limit() -> None:
    waits = [wait_s(failures) for failures in range(1, 30)]
    assert waits[:QUICK_RESTARTS] == [0.2] * QUICK_RESTARTS
    assert waits == sorted(waits)
    assert waits[-1] == WAIT_S_MAX


def test_the_end_of_a_process_is_told_in_words() -> None:
    assert how(-9) == "by signal 9"
    assert how(3) == "with exit code 3"
