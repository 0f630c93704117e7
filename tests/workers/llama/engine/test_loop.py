"""The step loop over a machine that checks every cell."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.message import Usage
from tests.workers.llama.machines import END, FakeMachine, next_token
from workers import Finished, Piece
from workers.llama.engine.cells import IDLE_STEPS_MAX, LOOK_STEPS
from workers.llama.engine.loop import EASED_STEP_S, QUIET_STEP_S, STEP_S, TILE, Engine
from workers.llama.engine.machine import SamplerSpec
from workers.llama.engine.paging import Pages
from workers.llama.engine.request import Work


def work(
    request: str,
    tokens: Sequence[int],
    *,
    operator: int = 0,
    owner: str = "tenant a",
    conversation: str = "",
    reply_max: int = 8,
    ban_end: bool = False,
    stops: tuple[str, ...] = (),
    adapter: str = "",
    choice: int = 0,
) -> Work:
    return Work(
        request=request,
        tokens=array("i", tokens),
        operator=operator,
        owner=owner,
        conversation=conversation or request,
        sampler=SamplerSpec(ban_end=ban_end),
        stops=stops,
        reply_max=reply_max,
        adapter=adapter,
        choice=choice,
    )


def alone(w: Work, sees: int = 0) -> tuple[str, str]:
    """The answer and its end that `w` must get, whoever is served beside it."""
    history = list(w.tokens)
    text = ""
    for _ in range(w.reply_max):
        token = next_token(history, w.sampler.ban_end, adapter=w.adapter, sees=sees)
        if token == END:
            return text, "stop"
        history.append(token)
        text += f"{token} "
    return text, "length"


class Answers:
    """Collects pieces and checks that each request ends exactly once."""

    def __init__(self) -> None:
        self.text: dict[str, str] = {}
        self.finished: dict[str, Finished] = {}

    def take(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            assert piece.request not in self.finished
            self.text[piece.request] = self.text.get(piece.request, "") + piece.text
            if piece.finished is not None:
                self.finished[piece.request] = piece.finished

    def usage(self, request: str) -> Usage:
        return self.finished[request].usage


def run(engine: Engine, answers: Answers | None = None, steps_max: int = 2_000) -> Answers:
    answers = answers or Answers()
    for _ in range(steps_max):
        if not engine.busy:
            return answers
        answers.take(engine.step())
    raise AssertionError("the engine does not come to an end")


tokens_of = st.lists(st.integers(1, 4), min_size=1, max_size=24)
jobs_of = st.lists(
    st.tuples(
        tokens_of,
        st.sampled_from("ab"),
        st.integers(0, 12),
        st.integers(1, 12),
        st.integers(0, 6),
        st.sampled_from(["", "", "red", "blue"]),
    ),
    min_size=1,
    max_size=12,
)
Jobs = list[tuple[list[int], str, int, int, int, str]]


@settings(max_examples=200, deadline=None)
@given(jobs_of, st.integers(40, 80), st.integers(1, 16), st.sampled_from([0, 1, 2]))
def test_every_answer_is_what_it_would_be_alone(jobs: Jobs, cells: int, batch: int, sees: int) -> None:
    """Beside others, with drafts (a machine that sees little repeats itself), adapters and too few cells."""
    machine = FakeMachine(cells=cells, sequences=14, batch_max=max(batch, 12), sees=sees)
    engine = Engine(machine, clock=lambda: 0.001 * len(machine.batches))  # a step takes 1 ms, whatever is in it
    answers, expected = Answers(), {}
    for i, (tokens, tenant, operator, reply_max, pause, adapter) in enumerate(jobs):
        w = work(
            str(i),
            tokens,
            operator=min(operator, len(tokens)),
            owner=tenant,
            conversation=tenant,
            reply_max=reply_max,
            adapter=adapter,
        )
        expected[str(i)] = alone(w, sees)
        engine.add(w)
        for _ in range(pause):
            answers.take(engine.step())
    run(engine, answers)
    assert {k: (answers.text[k], f.finish) for k, f in answers.finished.items()} == expected
    assert machine.open_samplers == 0
    assert machine.used == engine.cells_used


def test_a_second_turn_computes_only_what_is_new() -> None:
    engine = Engine(FakeMachine(cells=200))
    first = work("1", [1, 2, 3, 4, 5, 6], reply_max=4, ban_end=True, conversation="c")
    answers = run_all(engine, first)
    said = [int(t) for t in answers.text["1"].split()]
    engine.add(work("2", [1, 2, 3, 4, 5, 6, *said, 7, 8], conversation="c"))
    run(engine, answers)
    assert answers.usage("2").cached_tokens == 6 + len(said) - 1


def run_all(engine: Engine, *works: Work) -> Answers:
    for w in works:
        engine.add(w)
    return run(engine)


def test_another_tenants_words_are_never_a_hit_but_the_operators_are() -> None:
    engine = Engine(FakeMachine(cells=200))
    tokens = list(range(1, 41))
    answers = run_all(engine, work("1", tokens, operator=3, owner="tenant a"))
    engine.add(work("2", tokens, operator=3, owner="tenant b"))
    run(engine, answers)
    engine.add(work("3", tokens, operator=3, owner="tenant a"))
    run(engine, answers)
    assert [answers.usage(r).cached_tokens for r in "123"] == [0, 3, 39]


def test_the_operators_part_serves_others_also_where_a_sender_began_with_words_of_its_own() -> None:
    engine = Engine(FakeMachine(cells=400, batch_max=64))
    answers = run_all(engine, work("1", [1, 2, 3, 30, 31], owner="tenant a", conversation="x"))
    system = [1, 2, 3, *range(4, 40)]
    run_all_more(engine, answers, work("2", [*system, 41], operator=39, owner="tenant a", conversation="y"))
    run_all_more(engine, answers, work("3", [*system, 42], operator=39, owner="tenant b"))
    assert answers.usage("3").cached_tokens == 39


def test_requests_that_begin_alike_at_the_same_moment_compute_the_prefix_once() -> None:
    machine = FakeMachine(cells=400, sequences=10, batch_max=12)
    engine = Engine(machine)
    prefix = list(range(1, 41))
    run_all(engine, *(work(str(i), [*prefix, i + 1, 3], operator=40, owner=f"tenant {i}") for i in range(6)))
    computed = sum(len(row.tokens) for batch in machine.batches for row in batch if row.start < 40)
    assert computed <= 40 + 12


def test_when_the_first_of_them_is_cancelled_the_next_takes_over() -> None:
    engine = Engine(FakeMachine(cells=400, sequences=10, batch_max=12))
    prefix = list(range(1, 41))
    first, second = (work(str(i), [*prefix, i + 1], operator=40, owner=f"tenant {i}") for i in range(2))
    engine.add(first)
    engine.add(second)
    answers = Answers()
    answers.take(engine.step())
    engine.cancel("0")
    run(engine, answers)
    assert answers.finished["0"].finish == "cancelled"
    assert answers.text["1"] == alone(second)[0]
    assert answers.usage("1").cached_tokens > 0


def test_a_cancelled_request_ends_with_the_next_step_and_the_others_go_on() -> None:
    engine = Engine(FakeMachine(cells=200))
    works = [work(str(i), [i + 1, 2, 3], reply_max=30, ban_end=True) for i in range(3)]
    for w in works:
        engine.add(w)
    answers = Answers()
    for _ in range(5):
        answers.take(engine.step())
    engine.cancel("1")
    pieces = engine.step()
    assert [p.finished.finish for p in pieces if p.request == "1" and p.finished] == ["cancelled"]
    answers.take(pieces)
    run(engine, answers)
    assert answers.text["0"] == alone(works[0])[0]
    assert answers.text["2"] == alone(works[2])[0]


def test_a_request_that_cannot_be_computed_fails_alone() -> None:
    engine = Engine(FakeMachine(cells=200, bad=[49]))
    good = work("good", [1, 2, 3], reply_max=6, ban_end=True)
    bad = work("bad", [1, 2, 49, 3])
    good_text = alone(good)[0]
    assert "49 " not in good_text
    answers = run_all(engine, good, bad)
    assert answers.finished["bad"].finish == "error"
    assert answers.finished["bad"].error is not None
    assert answers.text["good"] == good_text


@pytest.mark.parametrize("refusals", [1, 3])
def test_a_context_without_cells_costs_time_but_no_answer(refusals: int) -> None:
    machine = FakeMachine(cells=200)
    engine = Engine(machine)
    works = [work(str(i), [i + 1, 2, 3], reply_max=6) for i in range(4)]
    for w in works:
        engine.add(w)
    answers = Answers()
    answers.take(engine.step())
    machine.refuse = refusals
    run(engine, answers)
    assert answers.text == {w.request: alone(w)[0] for w in works}


def test_answers_get_their_token_in_every_step_while_a_long_prompt_is_computed() -> None:
    machine = FakeMachine(cells=4_000, batch_max=64)
    engine = Engine(machine)
    engine.add(work("short", [1], reply_max=40, ban_end=True))
    engine.step()
    engine.add(work("long", [2] * 1_000))
    for _ in range(20):
        engine.step()
        assert any(len(row.tokens) == 1 and row.seq == 0 for row in machine.batches[-1])


def sizes_with_a_prompt(engine: Engine, machine: FakeMachine, *, beside: bool) -> list[int]:
    """Tokens of each of 16 steps while a long prompt is computed, alone or beside an answer."""
    if beside:
        engine.add(work("answer", [1], reply_max=100, ban_end=True))
        engine.step()
    engine.add(work("long", [2] * 3_000))
    for _ in range(16):
        engine.step()
    return [sum(len(row.tokens) for row in batch) for batch in machine.batches]


def test_a_step_takes_no_more_of_a_prompt_than_fits_its_time() -> None:
    machine = FakeMachine(cells=4_000, batch_max=TILE - 1)
    engine = Engine(machine, clock=lambda: 0.01 * machine.computed)  # a token takes 10 ms
    engine.add(work("long", [2] * 900))
    for _ in range(20):
        engine.step()
    sizes = [len(batch[0].tokens) for batch in machine.batches if not batch[0].want]
    assert len(sizes) > 10
    assert all(0.95 * QUIET_STEP_S <= size * 0.01 <= QUIET_STEP_S for size in sizes[2:])


@pytest.mark.parametrize(("token_s", "beside", "size"), [
    (0.004, False, TILE), (0.001, True, 120), (0.02, True, 9), (0.02, False, 12),
])  # fmt: skip
def test_a_prompt_is_stretched_to_a_tile_of_attention_where_that_takes_no_more_than_its_time(
    token_s: float, beside: bool, size: int
) -> None:
    machine = FakeMachine(cells=8_000, batch_max=512)
    engine = Engine(machine, draft=False, clock=lambda: token_s * machine.computed)
    engine.warm_up(array("i", [1]))
    sizes = sizes_with_a_prompt(engine, machine, beside=beside)
    assert all(0.9 * size <= found <= size for found in sizes[-8:])
    assert len(machine.batches[-1]) == 1 + beside


def test_a_tile_of_a_prompt_is_computed_apart_from_the_answers_in_the_same_step() -> None:
    machine = FakeMachine(cells=8_000, batch_max=512)
    engine = Engine(machine, draft=False, clock=lambda: 0.004 * machine.computed)
    sizes = sizes_with_a_prompt(engine, machine, beside=True)
    assert sizes[-8:] == [1, TILE] * 4
    assert len(sizes) > 2 * 14, "a step is no longer a token of the answer and a tile of the prompt"


def test_a_prompt_that_is_preempted_for_the_answers_of_its_step_is_computed_later() -> None:
    machine = FakeMachine(cells=8_000, batch_max=512)
    engine = Engine(machine, draft=False, clock=lambda: 0.004 * machine.computed)
    works = [work("answer", [1], reply_max=30, ban_end=True), work("long", [2] * 300, owner="other", ban_end=True)]
    for w in works:
        engine.add(w)
    answers = Answers()
    while len(machine.batches) < 4:
        answers.take(engine.step())
    machine.refuse = 1  # the answers of the next step, so that its prompt has to leave
    answers.take(engine.step())
    assert machine.refuse == 0
    assert run(engine, answers).text == {w.request: alone(w)[0] for w in works}


def test_answers_alone_take_no_part_in_a_tile() -> None:
    machine = FakeMachine(cells=4_000, batch_max=512)
    engine = Engine(machine, draft=False, clock=lambda: 0.004 * machine.computed)
    engine.add(work("answer", [1], reply_max=8, ban_end=True))
    run(engine)
    assert all(len(row.tokens) == 1 for batch in machine.batches for row in batch)


@pytest.mark.parametrize(("eased", "beside", "step_s"), [
    (False, False, QUIET_STEP_S), (False, True, STEP_S), (True, False, EASED_STEP_S), (True, True, EASED_STEP_S),
])  # fmt: skip
def test_to_save_power_steps_take_longer_with_and_without_answers_beside(
    eased: bool, beside: bool, step_s: float
) -> None:
    machine = FakeMachine(cells=8_000, batch_max=TILE - 1)
    engine = Engine(machine, draft=False, clock=lambda: 0.01 * machine.computed)  # a token takes 10 ms
    engine.eased = eased
    sizes = sizes_with_a_prompt(engine, machine, beside=beside)
    assert all(0.9 * step_s <= size * 0.01 <= step_s for size in sizes[6:])


@pytest.mark.parametrize(("slots", "answers"), [(1, [1]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])])
def test_warm_steps_have_up_to_as_many_answers_as_there_are_slots(slots: int, answers: list[int]) -> None:
    machine = FakeMachine(cells=400, sequences=50, batch_max=64)
    Engine(machine).warm_shapes(work("", [1]).tokens, slots)
    *shapes, piece = machine.batches
    assert [len(batch) for batch in shapes] == answers
    assert [len(row.tokens) for row in piece] == [32]
    assert machine.used == 0


def test_without_reuse_nothing_stays_in_the_context() -> None:
    machine = FakeMachine(cells=200)
    engine = Engine(machine, reuse=False)
    answers = run_all(engine, work("1", [1, 2, 3]), work("2", [1, 2, 3]))
    assert machine.used == 0
    assert answers.usage("2").cached_tokens == 0


def test_a_conversation_that_is_idle_while_others_are_answered_leaves_the_operators_words_and_comes_back() -> None:
    machine = FakeMachine(cells=2_000, sequences=8, batch_max=512)
    engine = Engine(machine, pages=Pages(1_000_000, 0, None), draft=False)
    operator = list(range(1, 41))

    def turn(request: str, owner: str, tokens: list[int], reply: int) -> Work:
        return work(
            request, operator + tokens, operator=40, owner=owner, conversation=owner, reply_max=reply, ban_end=True
        )

    first, second = turn("1", "a", [5] * 100, 4), turn("2", "b", [6] * 100, 4)
    answers = run_all(engine, first, second)
    held = machine.used
    assert held > 240
    other = work("3", [3], owner="c", reply_max=IDLE_STEPS_MAX + LOOK_STEPS, ban_end=True)
    run_all_more(engine, answers, other)
    assert machine.used == engine.cells_used < 40 + 1 + other.reply_max
    run_all_more(engine, answers, turn("4", "new", [7], 2))
    assert answers.usage("4").cached_tokens == 40
    again = turn("5", "a", [5] * 100 + [8, 9], 4)
    run_all_more(engine, answers, again)
    assert (machine.restored, answers.usage("5").cached_tokens) == (1, 140)
    assert answers.text["5"] == alone(again)[0]


@pytest.mark.parametrize("ram", [0, 90], ids=["no pages", "too small for it"])
def test_an_idle_conversation_that_cannot_be_paged_out_stays(ram: int) -> None:
    machine = FakeMachine(cells=2_000, sequences=8, batch_max=512)
    engine = Engine(machine, pages=Pages(ram, 0, None), draft=False)
    first = work("1", [5] * 100, owner="a", conversation="a", reply_max=4, ban_end=True)
    answers = run_all(engine, first)
    run_all_more(engine, answers, work("2", [3], owner="b", reply_max=IDLE_STEPS_MAX + 2 * LOOK_STEPS, ban_end=True))
    run_all_more(engine, answers, work("3", [5] * 100 + [8], owner="a", conversation="a", reply_max=2))
    assert answers.usage("3").cached_tokens == 100


def test_an_answer_without_a_word_says_so() -> None:
    tokens = next([n] for n in range(1, 500) if next_token([n]) == END)
    answers = run_all(Engine(FakeMachine()), work("1", tokens))
    assert answers.finished["1"].finish == "stop"
    assert answers.finished["1"].notes


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it() -> None:
    free = work("1", [1, 2], reply_max=8, ban_end=True)
    words = alone(free)[0].split()
    answers = run_all(Engine(FakeMachine()), work("1", [1, 2], reply_max=8, ban_end=True, stops=(f" {words[3]} ",)))
    assert answers.text["1"] == alone(free)[0].partition(f" {words[3]} ")[0]
    assert answers.finished["1"].finish == "stop"


def test_idle_conversations_give_way_and_the_operators_prefix_stays_longest() -> None:
    machine = FakeMachine(cells=64, sequences=12, batch_max=32)
    engine = Engine(machine)
    answers = Answers()
    for i in range(20):
        engine.add(
            work(
                str(i), [*range(1, 21), 21 + i, 3, 4, 5, 6, 7, 8, 9, 10], operator=20, owner=f"tenant {i}", reply_max=3
            )
        )
        run(engine, answers)
    assert answers.usage("0").cached_tokens == 0
    assert {answers.usage(str(i)).cached_tokens for i in range(1, 20)} == {20}


def test_drafts_bring_several_tokens_a_step_where_an_answer_repeats_itself() -> None:
    machine = FakeMachine(cells=400, batch_max=64, sees=1)
    engine = Engine(machine, clock=lambda: 0.001 * len(machine.batches))
    wanted = work("1", [1, 2, 3], reply_max=120, ban_end=True)
    answers = run_all(engine, wanted)
    assert answers.text["1"] == alone(wanted, 1)[0]
    assert len(machine.batches) < 70
    assert machine.used == engine.cells_used == 3 + 120 - 1


def test_drafts_are_left_alone_where_they_do_not_pay() -> None:
    machine = FakeMachine(cells=400, batch_max=64, sees=1)
    engine = Engine(machine, clock=lambda: 0.001 * machine.computed)  # a token takes 1 ms: nothing is gained together
    run_all(engine, work("1", [1, 2, 3], reply_max=120, ban_end=True))
    assert machine.computed < 3 + 120 + 12


def test_of_two_adapters_each_gets_its_turn_and_a_batch_holds_one() -> None:
    machine = FakeMachine(cells=400, batch_max=64)
    engine = Engine(machine, draft=False)
    works = [work(str(i), [1, 2, 3], reply_max=10, ban_end=True, adapter="red" if i else "") for i in range(3)]
    answers = run_all(engine, *works)
    assert {w.request: alone(w)[0] for w in works} == answers.text
    assert len(machine.batches) <= 2 * 11 + 2
    assert alone(works[0])[0] != alone(works[1])[0]


def test_a_conversation_that_lost_its_cells_comes_back_without_being_computed_again() -> None:
    machine = FakeMachine(cells=300, sequences=6, batch_max=64)
    engine = Engine(machine, pages=Pages(1_000_000, 0, None))
    first = work("first", [n % 40 + 1 for n in range(150)], reply_max=3, ban_end=True, conversation="c")
    answers = run_all(engine, first)
    for i in range(10):
        engine.add(work(str(i), [i + 1, *range(1, 140)], owner=f"tenant {i}", reply_max=2))
        run(engine, answers)
    said = [int(t) for t in answers.text["first"].split()]
    again = work("again", [*first.tokens, *said, 7, 8], conversation="c", reply_max=3)
    assert run_all_more(engine, answers, again).text["again"] == alone(again)[0]
    assert answers.usage("again").cached_tokens == 150 + 3 - 1
    assert machine.restored == 1
    stranger = work("stranger", list(again.tokens), owner="tenant b", reply_max=3)
    assert run_all_more(engine, answers, stranger).usage("stranger").cached_tokens == 0
    assert machine.used == engine.cells_used


def run_all_more(engine: Engine, answers: Answers, *works: Work) -> Answers:
    for w in works:
        engine.add(w)
    return run(engine, answers)


def test_a_pre_empted_answer_goes_on_where_it_was() -> None:
    machine = FakeMachine(cells=330, sequences=6, batch_max=64)
    engine = Engine(machine, pages=Pages(1_000_000, 0, None), draft=False)
    works = [work(str(i), [i + 1, *range(1, 80)], owner=f"tenant {i}", reply_max=100, ban_end=True) for i in range(3)]
    answers = run_all(engine, *works)
    assert answers.text == {w.request: alone(w)[0] for w in works}
    assert machine.restored > 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from("abc"), st.integers(1, 200), st.sampled_from(["", "red"])),
        min_size=1,
        max_size=14,
    ),
    st.integers(0, 3_000),
)
def test_paging_never_changes_an_answer(jobs: list[tuple[int, str, int, str]], ram: int) -> None:
    machine = FakeMachine(cells=320, sequences=8, batch_max=32)
    engine = Engine(machine, pages=Pages(ram, 0, None))
    answers, expected = Answers(), {}
    for i, (kind, tenant, length, adapter) in enumerate(jobs):
        tokens = [kind, *(n % 7 + 1 for n in range(length))]
        w = work(str(i), tokens, operator=length // 2, owner=tenant, conversation=tenant, reply_max=5, adapter=adapter)
        expected[str(i)] = alone(w)
        engine.add(w)
        if i % 3 == 0:
            run(engine, answers)
    run(engine, answers)
    assert {k: (answers.text[k], f.finish) for k, f in answers.finished.items()} == expected
    assert machine.used == engine.cells_used
    assert machine.open_samplers == 0
