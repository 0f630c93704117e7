"""What a request may ask for beside its text: every refusal names the field."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connectors.host.wishes import DEPTH_MAX, check_drawing, check_inputs, check_picture, check_sampling, depth
from schemas.config import LimitConfig
from schemas.errors import Rejected
from schemas.message import Attachment, Format, Sampling, Tool
from schemas.picture import Drawing

LIMITS = LimitConfig(
    answers_max=4, tools_max=2, tools_chars_max=200, format_chars_max=100, logit_bias_max=2, inputs_max=2,
    inputs_chars_max=10, picture_side_max=512, picture_steps_max=50, picture_prompt_chars_max=20,
)  # fmt: skip
PNG = Attachment(sha256="0" * 64, media_type="image/png", size_bytes=1)
TEXT = Attachment(sha256="1" * 64, media_type="text/plain", size_bytes=1)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"a": schema}
    return schema


GOOD = [
    Sampling(),
    Sampling(n=3, logprobs=20, presence_penalty=-2.0, frequency_penalty=2.0, logit_bias={"0": -100, "50256": 100}),
    Sampling(tools=(Tool("a"), Tool("b-_9")), tool_choice="required"),
    Sampling(tools=(Tool("a"),), tool_choice="=a"),
    Sampling(format=Format(type="json")),
    Sampling(format=Format(type="json_schema", schema=True)),
    Sampling(format=Format(type="json_schema", schema={"type": "object"})),
    Sampling(format=Format(type="grammar", grammar='root ::= "a"')),
]
BAD: list[tuple[Sampling, str, str]] = [
    (Sampling(n=0), "n", "bad_value"),
    (Sampling(n=5), "n", "bad_value"),
    (Sampling(logprobs=-1), "logprobs", "bad_value"),
    (Sampling(logprobs=21), "logprobs", "bad_value"),
    (Sampling(n=4, logprobs=20), "logprobs", "too_large"),
    (Sampling(presence_penalty=2.1), "presence_penalty", "bad_value"),
    (Sampling(frequency_penalty=math.nan), "frequency_penalty", "bad_value"),
    (Sampling(logit_bias={"1": 1, "2": 1, "3": 1}), "logit_bias", "too_large"),
    (Sampling(logit_bias={"hello": 1}), "logit_bias", "bad_value"),
    (Sampling(logit_bias={"-1": 1}), "logit_bias", "bad_value"),
    (Sampling(logit_bias={"٣": 1}), "logit_bias", "bad_value"),
    (Sampling(logit_bias={"7": 101}), "logit_bias.7", "bad_value"),
    (Sampling(logit_bias={"7": math.nan}), "logit_bias.7", "bad_value"),
    (Sampling(adapter="x" * 65), "adapter", "bad_value"),
    (Sampling(tools=(Tool("a"), Tool("b"), Tool("c"))), "tools", "too_large"),
    (Sampling(tools=(Tool("a", "x" * 200),)), "tools", "too_large"),
    (Sampling(tools=(Tool("a"), Tool("a"))), "tools[1].name", "bad_value"),
    (Sampling(tools=(Tool("a b"),)), "tools[0].name", "bad_value"),
    (Sampling(tools=(Tool("x" * 65),)), "tools[0].name", "bad_value"),
    (Sampling(tools=(Tool("a", parameters=deep(DEPTH_MAX + 1)),)), "tools[0].parameters", "too_large"),
    (Sampling(tools=(Tool("a"),), tool_choice="=b"), "tool_choice", "bad_value"),
    (Sampling(tools=(Tool("a"),), tool_choice="maybe"), "tool_choice", "bad_value"),
    (Sampling(tool_choice="required"), "tool_choice", "bad_value"),
    (Sampling(format=Format(type="json_schema")), "format.schema", "bad_value"),
    (Sampling(format=Format(type="json_schema", schema={"a": "x" * 100})), "format", "too_large"),
    (Sampling(format=Format(type="json_schema", schema=deep(DEPTH_MAX + 1))), "format.schema", "too_large"),
    (Sampling(format=Format(type="grammar", grammar=" ")), "format.grammar", "bad_value"),
    (Sampling(format=Format(type="grammar", grammar="x" * 101)), "format", "too_large"),
]


@pytest.mark.parametrize("sampling", GOOD, ids=range(len(GOOD)))
def test_what_is_within_the_limits_may_be_asked(sampling: Sampling) -> None:
    check_sampling(sampling, LIMITS)


@pytest.mark.parametrize(
    ("sampling", "field", "code"), BAD, ids=[f"{field}-{i}" for i, (_, field, _) in enumerate(BAD)]
)
def test_what_is_not_is_refused_by_its_name(sampling: Sampling, field: str, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_sampling(sampling, LIMITS)
    assert refused.value.message.startswith(f"{field}: ")
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("inputs", "field", "code"),
    [(("a",) * 3, "inputs", "too_large"), (("a" * 11,), "inputs", "too_large"), (("a", ""), "inputs[1]", "empty")],
)
def test_texts_to_embed_have_limits(inputs: tuple[str, ...], field: str, code: str) -> None:
    check_inputs(("a" * 5, "b" * 5), LIMITS)
    with pytest.raises(Rejected) as refused:
        check_inputs(inputs, LIMITS)
    assert refused.value.message.startswith(f"{field}: ")
    assert refused.value.code == code


def test_depth_counts_levels_and_never_recurses() -> None:
    assert [depth(1), depth({}), depth({"a": [{}]}), depth(deep(9))] == [0, 1, 3, 9]
    assert depth(deep(100_000)) == DEPTH_MAX + 1


@pytest.mark.parametrize(
    "drawing",
    [
        Drawing(),
        Drawing(size="64x512", steps=1, guidance=0.0, negative="x" * 2_000, scheduler="dpm++_2m-karras"),
        Drawing(size="512x72", steps=50, guidance=30.0, strength=0.0),
        Drawing(strength=1.0),
    ],
)
def test_what_can_be_drawn_may_be_asked(drawing: Drawing) -> None:
    check_drawing(drawing, (PNG,), LIMITS)


@pytest.mark.parametrize(
    ("drawing", "field", "code"),
    [
        (Drawing(size="512"), "size", "bad_value"),
        (Drawing(size="512x"), "size", "bad_value"),
        (Drawing(size="-64x64"), "size", "bad_value"),
        (Drawing(size="064x64"), "size", "bad_value"),
        (Drawing(size="64x64\n"), "size", "bad_value"),
        (Drawing(size="٦٤x64"), "size", "bad_value"),
        (Drawing(size="100x64"), "size", "bad_value"),
        (Drawing(size="64x56"), "size", "bad_value"),
        (Drawing(size="64x520"), "size", "bad_value"),
        (Drawing(size="9" * 1_000 + "x64"), "size", "bad_value"),
        (Drawing(steps=0), "steps", "bad_value"),
        (Drawing(steps=51), "steps", "bad_value"),
        (Drawing(guidance=-0.1), "guidance", "bad_value"),
        (Drawing(guidance=math.nan), "guidance", "bad_value"),
        (Drawing(guidance=math.inf), "guidance", "bad_value"),
        (Drawing(negative="x" * 2_001), "negative", "too_large"),
        (Drawing(scheduler="Euler A"), "scheduler", "bad_value"),
        (Drawing(scheduler="x" * 33), "scheduler", "bad_value"),
        (Drawing(strength=1.01), "strength", "bad_value"),
        (Drawing(strength=math.nan), "strength", "bad_value"),
    ],
)
def test_what_no_model_could_draw_is_refused_by_its_name(drawing: Drawing, field: str, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_drawing(drawing, (PNG,), LIMITS)
    assert refused.value.message.startswith(f"{field}: ")
    assert refused.value.code == code
    assert len(refused.value.message) < 200


def test_a_strength_needs_a_picture_to_start_from() -> None:
    with pytest.raises(Rejected, match=r"^strength: .*attach"):
        check_drawing(Drawing(strength=0.5), (), LIMITS)


@pytest.mark.parametrize(
    ("prompt", "files", "field", "code"),
    [
        (" \n", (PNG,), "text", "empty"),
        ("x" * 21, (), "text", "too_large"),
        ("a boat", (PNG, PNG), "attachments", "bad_value"),
        ("a boat", (TEXT,), "attachments[0]", "media_type"),
    ],
)
def test_a_picture_needs_words_and_starts_from_one_picture_at_most(
    prompt: str, files: tuple[Attachment, ...], field: str, code: str
) -> None:
    check_picture("a boat", (), LIMITS)
    check_picture("x" * 20, (PNG,), LIMITS)
    with pytest.raises(Rejected) as refused:
        check_picture(prompt, files, LIMITS)
    assert refused.value.message.startswith(f"{field}: ")
    assert refused.value.code == code
