"""Whose wish counts, and which wishes are none."""

from __future__ import annotations

import math

import pytest

from schemas.errors import Rejected
from schemas.message import Sampling
from workers.llama import LlamaBackend
from workers.llama.sampling import DEFAULTS, defaults, resolve


def test_the_request_comes_before_the_operator_the_model_and_us() -> None:
    meta = {"general.sampling.temp": 0.5, "general.sampling.top_k": 20, "general.sampling.top_p": 7.0}
    known = defaults(LlamaBackend.Settings(temperature=0.3), meta)
    spec = resolve(Sampling(min_p=0.2), known)
    assert (spec.temperature, spec.top_k, spec.min_p, spec.top_p) == (0.3, 20, 0.2, DEFAULTS["top_p"])


@pytest.mark.parametrize(
    "wish",
    [
        Sampling(temperature=-1.0),
        Sampling(temperature=math.nan),
        Sampling(top_p=1.5),
        Sampling(top_k=-5),
        Sampling(repeat_penalty=0.0),
    ],
)
def test_a_wish_out_of_bounds_is_refused(wish: Sampling) -> None:
    with pytest.raises(Rejected, match="must be from"):
        resolve(wish, DEFAULTS)
