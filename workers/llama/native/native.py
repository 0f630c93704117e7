"""llama.cpp behind typed wrappers.

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
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import Struct

from workers.llama.engine.machine import NoCells, Row, Sampled, Sampler, SamplerSpec, State, StepFailed
from workers.llama.native import build
from workers.llama.native.library import c
from workers.llama.sampling.guide import Guide
from workers.llama.sampling.sampler import NativeSampler

log = logging.getLogger("roost.llama_cpp")

KV_TYPES: Final = {"f32": c.GGML_TYPE_F32, "f16": c.GGML_TYPE_F16, "q8_0": c.GGML_TYPE_Q8_0}
WANTS_LEAST: Final = 16
"""Tokens of a batch behind which may be sampled, where a model has few slots: room for drafts."""
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


class AdapterSpec(Struct, frozen=True, kw_only=True):
    """A LoRA adapter of the model. One without a name is always on."""

    path: Path
    name: str = ""
    scale: float = 1.0


class ContextSpec(Struct, frozen=True, kw_only=True):
    """Sizes of a context, in tokens and sequences."""

    cells: int
    sequences: int
    batch_max: int
    threads: int
    kv_type: str = "f16"
    flash: bool | None = None
    """Flash attention; None lets llama.cpp decide."""


class NativeModel:
    """A model file, memory-mapped, with its vocabulary."""

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = 0,
        mmap: bool = True,
        repack: bool = True,
        devices: Sequence[str] | None = None,
    ) -> None:
        """`repack`: keep weights in the order that computes fastest, in memory of their own. `devices`: names of the
        cards to use, as in `build.Device`; None leaves them to llama.cpp."""
        params = c.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = repack
        cards = None if devices is None else build.handles(devices)
        if cards is not None:
            params.devices = ctypes.addressof(cards)
        params.load_mode = c.LLAMA_LOAD_MODE_MMAP if mmap else c.LLAMA_LOAD_MODE_NONE
        _recent.clear()
        self._model: Any = c.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise LoadFailed(_reason("llama.cpp cannot load it"))
        self._vocab: Any = c.llama_model_get_vocab(self._model)
        self.adapters: list[tuple[str, Any, float]] = []
        """Name, handle and scale of each LoRA adapter."""
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
        self.guide = Guide(self._vocab, self._ends, self._texts)

    @property
    def handle(self) -> Any:
        """llama.cpp's own, for `encoder.py`."""
        return self._model

    @property
    def control(self) -> dict[str, int]:
        """Control tokens by their names, such as `<|im_end|>`."""
        return {self._render(t, special=True).decode("utf-8", "replace"): t for t in self._control}

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

    def tokenise(self, text: str, *, special: bool = True, begin: bool = True, end: bool = False) -> array[int]:
        """Tokens of `text`. `special`: control tokens may be written by name; `begin`, `end`: BOS, EOS, if wanted."""
        raw = text.encode("utf-8", "replace")
        tokens = array("i", bytes(4 * (len(raw) + 2)))
        target = (ctypes.c_int32 * len(tokens)).from_buffer(tokens)
        count = c.llama_tokenize(self._vocab, raw, len(raw), target, len(tokens), begin, special)
        if count < 0:
            raise ValueError(f"llama_tokenize wants {-count} tokens for {len(raw)} bytes")
        del target
        del tokens[count:]
        if begin and not end and self._adds_eos and tokens and tokens[-1] == self._eos:
            tokens.pop()
        return tokens

    def piece(self, token: int) -> bytes:
        """The bytes of a token as text; control tokens have none."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._render(token, special=False)
        return known

    def _texts(self) -> list[bytes]:
        """The bytes of all tokens, those of control tokens behind 0xff, which no text contains."""
        control = set(self._control)
        return [b"\xff" * (t in control) + self._render(t, special=True) for t in range(self.vocabulary)]

    def _render(self, token: int, *, special: bool) -> bytes:
        size = c.llama_token_to_piece(self._vocab, token, self._buffer, PIECE_BYTES_MAX, 0, special)
        return self._buffer.raw[:size] if size > 0 else b""

    def adapt(self, specs: Sequence[AdapterSpec]) -> None:
        """Load LoRA adapters, before contexts are made; raises `LoadFailed` naming the one that does not fit."""
        for spec in specs:
            _recent.clear()
            handle = c.llama_adapter_lora_init(self._model, os.fsencode(spec.path))
            if not handle:
                raise LoadFailed(f"the adapter {spec.path}: {_reason('llama.cpp cannot load it')}")
            self.adapters.append((spec.name, handle, spec.scale))

    def close(self) -> None:
        """Free the model; its adapters go with it."""
        self.guide.close()
        model, self._model, self._vocab = self._model, None, None
        self.adapters.clear()
        if model:
            c.llama_model_free(model)
            give_back()


class NativeMachine:
    """One context of a model; implements `machine.Machine`."""

    def __init__(self, model: NativeModel, spec: ContextSpec) -> None:
        self._model = model
        self.batch_max = spec.batch_max
        self.wants_max = min(max(spec.sequences, WANTS_LEAST), spec.batch_max)
        params = c.llama_context_default_params()
        params.n_ctx = spec.cells
        params.n_batch = params.n_ubatch = spec.batch_max
        params.n_seq_max = spec.sequences
        params.n_outputs_max = self.wants_max  # 0 would buffer logits for a whole batch
        params.n_threads = params.n_threads_batch = spec.threads
        params.type_k = params.type_v = KV_TYPES[spec.kv_type]
        if spec.flash is not None:
            params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_ENABLED if spec.flash else c.LLAMA_FLASH_ATTN_TYPE_DISABLED
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
        self._wanted: list[int] = []
        self._rows: Any = None
        self._view: Any = None
        self._view_of = 0
        self._adapter: str | None = None
        self.use_adapter("")

    def compute(self, rows: Sequence[Row]) -> None:
        self._rows = None
        self._wanted = self._batch.fill(rows)
        code = c.llama_decode(self._context, self._batch.struct)
        if code == 1:
            raise NoCells
        if code != 0:
            raise StepFailed(_reason(f"llama_decode returned {code}"))

    def sample(self, row: int, token: int, sampler: Sampler) -> Sampled:
        assert isinstance(sampler, NativeSampler)
        if self._rows is None:
            self._rows = self._logits()
        at = self._wanted[row] + token
        return sampler.pick(self._rows[at])

    def _logits(self) -> Any:
        """The logits of the last batch, a row for each wanted token; the view is kept, for making one takes 20 µs."""
        pointer = c.llama_get_logits(self._context)
        address = ctypes.addressof(pointer.contents)
        if address != self._view_of:
            self._view_of = address
            self._view = np.ctypeslib.as_array(pointer, shape=(self.wants_max, self._model.vocabulary))
        return self._view

    def sampler(self, spec: SamplerSpec) -> Sampler:
        return NativeSampler(self._model, spec)

    def copy(self, source: int, target: int, length: int) -> None:
        c.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def cut(self, seq: int, keep: int) -> None:
        if not c.llama_memory_seq_rm(self._memory, seq, keep, -1):
            c.llama_memory_seq_rm(self._memory, seq, -1, -1)

    def save(self, seq: int) -> State:
        size = c.llama_state_seq_get_size(self._context, seq)
        if not size:
            return b""
        state = np.empty(size, dtype=np.uint8)
        written = c.llama_state_seq_get_data(self._context, _bytes(state), size, seq)
        return state.data[:written]

    def restore(self, seq: int, state: State) -> bool:
        data = np.frombuffer(state, dtype=np.uint8)
        if c.llama_state_seq_set_data(self._context, _bytes(data), len(data), seq) == len(data):
            return True
        c.llama_memory_seq_rm(self._memory, seq, -1, -1)
        return False

    def use_adapter(self, name: str) -> None:
        if name == self._adapter:
            return
        self._adapter = name
        on = [a for a in self._model.adapters if a[0] in ("", name)]
        handles = (c.llama_adapter_lora_p_ctypes * len(on))(*(a[1] for a in on))
        scales = (ctypes.c_float * len(on))(*(a[2] for a in on))
        if c.llama_set_adapters_lora(self._context, handles, len(on), scales) != 0:
            raise StepFailed(_reason(f"llama.cpp does not take the adapter {name or '(always on)'}"))

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
        """Write the rows; returns for each row how many wanted tokens come before its own."""
        wanted = list(accumulate((row.want for row in rows), initial=0))[:-1]
        at = next((i for i, row in enumerate(rows) if len(row.tokens) != 1), len(rows))
        ones = rows[:at]  # the answers: written together, for each writing takes longer than the numbers in it
        self._token[:at] = [row.tokens[0] for row in ones]
        self._pos[:at] = [row.start for row in ones]
        self._seq[:at] = [row.seq for row in ones]
        self._want[:at] = [row.want for row in ones]
        for row in rows[at:]:
            n = len(row.tokens)
            end = at + n
            self._seq[at:end] = row.seq
            self._want[at:end] = 0
            self._token[at:end] = row.tokens
            self._pos[at:end] = self._steps[:n]
            self._pos[at:end] += row.start
            self._want[end - row.want : end] = 1
            at = end
        self.struct.n_tokens = at
        return wanted


def _bytes(data: Any) -> Any:
    """A numpy array of bytes as llama.cpp wants it."""
    return ctypes.cast(data.ctypes.data, ctypes.POINTER(ctypes.c_uint8))


def give_back() -> None:
    """Return freed memory to the system: glibc keeps tens of megabytes in small pieces otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _new_batch() -> Any:
    return c.llama_batch()


def _reason(what: str) -> str:
    return f"{what}: {'; '.join(_recent)}" if _recent else what
