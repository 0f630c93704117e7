"""Whose wish counts, and which wishes are none."""

from __future__ import annotations

import math

import pytest

from schemas.errors import Rejected
from schemas.message import Sampling
from workers.llama import LlamaBackend
from workers.llama.sampling.wishes import DEFAULTS, defaults, resolve


def test_the_request_comes_before_the_operator_the_model_and_us() -> None:
    meta = {"general.sampling.temp": 0.5, "general.sampling.top_k": 20, "general.sampling.top_p": 7.0}
    known = defaults(LlamaBackend.Settings(temperature=0.3), meta)
    spec = resolve(Sampling(min_p=0.2), known, vocabulary=9)
    assert (spec.temperature, spec.top_k, spec.min_p, spec.top_p) == (0.3, 20, 0.2, DEFAULTS["top_p"])


@pytest.mark.parametrize(
    "wish",
    [
        Sampling(temperature=-1.0),
        Sampling(temperature=math.nan),
        Sampling(top_p=1.5),
        Sampling(top_k=-5),
        Sampling(repeat_penalty=0.0),
        Sampling(presence_penalty=2.5),
        Sampling(frequency_penalty=-math.inf),
        Sampling(logprobs=21),
        Sampling(logprobs=-1),
        Sampling(logit_bias={"1": 101.0}),
    ],
)
def test_a_wish_out_of_bounds_is_refused(wish: Sampling) -> None:
    with pytest.raises(Rejected, match="must be from"):
        resolve(wish, DEFAULTS, vocabulary=9)


def test_wishes_beyond_the_usual_are_resolved() -> None:
    wish = Sampling(
        presence_penalty=1.5, frequency_penalty=-0.5, logprobs=0, ignore_eos=True, logit_bias={"8": -100, "0": 2.5}
    )
    spec = resolve(wish, DEFAULTS, vocabulary=9, constraint="grammar")
    assert (spec.presence_penalty, spec.frequency_penalty, spec.logprobs, spec.ban_end) == (1.5, -0.5, 0, True)
    assert (spec.bias, spec.constraint) == (((0, 2.5), (8, -100)), "grammar")
    plain = resolve(Sampling(), DEFAULTS, vocabulary=9)
    assert (plain.presence_penalty, plain.frequency_penalty, plain.logprobs, plain.bias) == (0.0, 0.0, -1, ())


@pytest.mark.parametrize("key", ["9", "-1", "word", "1.0", "", "\u0664", "1" * 5_000])
def test_a_bias_for_no_token_is_refused_by_its_key(key: str) -> None:
    with pytest.raises(Rejected, match="is no token of this model; give numbers from 0 to 8") as refusal:
        resolve(Sampling(logit_bias={key: 1.0}), DEFAULTS, vocabulary=9)
    assert repr(key[:20]) in refusal.value.message


def test_no_more_biases_than_the_limit() -> None:
    with pytest.raises(Rejected, match="1024 at most"):
        resolve(Sampling(logit_bias={str(i): 1.0 for i in range(1_025)}), DEFAULTS, vocabulary=9_999)
