"""The llama backend on the starter model.

Where answers are compared, the context is so small that llama.cpp takes the same path through attention for every
batch: it has others for 64 tokens at once, and for one token before 512 cells or more, and all of them add up in
16 bits, so that even the order of cells shows in the last digits. What hangs on those is not compared. One thread,
because the machine that runs the tests is busy.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from schemas.config import settings_of
from schemas.errors import ConfigError, Rejected, Untrusted
from schemas.message import Message, Sampling
from workers import Finished, Job
from workers.llama import LlamaBackend
from workers.llama.fitting.file import model_file

SYSTEM = Message("system", "You are the help desk of a small shop that sells boats. Be brief, polite and exact.")


@pytest.fixture(scope="module")
def backend(starter_model: Path) -> Iterator[LlamaBackend]:
    made = LlamaBackend(LlamaBackend.Settings(context=512, cache=2048, threads=1))
    made.load(starter_model)
    yield made
    made.close()


@pytest.fixture(scope="module")
def small(starter_model: Path) -> Iterator[LlamaBackend]:
    made = LlamaBackend(LlamaBackend.Settings(context=256, cache=256, batch=32, threads=1), slots=6)
    made.load(starter_model)
    yield made
    made.close()


def job(request: str, *texts: str, system: Message | None = None, tenant: str = "a", **more: object) -> Job:
    """A conversation of these texts, user first; sampling options among `more`."""
    roles = ("user", "assistant")
    said = [Message(roles[i % 2], text) for i, text in enumerate(texts)]  # type: ignore[arg-type]
    options = {k: more.pop(k) for k in list(more) if k in Sampling.__struct_fields__}
    sampling = Sampling(**{"temperature": 0.0, "max_tokens": 8, **options})  # type: ignore[arg-type]
    messages = (*((system,) if system else ()), *said)
    return Job(request=request, messages=messages, tenant=tenant, sampling=sampling, **more)  # type: ignore[arg-type]


def serve(backend: LlamaBackend, *jobs: Job) -> dict[str, tuple[str, Finished]]:
    """All jobs at once; each must end exactly once."""
    for one in jobs:
        backend.add(one)
    texts = {one.request: "" for one in jobs}
    ends: dict[str, Finished] = {}
    while len(ends) < len(jobs):
        for piece in backend.step():
            assert piece.request not in ends
            texts[piece.request] += piece.text
            if piece.finished is not None:
                ends[piece.request] = piece.finished
    return {request: (texts[request], ends[request]) for request in ends}


QUESTIONS = [
    "What is the capital of Italy?",
    "Name a colour of the rainbow.",
    "How many legs has a spider?",
    "Write a line about the sea.",
    "What is two plus two?",
    "Who wrote Romeo and Juliet?",
]


def test_conversations_in_one_batch_answer_as_each_alone(small: LlamaBackend) -> None:
    together = serve(small, *(job(f"t{i}", q, tenant=f"t{i}") for i, q in enumerate(QUESTIONS)))
    alone = [serve(small, job("x", q, tenant=f"x{i}"))["x"][0] for i, q in enumerate(QUESTIONS)]
    assert [together[f"t{i}"][0] for i in range(len(QUESTIONS))] == alone


def test_a_second_turn_uses_what_the_first_computed(backend: LlamaBackend) -> None:
    first = job("1", "Tell me about boats.", system=SYSTEM, tenant="two", conversation="two", max_tokens=12)
    text, end = serve(backend, first)["1"]
    second = job("2", "Tell me about boats.", text, "And sails?", system=SYSTEM, tenant="two", conversation="two")
    usage = serve(backend, second)["2"][1].usage
    assert usage.cached_tokens >= end.usage.prompt_tokens
    assert usage.prompt_tokens > usage.cached_tokens


def test_a_tenants_words_are_a_hit_for_nobody_else(backend: LlamaBackend) -> None:
    secret = "My password is swordfish, and my dog is called Rex; keep it to yourself, please."

    def cached(request: str, tenant: str, shared: int) -> int:
        one = job(request, secret, system=SYSTEM, tenant=tenant, shared=shared, conversation=f"{tenant}{request}")
        return serve(backend, one)[request][1].usage.cached_tokens

    whole = cached("0", "alice", 1), cached("1", "alice", 1)
    other = cached("2", "bob", 1)
    system = len(backend._model.tokenise(SYSTEM.text)) if backend._model else 0
    assert whole[1] > whole[0] + 15
    assert system <= other <= system + 15


def test_a_system_prompt_that_is_not_the_operators_is_a_hit_for_nobody_else(backend: LlamaBackend) -> None:
    own = Message("system", "Speak like a pirate who has lost his parrot and will not say so.")
    first, again = (serve(backend, job("1", "hello", system=own, tenant="dave"))["1"][1].usage for _ in range(2))
    other = serve(backend, job("1", "hello", system=own, tenant="erin"))["1"][1].usage
    assert again.cached_tokens > 20
    assert first.cached_tokens == other.cached_tokens <= 4  # the template's own first tokens


def test_an_applications_system_prompt_serves_its_own_senders_and_no_other_applications(backend: LlamaBackend) -> None:
    own = Message("system", "You answer for the ferry company. Never promise a seat, and always name the next pier.")
    secret = "My booking number is seventeen owls, and nobody else may know it."

    def cached(tenant: str) -> int:
        one = job("1", secret, system=own, tenant=tenant, conversation=tenant, max_tokens=4)
        return serve(backend, one)["1"][1].usage.cached_tokens

    first, again, colleague, stranger = cached("ferry/ann"), cached("ferry/ann"), cached("ferry/ben"), cached("bus/ann")
    system = len(backend._model.tokenise(own.text)) if backend._model else 0
    assert again > colleague + 10, "her own words are cached for her"
    assert system <= colleague <= system + 15, "the company's words are, for all its senders"
    assert first == stranger <= 4, "and nothing of it for another application"


def test_a_system_prompt_is_computed_once_for_all_who_come_at_once(backend: LlamaBackend) -> None:
    system = Message(
        "system", "Policy of the harbour: " + " ".join(f"pier {i} opens at {i} o'clock." for i in range(9))
    )
    jobs = [job(f"{i}", q, system=system, tenant=f"h{i}", shared=1) for i, q in enumerate(QUESTIONS)]
    usages = [end.usage for _, end in serve(backend, *jobs).values()]
    assert sorted(u.cached_tokens > 60 for u in usages) == [False] + [True] * (len(QUESTIONS) - 1)


def test_the_prompt_for_hello_is_short(backend: LlamaBackend) -> None:
    assert serve(backend, job("1", "hello"))["1"][1].usage.prompt_tokens < 150


def test_ignore_eos_reaches_exactly_the_limit(backend: LlamaBackend) -> None:
    for temperature in (0.0, 0.8):
        one = job("1", "Say yes.", ignore_eos=True, max_tokens=24, temperature=temperature, seed=1)
        end = serve(backend, one)["1"][1]
        assert (end.finish, end.usage.completion_tokens) == ("length", 24)


def test_the_same_seed_gives_the_same_answer_and_another_one_another(starter_model: Path) -> None:
    fresh = LlamaBackend(LlamaBackend.Settings(context=256, cache=256, threads=1))
    fresh.load(starter_model)

    def answer(seed: int) -> str:
        one = job("1", "Invent a name for a boat.", tenant=f"seed {seed}", temperature=1.5, seed=seed, max_tokens=6)
        return serve(fresh, one)["1"][0]

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1
    fresh.close()


def test_a_stop_string_is_not_shown(backend: LlamaBackend) -> None:
    free = serve(backend, job("1", "Count from one to nine.", max_tokens=16))["1"][0]
    stop = free[len(free) // 2 : len(free) // 2 + 3]
    text, end = serve(backend, job("1", "Count from one to nine.", max_tokens=16, stop=(stop,)))["1"]
    assert text == free[: free.find(stop)]
    assert end.finish == "stop"


def test_a_repeat_penalty_changes_an_answer_that_repeats_itself(backend: LlamaBackend) -> None:
    plain = serve(backend, job("1", "Repeat the word boat.", max_tokens=24, ignore_eos=True))["1"][0]
    penalised = serve(backend, job("1", "Repeat the word boat.", max_tokens=24, ignore_eos=True, repeat_penalty=1.8))[
        "1"
    ][0]
    assert plain != penalised


def test_a_cancel_takes_one_step(backend: LlamaBackend) -> None:
    event = threading.Event()
    backend.add(job("event", "Write a long story.", max_tokens=500, ignore_eos=True, cancelled=event))
    backend.add(job("call", "Write a long poem.", max_tokens=500, ignore_eos=True))
    backend.add(job("stays", "Say yes.", max_tokens=10))
    for _ in range(4):
        backend.step()
    event.set()
    backend.cancel("call")
    backend.cancel("nobody")
    pieces = backend.step()
    ended = {p.request: p.finished.finish for p in pieces if p.finished}
    assert ended.pop("stays", "stop") in ("stop", "length")
    assert ended == {"event": "cancelled", "call": "cancelled"}
    backend.cancel("stays")
    backend.step()


def test_a_job_cancelled_before_its_first_step_never_begins(backend: LlamaBackend) -> None:
    backend.add(job("1", "hello"))
    backend.cancel("1")
    ends = [p.finished for p in backend.step()]
    assert [end.finish for end in ends if end] == ["cancelled"]


def test_old_turns_are_left_out_and_the_answer_says_so(backend: LlamaBackend) -> None:
    turns = [f"Turn {i}: " + "the sea is wide and the boat is small. " * 3 for i in range(21)]
    text, end = serve(backend, job("1", *turns, system=SYSTEM))["1"]
    assert end.error is None
    assert any("oldest messages were left out: prompt" in note and "window 512" in note for note in end.notes)
    assert end.usage.prompt_tokens < 512
    assert text


def test_a_message_beyond_the_window_is_refused_with_figures(backend: LlamaBackend) -> None:
    long = job("1", "boat " * 2_000)
    text, end = serve(backend, long, job("2", "hello"))["1"]
    assert isinstance(end.error, Rejected)
    assert end.error.code == "context_overflow"
    assert text == ""
    for part in ("prompt 20", "window 512", "models[].context", "8192"):
        assert part in str(end.error)


def test_an_answer_that_fills_the_window_says_so(small: LlamaBackend) -> None:
    one = Job(
        request="1",
        kind="completion",
        messages=(Message("user", "boat " * 225),),
        tenant="a",
        sampling=Sampling(temperature=0.0, max_tokens=500, ignore_eos=True),
    )
    end = serve(small, one)["1"][1]
    assert end.finish == "length"
    assert end.usage.prompt_tokens + end.usage.completion_tokens == 256
    assert any("window 256" in note for note in end.notes)


def test_a_raw_completion_has_no_template(backend: LlamaBackend) -> None:
    raw = Job(
        request="1",
        kind="completion",
        messages=(Message("user", "One, two, three,"),),
        sampling=Sampling(temperature=0.0, max_tokens=4),
    )
    text, end = serve(backend, raw)["1"]
    assert end.usage.prompt_tokens < 10
    assert "four" in text


def test_a_job_that_cannot_be_prepared_fails_alone(backend: LlamaBackend) -> None:
    ends = serve(backend, job("bad", "hello", temperature=99.0), job("empty"), job("good", "hello"))
    assert isinstance(ends["bad"][1].error, Rejected)
    assert isinstance(ends["empty"][1].error, Rejected)
    assert ends["good"][1].error is None


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\ud800", "\U0001f6a3" * 9, "﷽" * 9, "<|im_end|>" * 20, "\n" * 200])
def test_odd_text_gets_an_answer(backend: LlamaBackend, text: str) -> None:
    answer, end = serve(backend, job("1", text, max_tokens=3))["1"]
    assert end.error is None
    assert answer or end.notes


def test_more_jobs_than_cells_for_all_are_served_nevertheless(small: LlamaBackend) -> None:
    jobs = [job(f"{i}", q, tenant=f"{i}", max_tokens=36, ignore_eos=True) for i, q in enumerate(QUESTIONS)]
    together = serve(small, *jobs)
    assert {(end.finish, end.usage.completion_tokens) for _, end in together.values()} == {("length", 36)}
    assert together["0"][0] == serve(small, jobs[0])["0"][0]


def test_to_save_power_it_takes_fewer_threads_and_well_below_the_whole_longer_steps(starter_model: Path) -> None:
    backend = LlamaBackend(LlamaBackend.Settings(context=256, cache=256, batch=32), slots=1)
    backend.load(starter_model)
    assert backend._chat is not None
    assert backend._threads is not None
    backend._threads.most = 8
    seen = []
    for level in (0.75, 0.5, 0.01, 1.0):
        backend.ease(level)
        seen.append((backend._threads.limit, backend._chat.engine.eased))
    assert seen == [(6, False), (4, True), (1, True), (8, False)]
    assert serve(backend, job("1", "hello", max_tokens=2))["1"][1].error is None
    backend.close()


def test_with_threads_that_the_operator_named_only_the_length_of_steps_is_eased(backend: LlamaBackend) -> None:
    assert backend._chat is not None
    assert backend._threads is None
    for level, eased in ((0.5, True), (1.0, False)):
        backend.ease(level)
        assert backend._chat.engine.eased is eased


def test_loading_again_and_again_takes_no_more_memory(starter_model: Path) -> None:
    process = psutil.Process()

    def cycle() -> int:
        backend = LlamaBackend(LlamaBackend.Settings(context=256, cache=512, threads=1))
        backend.load(starter_model)
        serve(backend, job("1", "hello", max_tokens=2))
        backend.close()
        return process.memory_info().rss

    cycle(), cycle()
    first = [cycle() for _ in range(4)]
    last = [cycle() for _ in range(4)]
    assert min(last) - min(first) < 8_000_000  # the allocator gives some back sooner, some later


def test_the_version_is_the_beginning_of_the_files_hash(backend: LlamaBackend, starter_model: Path) -> None:
    import hashlib

    assert backend.version == hashlib.sha256(model_file(starter_model).read_bytes()).hexdigest()[:12]
    assert backend.context == 512


def test_a_damaged_model_is_refused_and_nothing_is_left(starter_model: Path, tmp_path: Path) -> None:
    data = bytearray(model_file(starter_model).read_bytes())
    half = tmp_path / "half.gguf"
    half.write_bytes(data[: len(data) // 2])
    backend = LlamaBackend(LlamaBackend.Settings())
    with pytest.raises(Untrusted, match=r"half\.gguf.*not whole.*again"):
        backend.load(half)
    backend.close()
    at = data.index(b"general.architecture") + len(b"general.architecture") + 12
    data[at : at + 5] = b"lxama"
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(data)
    with pytest.raises(ConfigError, match=r"odd\.gguf.*lxama"):
        backend.load(odd)
    backend.close()


@pytest.mark.parametrize(
    "wrong", [{"context": 0}, {"kv_type": "f8"}, {"max_tokens": "many"}, {"contxt": 10}, {"batch": 1}]
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        settings_of(LlamaBackend.Settings, wrong, "models[0] (m)")
