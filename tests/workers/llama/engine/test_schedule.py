"""Who computes what in the next step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.llama.engine.schedule import PIECE_MIN, Prompt, next_group, prompt_budget, share_out, victim

prompts_of = st.lists(st.integers(1, 3_000), max_size=20).map(lambda lefts: [Prompt(i, n) for i, n in enumerate(lefts)])


@given(prompts_of, st.integers(0, 600))
def test_shares_fit_the_budget_and_leave_nothing_unused(prompts: list[Prompt], budget: int) -> None:
    shares = share_out(prompts, budget)
    assert sum(s.tokens for s in shares) == min(budget, sum(p.left for p in prompts))
    left = {p.id: p.left for p in prompts}
    assert all(0 < s.tokens <= left[s.id] for s in shares)


@given(prompts_of.filter(bool), st.integers(1, 600))
def test_the_oldest_prompt_gets_at_least_half(prompts: list[Prompt], budget: int) -> None:
    first = share_out(prompts, budget)[0]
    assert first.id == prompts[0].id
    assert first.tokens >= min(prompts[0].left, (budget + 1) // 2)


def test_short_prompts_pass_a_long_one() -> None:
    shares = {s.id: s.tokens for s in share_out([Prompt(0, 2_000), Prompt(1, 1_500), Prompt(2, 10)], 64)}
    assert shares == {0: 32, 2: 10, 1: 22}


def test_a_long_prompt_ends_however_many_short_ones_arrive() -> None:
    left, steps = 1_000, 0
    while left:
        rivals = [Prompt(1_000 + steps * 8 + i, 5) for i in range(8)]
        left -= next(s.tokens for s in share_out([Prompt(0, left), *rivals], 32) if s.id == 0)
        steps += 1
    assert steps <= 63


@given(st.integers(0, 64), st.integers(0, 5_000), st.integers(64, 4_096))
def test_prompts_always_advance_and_the_batch_is_never_too_large(running: int, fit: int, batch: int) -> None:
    budget = prompt_budget(running, fit, batch)
    assert budget + running <= max(batch, running)
    assert budget >= min(PIECE_MIN, batch - running)
    assert budget + running <= fit or budget <= PIECE_MIN or fit == 0


def test_of_groups_the_one_that_waited_longest_is_next() -> None:
    assert next_group({"a", "b"}, {"a": 5, "b": 3}) == "b"
    assert next_group({"a", "b", "c"}, {"a": 5, "b": 3}) == "c"
    assert next_group(set(), {}) == ""


def test_the_newest_gives_way_and_the_last_one_never() -> None:
    assert victim([(7, 3), (1, 9), (4, 5)]) == 1
    assert victim([(7, 3)]) is None
