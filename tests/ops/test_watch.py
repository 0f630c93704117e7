"""Whether a version is worse: few answers, many answers, no baseline, other circumstances."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from msgspec.structs import replace

from ops.samples import of_failure, of_shadow, of_turn
from ops.watch import Sample, accompanied, judge, low_median, wilson
from schemas.message import Inbound, Message, Problem, Sender, Timings, Usage
from schemas.model import FailedAnswer, ShadowAnswer
from schemas.turn import Turn
from schemas.update import RolloutConfig

MARGINS = RolloutConfig()
GOOD = Sample(empty=False, first_ms=100.0, token_ms=20.0)
FAILED = Sample(ok=False)
EMPTY = Sample(empty=True)
LOOP = Sample(empty=False, repeats=0.9)


def mixed(bad: Sample, count: int, of: int) -> list[Sample]:
    return [bad] * count + [GOOD] * (of - count)


# -- shares


@pytest.mark.parametrize(("bad", "word"), [(FAILED, "failed"), (EMPTY, "empty"), (LOOP, "repeated")])
def test_many_more_bad_answers_are_a_reason_and_as_many_as_before_are_none(bad: Sample, word: str) -> None:
    reason = judge(mixed(bad, 12, 30), mixed(bad, 3, 300), MARGINS)
    assert reason is not None
    assert word in reason
    assert "12 of 30" in reason
    assert "3 of 300 before" in reason
    assert judge(mixed(bad, 12, 30), mixed(bad, 120, 300), MARGINS) is None
    assert judge(mixed(bad, 3, 300), mixed(bad, 12, 30), MARGINS) is None


@pytest.mark.parametrize("bad", [FAILED, EMPTY, LOOP])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_one_or_two_bad_answers_of_twenty_are_chance(bad: Sample, count: int) -> None:
    assert judge(mixed(bad, count, 20), [GOOD] * 500, MARGINS) is None


def test_nothing_is_said_of_too_few_answers() -> None:
    assert judge([FAILED] * (MARGINS.answers_min - 1), [GOOD] * 500, MARGINS) is None
    assert judge([FAILED] * MARGINS.answers_min, [GOOD] * 500, MARGINS) is not None


def test_without_an_earlier_version_only_what_is_mostly_bad_is_a_reason() -> None:
    assert judge(mixed(FAILED, 10, 20), [], MARGINS) is None
    reason = judge(mixed(FAILED, 18, 20), [], MARGINS)
    assert reason is not None
    assert "no earlier version" in reason
    assert judge([GOOD] * 200, [], MARGINS) is None


def test_the_margin_of_the_operator_counts() -> None:
    new, old = mixed(FAILED, 60, 400), mixed(FAILED, 20, 400)
    assert judge(new, old, replace(MARGINS, errors_more=0.02)) is not None
    assert judge(new, old, replace(MARGINS, errors_more=0.2)) is None


def test_versions_that_are_alike_are_nearly_never_told_apart_however_often_they_are_looked_at() -> None:
    """A hundred rollouts of an equal version, judged after every answer: the price of looking again and again."""
    seed = 4
    print(f"seed {seed}")
    chance = random.Random(seed)

    def one() -> Sample:
        bad = chance.random() < 0.08
        return FAILED if bad else Sample(empty=False, first_ms=chance.lognormvariate(5, 0.6), token_ms=20.0)

    rolled_back = 0
    for _ in range(100):
        old, new = [one() for _ in range(200)], [one() for _ in range(100)]
        rolled_back += any(judge(new[:n], old, MARGINS) for n in range(20, 101, 4))
    assert rolled_back <= 2


def test_a_version_that_is_much_worse_is_found_soon() -> None:
    seed = 5
    print(f"seed {seed}")
    chance = random.Random(seed)
    found = 0
    for _ in range(100):
        new = [FAILED if chance.random() < 0.4 else GOOD for _ in range(60)]
        found += any(judge(new[:n], [GOOD] * 200, MARGINS) for n in range(20, 61, 4))
    assert found >= 98


def test_the_bounds_of_a_share_are_wilsons() -> None:
    # Newcombe 1998, table I: 95 % intervals without continuity correction
    for count, of, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson(count, of, 1.96) == pytest.approx((low, high), abs=5e-4)


# -- answers that are alike


def asked(text: int, question: int) -> Sample:
    return Sample(empty=False, text=text, question=question)


def test_the_same_answer_to_different_questions_is_no_answer() -> None:
    old = [asked(n, n) for n in range(100)]
    reason = judge([asked(7, n) for n in range(30)], old, MARGINS)
    assert reason is not None
    assert "30 of 30" in reason
    assert judge([asked(7, 7) for _ in range(30)], old, MARGINS) is None, "the same question again"
    assert judge([asked(0, n) for n in range(30)], old, MARGINS) is None, "short answers may be alike"
    assert judge([asked(n // 2, n) for n in range(30)], old, MARGINS) is None, "two questions may mean the same"


# -- times


def timed(first_ms: float, token_ms: float, **more: Any) -> Sample:
    return Sample(empty=False, first_ms=first_ms, token_ms=token_ms, **more)


def test_answers_that_are_much_slower_are_a_reason() -> None:
    old = [timed(100, 20) for _ in range(100)]
    first = judge([timed(300, 20) for _ in range(25)], old, MARGINS)
    further = judge([timed(100, 50) for _ in range(25)], old, MARGINS)
    assert first is not None
    assert "first token took 300 ms" in first
    assert "100 ms before" in first
    assert further is not None
    assert "each further token took 50 ms" in further
    assert judge([timed(180, 35) for _ in range(200)], old, MARGINS) is None


def test_a_few_slow_answers_among_quick_ones_are_none() -> None:
    old = [timed(100, 20) for _ in range(100)]
    assert judge([timed(2_000, 400)] * 9 + [timed(100, 20)] * 16, old, MARGINS) is None


def test_what_nobody_can_feel_is_no_reason() -> None:
    assert judge([timed(20, 1.5)] * 100, [timed(2, 0.1)] * 100, MARGINS) is None


def test_a_cold_cache_after_the_switch_is_not_held_against_a_version() -> None:
    """The first turn of each conversation on it reads everything anew; it is compared with others that did."""
    old = [timed(60, 20, unread=30)] * 100 + [timed(1_500, 20, unread=1_100)] * 10
    assert judge([timed(1_600, 20, unread=1_200)] * 30, old, MARGINS) is None
    assert judge([timed(4_000, 20, unread=1_200)] * 30, old, MARGINS) is not None
    assert judge([timed(9_000, 20, unread=30_000)] * 30, old, MARGINS) is None, "nothing to compare it with"


def test_more_company_than_before_is_not_held_against_a_version() -> None:
    old = [timed(100, 20, company=1.1)] * 200 + [timed(400, 70, company=15.0)] * 10
    assert judge([timed(420, 75, company=14.0)] * 30, old, MARGINS) is None
    assert judge([timed(420, 75, company=1.2)] * 30, old, MARGINS) is not None


def test_company_that_the_old_one_never_had_excuses_what_it_can_explain_and_no_more() -> None:
    old = [timed(100, 20, company=1.1)] * 200
    assert judge([timed(320, 60, company=3.9)] * 30, old, MARGINS) is None
    assert judge([timed(1600, 20, company=3.9)] * 30, old, MARGINS) is not None
    assert judge([timed(100, 160, company=3.9)] * 30, old, MARGINS) is not None


def test_company_is_what_ran_meanwhile_on_the_same_worker() -> None:
    one = Sample(worker="w-0", began=10.0, ended=20.0)
    spans = [("w-0", 10.0, 20.0), ("w-0", 15.0, 30.0), ("w-0", 0.0, 12.0), ("w-1", 0.0, 99.0), ("w-0", 40.0, 50.0)]
    [found] = accompanied([one], spans)
    assert found.company == pytest.approx(1 + 0.5 + 0.2)
    assert accompanied([Sample()], spans) == [Sample()]


def test_the_median_surely_exceeds_the_value_that_is_told() -> None:
    for of in (20, 50, 200):
        below = low_median(of)
        chance = sum(math.comb(of, k) for k in range(below + 1)) / 2**of
        assert 0.001 < chance < 0.02


# -- what is a sample


ASKED = Inbound(id="r", conversation="c", sender=Sender("s"), text="How are rainbows made?", kind="chat")
TURN = Turn(
    id="r", channel="web", conversation="c", inbound=ASKED, text="Sunlight is bent in drops of rain, twice.", model="m",
    version="2+ab", finished_at=1_000.0, worker="host-ab-0", usage=Usage(50, 11, 20),
    timings=Timings(5.0, 200.0, 1_200.0),
)  # fmt: skip


def test_a_turn_gives_what_is_compared() -> None:
    found = of_turn(TURN)
    assert found is not None
    assert (found.ok, found.empty, found.unread) == (True, False, 30)
    assert (found.first_ms, found.token_ms) == (200.0, 100.0)
    assert (found.began, found.ended, found.worker) == (998.8, 1_000.0, "host-ab-0")
    again = of_turn(replace(TURN, id="s", inbound=replace(ASKED, id="s", history=(Message("user", "Hello"),))))
    assert again is not None
    assert again.text == found.text != 0
    assert again.question != found.question


def problem(code: str) -> Turn:
    return replace(TURN, text="", finish="error", error=Problem(code, "no"))


def test_what_its_sender_did_or_stopped_is_no_sample() -> None:
    assert of_turn(replace(TURN, finish="cancelled", text="")) is None
    assert of_turn(replace(TURN, inbound=replace(ASKED, kind="embedding"), text="")) is None
    for code in ("context_overflow", "unsupported", "bad_format", "model_unloaded"):
        assert of_turn(problem(code)) is None
        assert of_failure(FailedAnswer(model="m", version="2", worker="w-0", at=1.0, code=code)) is None


def test_failures_empty_answers_and_loops_are_told_apart() -> None:
    failed = of_turn(problem("model_failed"))
    attempt = of_failure(FailedAnswer(model="m", version="2", worker="w-0", at=1.0, code="model_failed"))
    empty = of_turn(replace(TURN, text=" \n"))
    loop = of_turn(replace(TURN, text="I am sorry, I cannot. " * 20))
    assert failed is not None
    assert attempt is not None
    assert empty is not None
    assert loop is not None
    assert (failed.ok, attempt.ok, empty.empty, loop.repeats > 0.8) == (False, False, True, True)


def test_pictures_and_calls_of_tools_are_not_empty_answers() -> None:
    for turn in (
        replace(TURN, text="", inbound=replace(ASKED, kind="image")),
        replace(TURN, text="", finish="tool_calls"),
    ):
        found = of_turn(turn)
        assert found is not None
        assert found.empty is None


def test_a_shadow_answer_is_judged_without_its_times() -> None:
    answer = ShadowAnswer(model="m", version="2+ab", worker="w-0", at=1.0, text_chars=0, first_ms=9_999.0)
    assert of_shadow(answer).empty is True
    assert of_shadow(answer).first_ms is None
    assert of_shadow(replace(answer, ok=False)).ok is False
    assert of_shadow(replace(answer, text_chars=90, repeats=0.9)).repeats == 0.9
    old = [GOOD] * 100
    assert judge([of_shadow(replace(answer, text_chars=90, repeats=0.9))] * 20, old, MARGINS) is not None
    assert judge([of_shadow(replace(answer, text_chars=90))] * 20, old, MARGINS) is None
