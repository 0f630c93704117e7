"""What the engine keeps of a real model: paged conversations, adapters, several answers, and memory given back."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from schemas.config import AdapterConfig
from schemas.errors import ConfigError, Rejected
from schemas.message import Message, Sampling
from tests.workers.llama.test_backend import SYSTEM, job, serve
from workers import Piece
from workers.llama import LlamaBackend
from workers.llama.engine.loop import Engine
from workers.llama.engine.machine import SamplerSpec
from workers.llama.engine.request import Work
from workers.llama.fitting.file import model_file

LONG = " ".join(f"On day {n} the boat {n % 7} was sold to the man from house {n}." for n in range(9))


@pytest.fixture
def paged(starter_model: Path, tmp_path: Path) -> Iterator[LlamaBackend]:
    settings = LlamaBackend.Settings(context=512, cache=512, threads=1, pages_ram="16 MB", draft=False)
    made = LlamaBackend(settings, slots=2)
    made.scratch = tmp_path
    made.load(starter_model)
    yield made
    made.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("others", [2, 5])
def test_a_conversation_comes_back_from_ram_and_from_disk(paged: LlamaBackend, tmp_path: Path, others: int) -> None:
    first = serve(paged, job("first", LONG, system=SYSTEM, tenant="a", conversation="c"))["first"][0]
    for i in range(others):
        serve(paged, job(f"o{i}", f"{i} {LONG}", system=SYSTEM, tenant=f"t{i}", conversation=f"o{i}", max_tokens=2))
    on_disk = len(list(tmp_path.iterdir()))
    assert (on_disk > 0) == (others > 2)
    again = job("again", LONG, first, "And then?", system=SYSTEM, tenant="a", conversation="c")
    text, finished = serve(paged, again)["again"]
    assert finished.usage.cached_tokens > 200
    assert text
    stranger = job("stranger", LONG, first, "And then?", system=SYSTEM, tenant="b", conversation="c")
    assert serve(paged, stranger)["stranger"][1].usage.cached_tokens < 100


def test_a_restored_state_is_the_same_to_the_bit(starter_model: Path) -> None:
    from workers.llama.engine.machine import Row
    from workers.llama.native import native

    model = native.NativeModel(model_file(starter_model))
    machine = native.NativeMachine(model, native.ContextSpec(cells=512, sequences=4, batch_max=128, threads=1))
    tokens = model.tokenise("The old boat lies in the harbour and waits for the tide.")
    machine.compute([Row(0, 0, tokens, 1)])
    state = bytes(machine.save(0))
    assert machine.restore(2, state)
    machine.cut(0, 0)
    again = bytes(machine.save(2))
    named = [i for i, (a, b) in enumerate(zip(again, state, strict=True)) if a != b]
    assert len(named) <= 1 + len(tokens)  # a copy tells the number of its own sequence
    assert machine.restore(0, again)
    assert bytes(machine.save(0)) == state
    assert not machine.restore(1, state[:-50])
    assert bytes(machine.save(0)) == state
    machine.close()
    model.close()


def test_several_answers_differ_and_count_the_prompt_once(paged: LlamaBackend) -> None:
    asked = job("n", "Tell me a word.", n=3, temperature=1.5, seed=5, max_tokens=12)
    paged.add(asked)
    streamed = ["", "", ""]
    finished = None
    while finished is None:
        for piece in paged.step():
            streamed[piece.choice] += piece.text
            finished = piece.finished
    texts = [choice.text for choice in finished.more]
    assert texts == streamed[1:]
    assert len(set(streamed)) == 3
    assert finished.usage.completion_tokens > 12
    assert finished.usage.prompt_tokens == serve(paged, job("1", "Tell me a word."))["1"][1].usage.prompt_tokens


def test_drafts_do_not_change_an_answer_and_save_steps(starter_model: Path) -> None:
    """On a clock for which every step takes as long, so that drafts pay whatever this machine is like."""
    from workers.llama.native import native

    model = native.NativeModel(model_file(starter_model))
    asked = "red boat, blue boat, red boat, blue boat, red boat, blue boat, red boat, blue boat, red"
    texts, counts = {}, {}
    for draft in (False, True):
        machine = native.NativeMachine(model, native.ContextSpec(cells=512, sequences=4, batch_max=64, threads=1))
        ticks = itertools.count()
        engine = Engine(machine, draft=draft, clock=lambda ticks=ticks: next(ticks) / 100)
        engine.add(
            Work(
                request="r",
                tokens=model.tokenise(asked),
                operator=0,
                owner="a",
                conversation="c",
                sampler=SamplerSpec(ban_end=True),
                stops=(),
                reply_max=40,
            )
        )
        pieces: list[Piece] = []
        counts[draft] = 0
        while engine.busy:
            pieces.extend(engine.step())
            counts[draft] += 1
        texts[draft] = "".join(piece.text for piece in pieces)
        engine.close()
        machine.close()
    model.close()
    assert texts[True][:80] == texts[False][:80]
    assert counts[True] < 0.8 * counts[False]


def lora(path: Path, model: Path, scale: float) -> Path:
    """An adapter with random numbers for the queries of all layers of the model."""
    import gguf

    reader = gguf.GGUFReader(model_file(model))
    shapes = {t.name: t.shape for t in reader.tensors if t.name.endswith("attn_q.weight")}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    random = np.random.default_rng(7)
    for name, (inner, outer) in shapes.items():
        writer.add_tensor(f"{name}.lora_a", (scale * random.standard_normal((4, int(inner)))).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", (scale * random.standard_normal((int(outer), 4))).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_each_request_gets_its_adapter_also_beside_others(starter_model: Path, tmp_path: Path) -> None:
    strong = lora(tmp_path / "strong.gguf", starter_model, 0.3)
    backend = LlamaBackend(LlamaBackend.Settings(context=256, cache=1024, threads=1, draft=False), slots=4)
    backend.adapters = (AdapterConfig(path=str(strong), name="strong"),)
    backend.load(starter_model)
    try:
        plain = serve(backend, job("p", "Where is the sea?", conversation="1"))["p"][0]
        bent = serve(backend, job("s", "Where is the sea?", conversation="2", adapter="strong", max_tokens=3))["s"]
        assert bent[0] != plain
        assert bent[1].usage.cached_tokens == 0
        both = serve(
            backend,
            job("p2", "Where is the sea?", conversation="3"),
            job("s2", "Where is the sea?", conversation="4", adapter="strong", max_tokens=3),
        )
        assert both["p2"][0] == plain
        assert both["s2"][0] == bent[0]
        assert both["s2"][1].usage.cached_tokens > 0
        wrong = serve(backend, job("x", "Hi", adapter="weak"))["x"][1]
        assert isinstance(wrong.error, Rejected)
        assert "strong" in wrong.error.message
    finally:
        backend.close()


def test_an_adapter_of_another_model_is_refused_by_name(starter_model: Path, tmp_path: Path) -> None:
    backend = LlamaBackend(LlamaBackend.Settings(context=256, cache=256, threads=1), slots=1)
    backend.adapters = (AdapterConfig(path=str(model_file(starter_model))),)
    with pytest.raises(ConfigError, match=r"\.gguf"):
        backend.load(starter_model)


@pytest.mark.timeout(300)
def test_fifty_loads_leave_no_memory_behind(starter_model: Path) -> None:
    me = psutil.Process()
    settings = LlamaBackend.Settings(context=256, cache=512, threads=1, max_tokens=4)
    sizes = []
    for n in range(50):
        backend = LlamaBackend(settings, slots=2)
        backend.load(starter_model)
        serve(backend, job(f"{n}", "Hello boat", seed=n, temperature=0.5, max_tokens=4))
        backend.close()
        gc.collect()
        sizes.append(me.memory_info().rss)
    assert sizes[-1] <= 1.02 * sizes[9]


def test_the_messages_of_a_job_keep_their_order(paged: LlamaBackend) -> None:
    from workers import Job

    said = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))
    one = Job(request="o", messages=said, tenant="a", sampling=Sampling(max_tokens=2, temperature=0.0))
    assert serve(paged, one)["o"][1].error is None
