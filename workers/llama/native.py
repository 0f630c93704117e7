"""llama.cpp behind typed wrappers: the only file that imports llama_cpp.

It holds no policy: what to decode, keep or drop is the engine's. What always holds: everything that was taken
is freed by `close`, in the right order and once; llama.cpp writes nothing to the terminal; no loop here runs once
per token of a prompt.
"""

from __future__ import annotations

import ctypes
import logging
import os
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import Struct

from workers.llama.machine import PENALTY_TOKENS, NoCells, Row, Sampler, SamplerSpec, StepFailed

# libgomp reads this when it is loaded, that is with llama_cpp. ggml's threads wait for each other some hundred times
# a step. By default libgomp spins 300,000 turns (milliseconds) before it lets go of the core, which the other thread,
# an event loop or NATS may be waiting for: beside a compiler on two cores that gave 5 tokens a second instead of 73.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp.llama_cpp as c

log = logging.getLogger("roost.llama_cpp")

KV_TYPES: Final = {"f32": c.GGML_TYPE_F32, "f16": c.GGML_TYPE_F16, "q8_0": c.GGML_TYPE_Q8_0}
VIEWS_MAX: Final = 1_024
PIECE_BYTES_MAX: Final = 1_024
_LEVELS: Final = {3: logging.WARNING, 4: logging.ERROR}
_recent: deque[str] = deque(maxlen=8)
"""llama.cpp's last warnings and errors: the reason when a load fails."""


class LoadFailed(Exception):
    """llama.cpp could not load the file or make the context; the sentence is its own."""


def _on_log(level: int, text: bytes | None, _data: object) -> None:
    kind = _LEVELS.get(level)
    line = (text or b"").decode("utf-8", "replace").strip()
    if kind is not None and line:
        _recent.append(line)
        log.log(kind, "%s", line)


_callback = c.llama_log_callback(_on_log)
c.llama_log_set(_callback, ctypes.c_void_p(0))
c.llama_backend_init()


class ContextSpec(Struct, frozen=True, kw_only=True):
    """Sizes of a context, in tokens and sequences."""

    cells: int
    sequences: int
    batch_max: int
    threads: int
    kv_type: str = "f16"


class NativeModel:
    """A model file, memory-mapped, with its vocabulary."""

    def __init__(self, path: Path, *, gpu_layers: int = 0, mmap: bool = True) -> None:
        params = c.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.load_mode = c.LLAMA_LOAD_MODE_MMAP if mmap else c.LLAMA_LOAD_MODE_NONE
        _recent.clear()
        self._model: Any = c.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise LoadFailed(_reason("llama.cpp cannot load it"))
        self._vocab: Any = c.llama_model_get_vocab(self._model)
        self.vocabulary: int = c.llama_vocab_n_tokens(self._vocab)
        self.trained_context: int = c.llama_model_n_ctx_train(self._model)
        self.reusable = not (c.llama_model_is_recurrent(self._model) or c.llama_model_is_hybrid(self._model))
        """Whether a sequence may be cut and its beginning shared; a recurrent state can do neither."""
        self.answers = bool(c.llama_model_has_decoder(self._model) and not c.llama_model_has_encoder(self._model))
        self.adds_bos = bool(c.llama_vocab_get_add_bos(self._vocab))
        self._adds_eos = bool(c.llama_vocab_get_add_eos(self._vocab))
        self._eos: int = c.llama_vocab_eos(self._vocab)
        self._buffer = ctypes.create_string_buffer(PIECE_BYTES_MAX)
        self._pieces: dict[int, bytes] = {}
        hidden = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_UNKNOWN
        vocab, attr, ends = self._vocab, c.llama_vocab_get_attr, c.llama_vocab_is_eog
        self._control = [t for t in range(self.vocabulary) if attr(vocab, t) & hidden]
        self._ends = frozenset(t for t in range(self.vocabulary) if ends(vocab, t))

    @property
    def control_texts(self) -> list[str]:
        """Names of the control tokens, such as `<|im_end|>`."""
        return [self._render(t, special=True).decode("utf-8", "replace") for t in self._control]

    @property
    def ending(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._ends

    @property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens that the model file says never to choose."""
        count = ctypes.c_int32(0)
        found = c.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(count))
        return tuple(found[i] for i in range(count.value)) if found else ()

    def token_text(self, which: str) -> str:
        """The text of the `bos` or `eos` token, empty when the model has none."""
        token = c.llama_vocab_bos(self._vocab) if which == "bos" else self._eos
        return self._render(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def meta(self, key: str) -> str:
        """A value of the file's metadata as text, empty when absent."""
        size = c.llama_model_meta_val_str(self._model, key.encode(), None, 0)
        if size < 0:
            return ""
        buffer = ctypes.create_string_buffer(size + 1)
        c.llama_model_meta_val_str(self._model, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    def template(self) -> str | None:
        text = c.llama_model_chat_template(self._model, None)
        return text.decode("utf-8", "replace") if text else None

    def tokenise(self, text: str, *, special: bool = True, begin: bool = True) -> array[int]:
        """Tokens of `text`. `special`: control tokens may be written by name; `begin`: with BOS, if wanted."""
        raw = text.encode("utf-8", "replace")
        tokens = array("i", bytes(4 * (len(raw) + 2)))
        target = (ctypes.c_int32 * len(tokens)).from_buffer(tokens)
        count = c.llama_tokenize(self._vocab, raw, len(raw), target, len(tokens), begin, special)
        if count < 0:
            raise ValueError(f"llama_tokenize wants {-count} tokens for {len(raw)} bytes")
        del target
        del tokens[count:]
        if begin and self._adds_eos and tokens and tokens[-1] == self._eos:
            tokens.pop()
        return tokens

    def piece(self, token: int) -> bytes:
        """The bytes of a token as text; control tokens have none."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._render(token, special=False)
        return known

    def _render(self, token: int, *, special: bool) -> bytes:
        size = c.llama_token_to_piece(self._vocab, token, self._buffer, PIECE_BYTES_MAX, 0, special)
        return self._buffer.raw[:size] if size > 0 else b""

    def close(self) -> None:
        model, self._model, self._vocab = self._model, None, None
        if model:
            c.llama_model_free(model)
            _give_back()


class NativeMachine:
    """One context of a model; implements `machine.Machine`."""

    def __init__(self, model: NativeModel, spec: ContextSpec) -> None:
        self._model = model
        self.batch_max = spec.batch_max
        params = c.llama_context_default_params()
        params.n_ctx = spec.cells
        params.n_batch = params.n_ubatch = spec.batch_max
        params.n_seq_max = spec.sequences
        params.n_outputs_max = spec.sequences  # one sampled token each; 0 would buffer logits for a whole batch
        params.n_threads = params.n_threads_batch = spec.threads
        params.type_k = params.type_v = KV_TYPES[spec.kv_type]
        params.kv_unified = True  # one pool of cells, so that sequences can share a prefix without copying it
        params.swa_full = True  # a sliding window would forget the beginning that the next turn needs
        _recent.clear()
        self._context: Any = c.llama_init_from_model(model._model, params)
        if not self._context:
            raise LoadFailed(_reason("llama.cpp cannot make the context"))
        self._memory: Any = c.llama_get_memory(self._context)
        self.cells: int = c.llama_n_ctx(self._context)
        self.sequences = spec.sequences
        self._batch = _Batch(spec.batch_max)
        self._last: list[int] = []
        self._views: dict[int, Any] = {}

    def compute(self, rows: Sequence[Row]) -> None:
        self._last = self._batch.fill(rows)
        code = c.llama_decode(self._context, self._batch.struct)
        if code == 1:
            raise NoCells
        if code != 0:
            raise StepFailed(_reason(f"llama_decode returned {code}"))

    def sample(self, picks: Sequence[tuple[int, Sampler]]) -> list[int]:
        out = []
        for row, sampler in picks:
            assert isinstance(sampler, NativeSampler)
            at = self._last[row]
            out.append(sampler.pick(self._context, at) if sampler.chained else sampler.best(self._row_logits(at)))
        return out

    def _row_logits(self, at: int) -> Any:
        """The logits behind a token of the batch as an array; views are kept, because making one takes 20 µs."""
        pointer = c.llama_get_logits_ith(self._context, at)
        address = ctypes.addressof(pointer.contents)
        view = self._views.get(address)
        if view is None:
            if len(self._views) >= VIEWS_MAX:
                self._views.clear()
            view = self._views[address] = np.ctypeslib.as_array(pointer, shape=(self._model.vocabulary,))
        return view

    def sampler(self, spec: SamplerSpec) -> Sampler:
        return NativeSampler(self._model, spec)

    def copy(self, source: int, target: int, length: int) -> None:
        c.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def cut(self, seq: int, keep: int) -> None:
        if not c.llama_memory_seq_rm(self._memory, seq, keep, -1):
            c.llama_memory_seq_rm(self._memory, seq, -1, -1)

    def piece(self, token: int) -> bytes:
        return self._model.piece(token)

    def ends(self, token: int) -> bool:
        return token in self._model.ending

    def use_threads(self, count: int) -> None:
        c.llama_set_n_threads(self._context, count, count)

    def close(self) -> None:
        context, self._context, self._memory = self._context, None, None
        if context:
            c.llama_free(context)


class NativeSampler:
    """One answer's sampling. Greedy without penalties is an argmax over the logits; all else is a chain in C."""

    def __init__(self, model: NativeModel, spec: SamplerSpec) -> None:
        banned = [*model.suppressed, *(model.ending if spec.ban_end else ())]
        self._banned = np.array(sorted(set(banned)), dtype=np.int64)
        self._chain: Any = None
        if spec.temperature > 0 or spec.repeat_penalty != 1.0:
            self._chain = _chain(spec, self._banned, model.vocabulary)

    @property
    def chained(self) -> bool:
        return self._chain is not None

    def pick(self, context: Any, at: int) -> int:
        """Sample by the chain in C."""
        return int(c.llama_sampler_sample(self._chain, context, at))

    def best(self, logits: Any) -> int:
        """The likeliest token that is not banned."""
        if len(self._banned):
            logits[self._banned] = -np.inf
        return int(logits.argmax())

    def accept(self, tokens: Sequence[int]) -> None:
        if self._chain is not None:
            for token in tokens[-PENALTY_TOKENS:]:
                c.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        chain, self._chain = self._chain, None
        if chain:
            c.llama_sampler_free(chain)


def _chain(spec: SamplerSpec, banned: Any, vocabulary: int) -> Any:
    """Bans and penalties before the cuts, temperature after them, as llama.cpp's own programs order them."""
    chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
    if len(banned):
        biases = (c.llama_logit_bias * len(banned))(*(c.llama_logit_bias(int(t), float("-inf")) for t in banned))
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_logit_bias(vocabulary, len(banned), biases))
    if spec.repeat_penalty != 1.0:
        penalties = c.llama_sampler_init_penalties(vocabulary, PENALTY_TOKENS, spec.repeat_penalty, 0.0, 0.0)
        c.llama_sampler_chain_add(chain, penalties)
    if spec.temperature <= 0:
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_greedy())
        return chain
    if spec.top_k > 0:
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_top_k(spec.top_k))
    if spec.top_p < 1.0:
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_top_p(spec.top_p, 1))
    if spec.min_p > 0.0:
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_min_p(spec.min_p, 1))
    c.llama_sampler_chain_add(chain, c.llama_sampler_init_temp(spec.temperature))
    c.llama_sampler_chain_add(chain, c.llama_sampler_init_dist(spec.seed % 0xFFFFFFFF))
    return chain


class _Batch:
    """A llama_batch over numpy arrays of our own, filled row by row."""

    def __init__(self, size: int) -> None:
        self._token = np.zeros(size, dtype=np.int32)
        self._pos = np.zeros(size, dtype=np.int32)
        self._seq = np.zeros(size, dtype=np.int32)
        self._count = np.ones(size, dtype=np.int32)
        self._want = np.zeros(size, dtype=np.int8)
        self._steps = np.arange(size, dtype=np.int32)
        self._seqs = self._seq.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        self.struct = _new_batch()
        integers = ctypes.POINTER(ctypes.c_int32)
        self.struct.token = ctypes.cast(self._token.ctypes.data, integers)
        self.struct.pos = ctypes.cast(self._pos.ctypes.data, integers)
        self.struct.n_seq_id = ctypes.cast(self._count.ctypes.data, integers)
        self.struct.seq_id = ctypes.cast(self._seqs.ctypes.data, ctypes.POINTER(integers))
        self.struct.logits = ctypes.cast(self._want.ctypes.data, ctypes.POINTER(ctypes.c_int8))

    def fill(self, rows: Sequence[Row]) -> list[int]:
        """Write the rows; returns the index of each row's last token."""
        last = []
        at = 0
        for row in rows:
            n = len(row.tokens)
            end = at + n
            self._seq[at:end] = row.seq
            self._want[at:end] = 0
            if n == 1:
                self._token[at] = row.tokens[0]
                self._pos[at] = row.start
            else:
                self._token[at:end] = row.tokens
                self._pos[at:end] = self._steps[:n]
                self._pos[at:end] += row.start
            self._want[end - 1] = row.want
            last.append(end - 1)
            at = end
        self.struct.n_tokens = at
        return last


def _give_back() -> None:
    """Return freed memory to the system: glibc keeps tens of megabytes in small pieces otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _new_batch() -> Any:
    return c.llama_batch()


def _reason(what: str) -> str:
    return f"{what}: {'; '.join(_recent)}" if _recent else what
