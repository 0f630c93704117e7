"""A context of llama.cpp that computes what each token of a text becomes: the machine behind `embed.py`.

It is made when the first text comes and may be made anew for a longer one, never longer than the plan has granted.
What always holds: nothing of a text stays in it once its vector is made, and `close` frees all. llama.cpp computes
the logits of every token beside its embedding and keeps them (4 bytes × vocabulary × tokens), whether anybody
wants them or not; `fitting/texts.py` keeps that within bounds and counts it.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from workers.llama.embedding.embedder import Pooling
from workers.llama.engine.machine import Row, StepFailed
from workers.llama.fitting.concede import padded
from workers.llama.fitting.texts import CELLS_MIN, LOOKS_AHEAD, SEQUENCES, SEQUENCES_RECURRENT, batch_of
from workers.llama.native.library import c
from workers.llama.native.native import NativeModel, give_back

POOLINGS: Final[dict[str, Pooling]] = {"": "mean", "0": "mean", "1": "mean", "2": "first", "3": "last"}
"""By llama.cpp's number in the model file; a file that names none gets the mean."""


def embeds_only(model: NativeModel) -> bool:
    """Whether a model can do nothing but embeddings: it reads a text as a whole and continues none."""
    return not model.answers or _looks_ahead(model)


def pooling_of(model: NativeModel) -> Pooling | None:
    """How the vector of a text is made of its tokens'; None for a model that ranks texts and has no vectors."""
    return POOLINGS.get(_own(model, "pooling_type"))


def tokens_of(model: NativeModel, texts: Sequence[str]) -> list[array[int]]:
    """Each text's tokens with the marks that the model wants around it; none of a text without a character."""
    return [model.tokenise(text, special=False, end=True) if text else array("i") for text in texts]


class NativeEncoder:
    """Implements `embed.Encoder` on llama.cpp. Call from one thread."""

    def __init__(self, model: NativeModel, *, tokens_max: int, threads: int) -> None:
        """`tokens_max`: of a text, as far as there is memory (`fitting/texts.py`)."""
        self._model = model
        self._threads = threads
        self._encoder = bool(c.llama_model_has_encoder(model.handle))
        self.whole = embeds_only(model)
        self.sequences = SEQUENCES if model.reusable else SEQUENCES_RECURRENT
        self.batch_max = batch_of(model.vocabulary)
        self.tokens_max = tokens_max
        if self.whole:
            self.tokens_max = min(tokens_max, model.trained_context or tokens_max)
        self.width: int = c.llama_model_n_embd_out(model.handle)
        self._context: Any = None
        self._memory: Any = None
        self.cells = 0

    def make_room(self, tokens: int) -> None:
        """Be ready for texts of up to so many tokens; forgets unfinished ones. Raises `StepFailed` without memory."""
        if tokens <= self.cells:
            return
        self.close()
        usual = max(CELLS_MIN, 1 << (tokens - 1).bit_length())
        cells = max(tokens, min(usual, padded(self.tokens_max)))
        params = c.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = cells if self.whole else self.batch_max
        params.n_seq_max = self.sequences
        params.n_threads = params.n_threads_batch = self._threads
        params.embeddings = True
        if _own(self._model, "pooling_type"):
            params.pooling_type = c.LLAMA_POOLING_TYPE_NONE
        params.kv_unified = True
        self._context = c.llama_init_from_model(self._model.handle, params)
        if not self._context:
            raise StepFailed(f"llama.cpp cannot make a context for embeddings of {cells} tokens")
        self._memory = c.llama_get_memory(self._context)
        self.cells = cells

    def compute(self, rows: Sequence[Row]) -> Any:
        """The embeddings of all tokens of `rows`, one below the other: float32, tokens × `width`."""
        batch = _Batch(rows)
        call = c.llama_encode if self._encoder else c.llama_decode
        code = call(self._context, batch.struct)
        if code != 0:
            raise StepFailed(f"llama.cpp returned {code} for {batch.struct.n_tokens} tokens")
        found = c.llama_get_embeddings(self._context)
        if not found:
            raise StepFailed("llama.cpp returned no embeddings")
        return np.ctypeslib.as_array(found, shape=(batch.struct.n_tokens, self.width))

    def forget(self, seq: int) -> None:
        """Free what is kept of the text in `seq`."""
        if self._memory:
            c.llama_memory_seq_rm(self._memory, seq, -1, -1)

    def rest(self) -> None:
        """Nobody waits: give back what an unusually long text took."""
        if self.cells > CELLS_MIN:
            self.close()

    def close(self) -> None:
        """Free the context; the next `make_room` makes another."""
        context, self._context, self._memory, self.cells = self._context, None, None, 0
        if context:
            c.llama_free(context)
            give_back()


class _Batch:
    """A llama_batch of `rows` over arrays of its own; every token's embedding is wanted."""

    def __init__(self, rows: Sequence[Row]) -> None:
        sizes = [len(row.tokens) for row in rows]
        starts = [np.arange(row.start, row.start + n, dtype=np.int32) for row, n in zip(rows, sizes, strict=True)]
        self._token = np.concatenate([np.asarray(row.tokens, dtype=np.int32) for row in rows])
        self._pos = np.concatenate(starts)
        self._seq = np.repeat(np.array([row.seq for row in rows], dtype=np.int32), sizes)
        count = len(self._token)
        self._ones = np.ones(count, dtype=np.int32)
        self._want = np.ones(count, dtype=np.int8)
        self._seqs = self._seq.ctypes.data + 4 * np.arange(count, dtype=np.uint64)
        integers = ctypes.POINTER(ctypes.c_int32)
        self.struct = _new_batch()
        self.struct.n_tokens = count
        self.struct.token = ctypes.cast(self._token.ctypes.data, integers)
        self.struct.pos = ctypes.cast(self._pos.ctypes.data, integers)
        self.struct.n_seq_id = ctypes.cast(self._ones.ctypes.data, integers)
        self.struct.seq_id = ctypes.cast(self._seqs.ctypes.data, ctypes.POINTER(integers))
        self.struct.logits = ctypes.cast(self._want.ctypes.data, ctypes.POINTER(ctypes.c_int8))


def _new_batch() -> Any:
    return c.llama_batch()


def _own(model: NativeModel, key: str) -> str:
    """A value of the model's architecture, as text; empty when the file does not say."""
    return model.meta(f"{model.meta('general.architecture')}.{key}")


def _looks_ahead(model: NativeModel) -> bool:
    return _own(model, "attention.causal") == "false" or model.meta("general.architecture") in LOOKS_AHEAD
