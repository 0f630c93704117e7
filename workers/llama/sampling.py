"""Which sampling a request gets: as it wishes, else as the operator, the model file or we say. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from schemas.errors import Rejected
from schemas.message import Sampling
from workers.llama.machine import SamplerSpec

DEFAULTS: Mapping[str, float] = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0}
"""The field's usual values; the temperature a little lower, which small models need."""
BOUNDS: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 5.0), "top_k": (0, 1_000_000), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0),
    "repeat_penalty": (0.1, 10.0),
}  # fmt: skip
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


def resolve(wish: Sampling, defaults: Mapping[str, float]) -> SamplerSpec:
    """`defaults` holds a value for every name in `DEFAULTS`; raises `Rejected` for a wish out of bounds."""
    values = {}
    for name, (low, high) in BOUNDS.items():
        wanted = getattr(wish, name)
        value = defaults[name] if wanted is None else wanted
        if not math.isfinite(value) or not low <= value <= high:
            raise Rejected(f"{name} is {value:g}; it must be from {low:g} to {high:g}", code="bad_sampling")
        values[name] = value
    return SamplerSpec(
        temperature=values["temperature"],
        top_k=int(values["top_k"]),
        top_p=values["top_p"],
        min_p=values["min_p"],
        repeat_penalty=values["repeat_penalty"],
        seed=wish.seed or 0,
        ban_end=wish.ignore_eos,
    )


def defaults(wishes: object, meta: Mapping[str, object]) -> dict[str, float]:
    """The values where a request names none: of the operator's settings `wishes`, the model file, or ours."""
    own = {name: value for name in DEFAULTS if (value := getattr(wishes, name)) is not None}
    return {**DEFAULTS, **recommended(meta), **own}
