"""Whether a staged model's answers to the golden prompts are what the publisher promised. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import dist

import msgspec

from schemas.model import GoldenAnswer
from schemas.release import Golden

QUOTED_MAX = 80
NEAR = 48.0
"""Between colours that are taken for one: a fifth of the way from black to red."""
SHOWN_MAX = 4


def judge(goldens: Sequence[Golden], answers: Sequence[GoldenAnswer]) -> str:
    """Why the answers are not good enough, with prompt and answer; empty when all of them are."""
    if len(answers) != len(goldens):
        return f"{len(answers)} answers to {len(goldens)} golden prompts"
    for golden, answer in zip(goldens, answers, strict=True):
        if wrong := _wrong(golden, answer):
            return f"golden prompt {_quoted(golden.prompt)}: {wrong}; the answer was {_quoted(answer.text)}"
    return ""


def _wrong(golden: Golden, answer: GoldenAnswer) -> str:
    expect, text = golden.expect, answer.text.casefold()
    if answer.error:
        return f"no answer, {answer.error}"
    if missing := [part for part in expect.contains if part.casefold() not in text]:
        return f"lacks {_quoted(missing[0])}"
    if expect.contains_any and not any(part.casefold() in text for part in expect.contains_any):
        return f"has none of {', '.join(_quoted(part) for part in expect.contains_any)}"
    if found := [part for part in expect.lacks if part.casefold() in text]:
        return f"has {_quoted(found[0])}"
    if golden.kind == "image" and not answer.palette:
        return "no picture"
    if unseen := [colour for colour in expect.sees if not _seen(colour, answer.palette)]:
        return f"shows no {unseen[0]}, but {', '.join(answer.palette[:SHOWN_MAX])}"
    if golden.kind in ("chat", "completion") and len(answer.text.strip()) < expect.chars_min:
        return f"shorter than {expect.chars_min} characters"
    if expect.chars_max is not None and len(answer.text) > expect.chars_max:
        return f"longer than {expect.chars_max} characters"
    if expect.json and not _is_json(answer.text):
        return "is no JSON"
    if expect.finish and answer.finish != expect.finish:
        return f"ended by {answer.finish or 'nothing'} instead of {expect.finish}"
    if (golden.kind == "embedding" or expect.dimensions) and not answer.dimensions:
        return "no embedding"
    if expect.dimensions and answer.dimensions != expect.dimensions:
        return f"{answer.dimensions} dimensions instead of {expect.dimensions}"
    return ""


def _seen(colour: str, palette: Sequence[str]) -> bool:
    return any(dist(_rgb(colour), _rgb(other)) <= NEAR for other in palette)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _quoted(text: str) -> str:
    return repr(text if len(text) <= QUOTED_MAX else f"{text[:QUOTED_MAX]}…")
