"""Golden prompts: which answers are good enough."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.model import GoldenAnswer
from schemas.release import Expected, Golden
from updater.golden import judge


def golden(kind: Any = "chat", **expect: Any) -> Golden:
    return Golden(prompt="The capital of France?", kind=kind, expect=Expected(**expect))


GOOD = [
    (golden(), "Paris"),
    (golden(contains=("paris", "FRANCE")), "Paris, in France"),
    (golden(contains_any=("Lyon", "Paris")), "It is paris."),
    (golden(lacks=("London",)), "Paris"),
    (golden(chars_min=5, chars_max=5), "Paris"),
    (golden(chars_min=0), ""),
    (golden(json=True), ' {"capital": "Paris"} '),
]
BAD = [
    (golden(), "", "shorter than 1"),
    (golden(), " \n", "shorter than 1"),
    (golden(contains=("paris", "france")), "Paris", "lacks 'france'"),
    (golden(contains_any=("Lyon", "Paris")), "London", "none of 'Lyon', 'Paris'"),
    (golden(lacks=("london",)), "London", "has 'london'"),
    (golden(chars_max=4), "Paris", "longer than 4"),
    (golden(json=True), "{'capital': 1}", "no JSON"),
    (golden(json=True), "[" * 100_000, "no JSON"),
    (golden(json=True), "\ud800", "no JSON"),
]


@pytest.mark.parametrize(("asked", "text"), GOOD)
def test_an_answer_with_every_property_is_good(asked: Golden, text: str) -> None:
    assert judge([asked], [GoldenAnswer(text=text)]) == ""


@pytest.mark.parametrize(("asked", "text", "why"), BAD)
def test_an_answer_that_lacks_one_property_is_bad_and_the_reason_names_prompt_and_property(
    asked: Golden, text: str, why: str
) -> None:
    said = judge([asked], [GoldenAnswer(text=text)])
    assert why in said
    assert "'The capital of France?'" in said


def test_the_end_of_an_answer_and_the_size_of_an_embedding_are_properties_too() -> None:
    assert judge([golden(finish="stop")], [GoldenAnswer(text="x", finish="stop")]) == ""
    assert "ended by length" in judge([golden(finish="stop")], [GoldenAnswer(text="x", finish="length")])
    asked = golden("embedding", dimensions=384)
    assert judge([asked], [GoldenAnswer(dimensions=384)]) == ""
    assert "768 dimensions" in judge([asked], [GoldenAnswer(dimensions=768)])
    assert "no embedding" in judge([golden("embedding")], [GoldenAnswer()])


def test_an_error_is_no_answer_and_every_prompt_needs_one() -> None:
    assert "no answer, it hung" in judge([golden(chars_min=0)], [GoldenAnswer(error="it hung")])
    assert judge([golden()], []) == "0 answers to 1 golden prompts"
    assert judge([], []) == ""


def test_a_long_answer_is_quoted_in_part() -> None:
    assert len(judge([golden(chars_max=4)], [GoldenAnswer(text="Paris " * 1000)])) < 300


def test_a_picture_shows_the_colours_that_were_promised_or_near_ones() -> None:
    asked = golden("image", sees=("#ff0000", "#ffffff"))
    assert judge([asked], [GoldenAnswer(palette=("#fefefe", "#f01010"))]) == ""
    assert "shows no #ff0000, but #ffffff" in judge([asked], [GoldenAnswer(palette=("#ffffff",))])
    assert "no picture" in judge([golden("image")], [GoldenAnswer()])
