"""One answer's sampling: a shortlist of candidates from the logits, then llama.cpp's samplers over it.

A vocabulary has tens of thousands of tokens and the choice is among a few dozen, so what can be decided by comparing
raw logits is decided before the chain in C runs. What always holds: the shortlist contains every token that the chain
could choose from the whole vocabulary; the context's logits are only read; greedy with neither bias, penalties nor
constraint is one argmax.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workers.llama.engine.machine import PENALTY_TOKENS, Sampled, SamplerSpec
from workers.llama.native.library import c

if TYPE_CHECKING:
    from workers.llama.native.native import NativeModel

NEAR: Final = (8.0, 16.0, np.inf)
"""The likeliest tokens are sought first among those whose logit is this close to the best one's."""
_CANDIDATE: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class NativeSampler:
    """Raises `Rejected` for a constraint that cannot be followed, when it is made or at a later token."""

    def __init__(self, model: NativeModel, spec: SamplerSpec) -> None:
        self._spec = spec
        self._follow = model.guide.follow(spec.constraint) if spec.constraint else None
        self._banned = frozenset((*model.suppressed, *(model.ending if spec.ban_end else ())))
        self._biased = {token for token, _ in spec.bias}
        self._bias = _dense(spec.bias, () if self._follow else self._banned, model.vocabulary)
        self._penal = spec.repeat_penalty != 1.0 or spec.presence_penalty != 0.0 or spec.frequency_penalty != 0.0
        self._plain = spec.temperature <= 0 and not self._penal and not spec.bias
        self._recent: deque[int] = deque(maxlen=PENALTY_TOKENS)
        self._chain: Any = None if self._plain else _chain(spec, model.vocabulary)

    def pick(self, logits: Any) -> Sampled:
        """Choose from a row of logits, and accept the choice."""
        token = self._choose(logits)
        self.accept((token,))
        if self._follow is not None:
            self._follow.accept(token)
        return _told(logits, token, self._spec.logprobs) if self._spec.logprobs >= 0 else Sampled(token)

    def forced(self) -> Sequence[int]:
        """Tokens that the constraint leaves no choice about; they are not accepted yet."""
        return self._follow.forced() if self._follow is not None else ()

    def accept(self, tokens: Sequence[int]) -> None:
        """Tokens that stand in the text, for the penalties."""
        if self._penal:
            for token in tokens[-PENALTY_TOKENS:]:
                c.llama_sampler_accept(self._chain, token)
                self._recent.append(token)

    def close(self) -> None:
        chain, self._chain, self._follow = self._chain, None, None
        if chain:
            c.llama_sampler_free(chain)

    def _choose(self, logits: Any) -> int:
        """Freely first: most free choices keep to the constraint anyway, and its mask costs a hundred times more than
        a question about one token. Where the free one may not be, the choice is among those that may."""
        token = self._of(logits)
        if self._follow is None or (token not in self._banned and self._follow.allows(token)):
            return token
        return self._of(self._follow.masked(logits, self._banned))

    def _of(self, row: Any) -> int:
        if self._plain:
            best = int(row.argmax())
            return best if self._bias is None or best not in self._banned else int((row + self._bias).argmax())
        ids = self._shortlist(row)
        return self._sampled(ids, row[ids] if self._bias is None else row[ids] + self._bias[ids])

    def _shortlist(self, row: Any) -> Any:
        """Tokens that may be among the first `top_k` once bias and penalties are counted.

        Those that are not moved keep their order among themselves, so as many more as are moved suffice.
        """
        wanted = 1 if self._spec.temperature <= 0 else self._spec.top_k
        if wanted <= 0:
            return np.flatnonzero(row > -np.inf)
        moved = {*self._biased, *self._recent}
        ids = likeliest(row, wanted + len(moved) + len(self._banned))
        return np.union1d(ids, np.fromiter(moved, dtype=ids.dtype)) if moved else ids

    def _sampled(self, ids: Any, logits: Any) -> int:
        """What the chain chooses of these candidates; there is one at least."""
        sure = logits > -np.inf
        candidates = np.zeros(np.count_nonzero(sure), dtype=_CANDIDATE)
        candidates["id"], candidates["logit"] = ids[sure], logits[sure]
        data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(c.llama_token_data))
        array = c.llama_token_data_array(data, len(candidates), -1, False)
        c.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)


def likeliest(row: Any, count: int) -> Any:
    """The `count` tokens with the largest logits, in no order; fewer where others are at minus infinity."""
    best = row.max()
    near = np.flatnonzero(row >= best - NEAR[0])
    for gap in NEAR[1:]:
        if len(near) >= count:
            break
        near = np.flatnonzero(row >= best - gap) if gap < np.inf else np.flatnonzero(row > -np.inf)
    if len(near) <= count:
        return near
    return near[np.argpartition(row[near], -count)[-count:]]


def _told(logits: Any, token: int, count: int) -> Sampled:
    """The choice with its log probability and the `count` likeliest, all before bias, penalties and temperature."""
    best = logits.max()
    whole = float(best) + float(np.log(np.exp(logits - best).sum(dtype=np.float64)))
    ids = likeliest(logits, count) if count else ()
    top = sorted(((int(i), float(logits[i]) - whole) for i in ids), key=lambda pair: (-pair[1], pair[0]))
    return Sampled(token, float(logits[token]) - whole, tuple(top))


def _dense(bias: Sequence[tuple[int, float]], banned: frozenset[int] | tuple[()], vocabulary: int) -> Any:
    """What is added to each token's logit; None when it is nothing."""
    if not bias and not banned:
        return None
    out = np.zeros(vocabulary, dtype=np.float32)
    for token, value in bias:
        out[token] += value
    out[list(banned)] = -np.inf
    return out


def _chain(spec: SamplerSpec, vocabulary: int) -> Any:
    """Penalties before the cuts, temperature after them, as llama.cpp's own programs order them."""
    chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
    penalties = (spec.repeat_penalty, spec.frequency_penalty, spec.presence_penalty)
    if penalties != (1.0, 0.0, 0.0):
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_penalties(vocabulary, PENALTY_TOKENS, *penalties))
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
