"""Vectors of real models: the starter model, and a small BERT whose every number is computed a second time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from schemas.errors import Rejected
from tests.workers.llama.tiny_bert import CLS, SEP, WINDOW, TinyBert
from workers.llama.embedding.embedder import Embedder
from workers.llama.embedding.encoder import NativeEncoder, embeds_only, pooling_of, tokens_of
from workers.llama.engine.machine import Row
from workers.llama.fitting.file import header, model_file
from workers.llama.fitting.sizes import sizes
from workers.llama.fitting.texts import texts
from workers.llama.native.native import NativeModel

TEXTS = [
    "The cat sleeps on the warm sofa.",
    "A kitten naps on the cosy couch.",
    "Interest rates rose again last quarter.",
    "The central bank raised its rates.",
    "Boil the pasta in salted water.",
    "Cook the noodles in a pot with salt.",
]


@pytest.fixture(scope="module")
def starter(starter_model: Path) -> Iterator[NativeModel]:
    model = NativeModel(model_file(starter_model))
    yield model
    model.close()


def embedder(model: NativeModel, window: int = 2_048) -> Embedder:
    pooling = pooling_of(model)
    assert pooling is not None
    return Embedder(NativeEncoder(model, tokens_max=window, threads=1), pooling)


def vectors(model: NativeModel, texts: Sequence[str], budget: int = 512, window: int = 2_048) -> Any:
    one = embedder(model, window)
    one.add("r", tokens_of(model, texts))
    pieces = []
    while one.busy:
        pieces += one.step(budget)
    one.close()
    finished = pieces[0].finished
    assert finished is not None
    assert finished.error is None
    assert finished.usage.prompt_tokens == sum(map(len, tokens_of(model, texts)))
    return np.stack([np.frombuffer(v, "<f4") for v in finished.embeddings])


def test_vectors_have_length_one_and_are_the_same_alone_and_in_company(starter: NativeModel) -> None:
    together = vectors(starter, TEXTS)
    alone = np.concatenate([vectors(starter, [text]) for text in TEXTS])
    assert together.shape == (len(TEXTS), 576)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert ((together * alone).sum(1) > 0.999).all()


def test_a_long_text_in_pieces_has_the_vector_it_has_whole(starter: NativeModel) -> None:
    long = ["The sea is wide and the boat is small. " * 14]
    assert (vectors(starter, long, budget=17) * vectors(starter, long)).sum() > 0.999


def test_vectors_are_those_of_llama_cpp_python(starter: NativeModel, starter_model: Path) -> None:
    from llama_cpp import LLAMA_POOLING_TYPE_MEAN, Llama

    path = str(model_file(starter_model))
    other = Llama(path, embedding=True, pooling_type=LLAMA_POOLING_TYPE_MEAN, n_ctx=512, n_threads=1, verbose=False)
    theirs = np.array([other.create_embedding(text)["data"][0]["embedding"] for text in TEXTS])
    other.close()
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    assert ((vectors(starter, TEXTS) * theirs).sum(1) > 0.999).all()


def test_what_means_alike_lies_close(starter: NativeModel) -> None:
    found = vectors(starter, TEXTS)
    found = found - found.mean(0)  # what all texts have in common tells nothing
    likeness = found @ found.T - 9 * np.eye(len(TEXTS))
    assert likeness.argmax(1).tolist() == [1, 0, 3, 2, 5, 4]


def test_the_starter_model_may_do_both(starter: NativeModel) -> None:
    assert not embeds_only(starter)
    assert pooling_of(starter) == "mean"


@pytest.mark.parametrize("tokens", [512, 1_100])
def test_the_longest_text_takes_no_more_memory_than_was_counted(starter_model: Path, tokens: int) -> None:
    found = model_file(starter_model)
    counted = texts(header(found), sizes(header(found), ()), window=tokens)
    assert counted.tokens == tokens
    done = subprocess.run(
        [sys.executable, "-c", GROWN, str(found), str(tokens)], capture_output=True, text=True, timeout=120, check=True
    )
    grown = int(done.stdout)
    assert 0.8 * counted.bytes < grown <= counted.bytes


GROWN = """
import sys
from array import array
from pathlib import Path
from workers.host.budget import taken
from workers.llama.embedding.encoder import NativeEncoder
from workers.llama.engine.machine import Row
from workers.llama.native.native import NativeModel

tokens = int(sys.argv[2])
model = NativeModel(Path(sys.argv[1]), repack=False)
encoder = NativeEncoder(model, tokens_max=tokens, threads=1)
before = taken()
encoder.make_room(tokens)
for start in range(0, tokens, encoder.batch_max):
    encoder.compute([Row(0, start, array("i", [5] * min(encoder.batch_max, tokens - start)), 0)])
print(taken() - before)
"""
"""In a process of its own, where nothing that was freed before is used again."""


def test_a_control_token_by_name_is_plain_text(starter: NativeModel) -> None:
    (tokens,) = tokens_of(starter, ["<|im_end|>"])
    assert len(tokens) > 1


@pytest.fixture(scope="module")
def bert() -> TinyBert:
    return TinyBert()


def loaded(bert: TinyBert, folder: Path, pooling: int | None) -> NativeModel:
    return NativeModel(bert.write(folder / "bert.gguf", pooling))


SAID = ["the red boats", "sea", "house on the sea the sails on the boat", "boats " * 30]


@pytest.mark.parametrize(("pooling", "row"), [(None, None), (1, None), (2, 0), (3, -1)])
def test_an_encoders_vectors_are_what_its_weights_say(
    bert: TinyBert, tmp_path: Path, pooling: int | None, row: int | None
) -> None:
    model = loaded(bert, tmp_path, pooling)
    lists = [list(tokens) for tokens in tokens_of(model, SAID)]
    assert all(tokens[0] == CLS and tokens[-1] == SEP and 1 not in tokens for tokens in lists)
    rows = [bert.embeddings(tokens) for tokens in lists]
    expected = np.stack([r.mean(0) if row is None else r[row] for r in rows])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = vectors(model, SAID)
    found_singly = vectors(model, SAID, budget=1)
    model.close()
    assert ((found * expected).sum(1) > 0.9999).all()
    assert ((found_singly * expected).sum(1) > 0.9999).all()


def test_an_encoder_embeds_only(bert: TinyBert, tmp_path: Path) -> None:
    model = loaded(bert, tmp_path, 1)
    assert embeds_only(model)
    model.close()


def test_a_ranking_model_has_no_vectors(bert: TinyBert, tmp_path: Path) -> None:
    model = loaded(bert, tmp_path, 4)
    assert pooling_of(model) is None
    model.close()


def test_a_text_beyond_an_encoders_positions_is_refused_and_one_at_the_end_is_not(
    bert: TinyBert, tmp_path: Path
) -> None:
    model = loaded(bert, tmp_path, 1)
    assert len(vectors(model, ["sea " * (WINDOW - 2)], window=100_000)) == 1
    with pytest.raises(Rejected, match=rf"input\[1\].*{WINDOW + 1} tokens, {WINDOW} at most") as caught:
        embedder(model, 100_000).add("r", tokens_of(model, ["sea", "sea " * (WINDOW - 1)]))
    assert caught.value.code == "context_overflow"
    model.close()


def test_making_and_freeing_takes_no_more_memory(starter: NativeModel) -> None:
    process = psutil.Process()
    row = Row(0, 0, starter.tokenise("a boat"), 0)

    def cycle() -> int:
        encoder = NativeEncoder(starter, tokens_max=2_048, threads=1)
        for size in (16, 2_048):
            encoder.make_room(size)
            encoder.compute([row])
        encoder.close()
        return process.memory_info().rss

    for _ in range(3):
        cycle()
    first = [cycle() for _ in range(4)]
    last = [cycle() for _ in range(4)]
    assert min(last) - min(first) < 2_000_000
