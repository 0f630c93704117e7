"""Which sampling a request gets: as it wishes, else as the operator, the model file or we say. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from schemas.errors import Rejected
from schemas.message import Sampling
from workers.llama.engine.machine import SamplerSpec

DEFAULTS: Mapping[str, float] = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0}
"""The field's usual values; the temperature a little lower, which small models need."""
BOUNDS: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 5.0), "top_k": (0, 1_000_000), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0),
    "repeat_penalty": (0.1, 10.0),
}  # fmt: skip
PENALTIES_MAX = 2.0
"""Presence and frequency penalties are from minus to plus this; by default they are 0."""
BIAS_MAX = 100.0
BIASES_MAX = 1_024
LOGPROBS_MAX = 20
TOKEN_DIGITS_MAX = 10
MODEL_KEYS: Mapping[str, str] = {
    "temperature": "general.sampling.temp", "top_k": "general.sampling.top_k", "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p", "repeat_penalty": "general.sampling.penalty_repeat",
}  # fmt: skip
"""Where a model file may recommend values."""


def recommended(meta: Mapping[str, object]) -> dict[str, float]:
    """The model file's own values, those in bounds."""
    found = {}
    for name, key in MODEL_KEYS.items():
        value = meta.get(key)
        low, high = BOUNDS[name]
        if isinstance(value, (int, float)) and low <= value <= high:
            found[name] = value
    return found


def resolve(
    wish: Sampling, defaults: Mapping[str, float], *, vocabulary: int, constraint: str = "", choice: int = 0
) -> SamplerSpec:
    """`defaults` holds a value for every name in `DEFAULTS`; raises `Rejected` for a wish out of bounds.

    `vocabulary`: the model's tokens, by which the numbers in `logit_bias` are checked; `constraint`: see `constrain`;
    `choice`: of several answers to the same prompt, each of which gets another seed.
    """
    values = {}
    for name, (low, high) in BOUNDS.items():
        wanted = getattr(wish, name)
        values[name] = _bounded(name, defaults[name] if wanted is None else wanted, low, high)
    return SamplerSpec(
        temperature=values["temperature"],
        top_k=int(values["top_k"]),
        top_p=values["top_p"],
        min_p=values["min_p"],
        repeat_penalty=values["repeat_penalty"],
        seed=(wish.seed or 0) + choice,
        ban_end=wish.ignore_eos,
        presence_penalty=_bounded("presence_penalty", wish.presence_penalty or 0.0, -PENALTIES_MAX, PENALTIES_MAX),
        frequency_penalty=_bounded("frequency_penalty", wish.frequency_penalty or 0.0, -PENALTIES_MAX, PENALTIES_MAX),
        bias=_biases(wish.logit_bias, vocabulary),
        logprobs=-1 if wish.logprobs is None else int(_bounded("logprobs", wish.logprobs, 0, LOGPROBS_MAX)),
        constraint=constraint,
    )


def _bounded(name: str, value: float, low: float, high: float) -> float:
    if not math.isfinite(value) or not low <= value <= high:
        raise Rejected(f"{name} is {value:g}; it must be from {low:g} to {high:g}", code="bad_sampling")
    return value


def _biases(wishes: Mapping[str, float], vocabulary: int) -> tuple[tuple[int, float], ...]:
    """The biases by token, in order; raises `Rejected` that names the key."""
    if len(wishes) > BIASES_MAX:
        raise Rejected(f"logit_bias has {len(wishes)} tokens; {BIASES_MAX} at most", code="bad_sampling")
    found = {}
    for key, value in wishes.items():
        token = int(key) if key.isascii() and key.isdecimal() and len(key) < TOKEN_DIGITS_MAX else -1
        if not 0 <= token < vocabulary:
            raise Rejected(
                f"logit_bias[{key[:20]!r}] is no token of this model; give numbers from 0 to {vocabulary - 1}",
                code="bad_sampling",
            )
        found[token] = _bounded(f"logit_bias[{key!r}]", value, -BIAS_MAX, BIAS_MAX)
    return tuple(sorted(found.items()))


def defaults(wishes: object, meta: Mapping[str, object]) -> dict[str, float]:
    """The values where a request names none: of the operator's settings `wishes`, the model file, or ours."""
    own = {name: value for name in DEFAULTS if (value := getattr(wishes, name)) is not None}
    return {**DEFAULTS, **recommended(meta), **own}
