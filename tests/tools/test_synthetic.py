"""The generator of model-shaped files: llama.cpp accepts them, and they are what their shape says."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import Llama
from msgspec.structs import replace

from schemas import gguf
from tests.tools.synthetic import SHAPES, TYPES, Shape, tensors, write

TINY = SHAPES["tiny"]


@pytest.fixture(scope="module", params=sorted(TYPES))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / f"{request.param}.gguf"
    write(path, TINY, request.param, starter=starter_model)
    return path


def test_the_header_says_the_shape(tiny: Path) -> None:
    data = tiny.read_bytes()
    header = gguf.read(data, len(data))
    assert header.number("block_count") == TINY.layers
    assert header.number("embedding_length") == TINY.width
    assert header.number("attention.head_count_kv") == TINY.heads_kv
    assert header.number("vocab_size") == TINY.vocabulary
    assert [t.name for t in header.tensors] == [t.name for t in tensors(TINY, TYPES[tiny.stem])]
    assert len(data) - header.weight_bytes < 200_000  # nothing but the header beside the weights
    assert "im_start" in header.text("tokenizer.chat_template")


def test_llama_cpp_loads_it_and_the_logits_are_finite_and_spread(tiny: Path) -> None:
    with contextlib.closing(Llama(str(tiny), n_ctx=128, n_batch=64, logits_all=True, verbose=False)) as model:
        tokens = model.tokenize(b"hello small world", add_bos=False)
        assert max(tokens) < TINY.vocabulary
        model.eval(tokens)
        logits = np.array(model.scores[: len(tokens)])
        assert logits.shape[1] == TINY.vocabulary
        assert np.isfinite(logits).all()
        assert 0.1 < logits.std() < 100
        assert len(set(logits[-1].tolist())) > 0.9 * TINY.vocabulary  # no two rows of the output matrix are alike
        answer = model.create_chat_completion([{"role": "user", "content": "hello"}], max_tokens=8, temperature=0)
        assert answer["usage"]["completion_tokens"] > 0


def test_a_vocabulary_larger_than_the_starters_is_padded(tmp_path: Path, starter_model: Path) -> None:
    shape = replace(TINY, vocabulary=49_200)
    write(tmp_path / "wide.gguf", shape, starter=starter_model)
    with contextlib.closing(Llama(str(tmp_path / "wide.gguf"), vocab_only=True, verbose=False)) as model:
        assert model.n_vocab() == 49_200
        text = b"A tale of the lighthouse: 42 ships, \xe4\xb8\xad\xe6\x96\x87."
        assert model.detokenize(model.tokenize(text, add_bos=False)) == text


def test_a_cut_vocabulary_still_writes_every_text(tiny: Path) -> None:
    with contextlib.closing(Llama(str(tiny), vocab_only=True, verbose=False)) as model:
        text = b"A tale of the lighthouse: 42 ships, \xe4\xb8\xad\xe6\x96\x87."
        assert model.detokenize(model.tokenize(text, add_bos=False)) == text


def test_the_seed_decides_every_byte(tmp_path: Path, starter_model: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path / name, TINY, seed=seed, starter=starter_model)
    a, b, c = (tmp_path.joinpath(name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_shape_that_no_block_fits_is_refused_before_anything_is_written(tmp_path: Path, starter_model: Path) -> None:
    with pytest.raises(ValueError, match="a multiple of 256"):
        write(tmp_path / "odd.gguf", replace(TINY, width=576, heads=9, heads_kv=3), "q4_k", starter=starter_model)
    with pytest.raises(ValueError, match="multiple of heads"):
        write(tmp_path / "odd.gguf", replace(TINY, heads=3, heads_kv=3), starter=starter_model)
    assert not list(tmp_path.iterdir())


def test_seven_b_has_the_parameters_of_seven_b() -> None:
    def parameters(shape: Shape) -> float:
        return sum(t.rows * t.columns for t in tensors(shape, TYPES["q4_0"])) / 1e9

    assert parameters(SHAPES["7b"]) == pytest.approx(6.738, abs=0.001)
    assert parameters(SHAPES["1b"]) == pytest.approx(1.100, abs=0.001)


def test_the_command_line_writes_a_file_and_says_its_size(tmp_path: Path, starter_model: Path) -> None:
    out = tmp_path / "model.gguf"
    command = [sys.executable, "-m", "tests.tools.synthetic", "--shape", "tiny", "--layers", "1", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{out.stat().st_size:,} bytes" in done.stdout
