"""What the backend does beside answering: embeddings, and summaries of what does not fit. On real models."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigError, Rejected
from schemas.message import Message, Sampling
from tests.workers.llama.tiny_bert import WIDTH, TinyBert
from workers import Finished, Job
from workers.llama import LlamaBackend

TURNS = [f"Turn {i}: " + "the sea is wide and the boat is small. " * 3 for i in range(21)]


@pytest.fixture(scope="module")
def backend(starter_model: Path) -> Iterator[LlamaBackend]:
    made = LlamaBackend(LlamaBackend.Settings(context=512, cache=2048, threads=1, overflow="summarise"))
    made.load(starter_model)
    yield made
    made.close()


def chat(request: str, *texts: str, tenant: str = "a", **more: object) -> Job:
    roles = ("user", "assistant")
    said = tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))  # type: ignore[arg-type]
    sampling = Sampling(temperature=0.0, max_tokens=8)
    return Job(request=request, messages=said, tenant=tenant, conversation=tenant, sampling=sampling, **more)  # type: ignore[arg-type]


def texts(request: str, *inputs: str) -> Job:
    return Job(request=request, messages=(), kind="embedding", inputs=inputs, tenant="a")


def serve(backend: LlamaBackend, *jobs: Job) -> dict[str, tuple[str, Finished]]:
    for one in jobs:
        backend.add(one)
    said = {one.request: "" for one in jobs}
    ends: dict[str, Finished] = {}
    while len(ends) < len(jobs):
        for piece in backend.step():
            said[piece.request] += piece.text
            if piece.finished is not None:
                assert piece.request not in ends
                ends[piece.request] = piece.finished
    return {request: (said[request], ends[request]) for request in ends}


def test_a_text_beyond_what_the_plan_granted_is_refused_with_figures_and_the_remedy(starter_model: Path) -> None:
    small = LlamaBackend(
        LlamaBackend.Settings(context=2048, cache=2048, threads=1, kv_type="f16", batch=64, pages_ram="0"), slots=1
    )
    roomy, limit = small.demand(starter_model, None), 0
    limit = roomy.total - 20_000_000
    demand = small.demand(starter_model, limit)
    assert demand.total <= limit
    small.load(starter_model)
    long, short = serve(small, texts("long", "sea " * 2_000), texts("short", "sea " * 400)).values()
    small.close()
    error = long[1].error
    assert isinstance(error, Rejected)
    assert error.code == "context_overflow"
    assert f"{demand.what.rpartition('up to ')[2].split()[0]} at most" in error.message
    assert "raise models[].memory or worker.memory" in error.message
    assert short[1].error is None


def test_answers_and_embeddings_are_made_side_by_side(backend: LlamaBackend) -> None:
    found = serve(backend, chat("say", "Say yes."), texts("read", "a cat", "a cat", "the bank"), texts("bad", "a", ""))
    assert found["say"][1].usage.completion_tokens > 0
    cat, same, bank = (np.frombuffer(v, "<f4") for v in found["read"][1].embeddings)
    assert cat @ same > 0.999 > cat @ bank
    assert isinstance(found["bad"][1].error, Rejected)
    assert "input[1]" in str(found["bad"][1].error)


def test_old_turns_are_summarised_before_the_answer_and_none_of_it_is_shown(backend: LlamaBackend) -> None:
    text, end = serve(backend, chat("long", *TURNS, tenant="s"))["long"]
    assert any("summarised: prompt" in note and "window 512" in note for note in end.notes)
    assert text
    assert end.usage.completion_tokens <= 8


def test_what_reads_is_cancelled_within_a_step(backend: LlamaBackend) -> None:
    event = threading.Event()
    backend.add(chat("summary", *TURNS[2:], tenant="t", cancelled=event))
    backend.add(texts("texts", *["the sea is wide " * 40] * 9))
    for _ in range(2):
        assert not backend.step()
    event.set()
    backend.cancel("texts")
    ends = [(p.request, p.finished.finish) for _ in range(2) for p in backend.step() if p.finished]
    assert sorted(ends) == [("summary", "cancelled"), ("texts", "cancelled")]


def test_an_encoder_is_loaded_for_embeddings_alone(tmp_path: Path) -> None:
    backend = LlamaBackend(LlamaBackend.Settings(threads=1))
    backend.load(TinyBert().write(tmp_path / "bert.gguf", 1))
    assert backend.kinds == {"embedding"}
    assert not backend.abilities
    found = serve(backend, texts("read", "sea", "the red boats"), chat("say", "hello"))
    assert [len(vector) for vector in found["read"][1].embeddings] == [4 * WIDTH] * 2
    assert isinstance(found["say"][1].error, Rejected)
    backend.close()


def test_a_model_that_only_ranks_is_refused(tmp_path: Path) -> None:
    backend = LlamaBackend(LlamaBackend.Settings(threads=1))
    with pytest.raises(ConfigError, match=r"bert\.gguf.*ranks"):
        backend.load(TinyBert().write(tmp_path / "bert.gguf", 4))
    backend.close()
