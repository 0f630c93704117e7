"""Sampling and constraints on the real engine: what is chosen follows the logits, the wishes and the grammar."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np
import pytest

from schemas.errors import Rejected
from schemas.message import Format, Message, Tool
from workers.llama.engine.machine import PENALTY_TOKENS, Row, Sampled, SamplerSpec
from workers.llama.fitting import file
from workers.llama.native import native
from workers.llama.native.library import c
from workers.llama.prompts.calls import Calls
from workers.llama.prompts.template import ChatTemplate
from workers.llama.prompts.tools import HERMES, LLAMA, MISTRAL, Style, constraint_for
from workers.llama.sampling.constrain import constraint
from workers.llama.sampling.sampler import likeliest

LOOSE: dict[str, Any] = {"temperature": 1.5, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
CAT = "Describe a cat as a short JSON object with a name and an age."
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "colour": {"enum": ["black", "red", "white"]},
        "age": {"type": "integer", "minimum": 1, "maximum": 30},
        "weight": {"type": "number", "exclusiveMinimum": 0, "maximum": 9.5},
        "owner": {
            "type": "object",
            "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{2,8}$"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "toys": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "colour", "age", "weight", "owner", "toys"],
    "additionalProperties": False,
}
TOOLS = (
    Tool(
        "get_weather",
        "Tells the weather of a city",
        {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"$ref": "#/$defs/Unit"}},
            "required": ["city", "unit"],
            "additionalProperties": False,
            "$defs": {"Unit": {"enum": ["C", "F"]}},
        },
    ),
    Tool(
        "add",
        "Adds two numbers",
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "integer", "maximum": 99}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    ),
)


class Answer(NamedTuple):
    text: str
    ended: bool
    tokens: list[int]


class Desk:
    """One sequence of the real engine."""

    def __init__(self, path: Path) -> None:
        self.model = native.NativeModel(file.model_file(path))
        spec = native.ContextSpec(cells=2_048, sequences=2, batch_max=1_024, threads=1)
        self.machine = native.NativeMachine(self.model, spec)
        self.template = ChatTemplate(self.model.template())

    def prompt(self, text: str, tools: tuple[Tool, ...] = ()) -> array[int]:
        return self.model.tokenise(self.template.render([Message("user", text)], tools))

    def logits(self, tokens: array[int]) -> Any:
        self.machine.cut(0, 0)
        self.machine.compute([Row(0, 0, tokens, 1)])
        pointer = c.llama_get_logits_ith(self.machine._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.model.vocabulary,))

    def chosen(self, spec: SamplerSpec, logits: Any, before: array[int] | None = None) -> Sampled:
        sampler = self.machine.sampler(spec)
        sampler.accept(before or array("i"))
        try:
            return sampler.pick(logits)
        finally:
            sampler.close()

    def answer(self, tokens: array[int], spec: SamplerSpec, most: int = 120) -> Answer:
        sampler = self.machine.sampler(spec)
        sampler.accept(tokens)
        self.logits(tokens)
        out: list[int] = []
        try:
            for i in range(most):
                token = self.machine.sample(0, 0, sampler).token
                if self.machine.ends(token):
                    return Answer(self.said(out), True, out)
                out.append(token)
                self.machine.compute([Row(0, len(tokens) + i, array("i", [token]), 1)])
        finally:
            sampler.close()
        return Answer(self.said(out), False, out)

    def said(self, tokens: list[int]) -> str:
        return b"".join(self.model.piece(t) for t in tokens).decode("utf-8", "replace")

    def close(self) -> None:
        self.machine.close()
        self.model.close()


@pytest.fixture(scope="module")
def desk(starter_model: Path) -> Iterator[Desk]:
    desk = Desk(starter_model)
    yield desk
    desk.close()


def softmax(logits: Any) -> Any:
    wide = logits.astype(np.float64)
    return wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())


# -- what is chosen, and how likely it was


def test_log_probabilities_are_those_of_the_logits_before_any_wish(desk: Desk) -> None:
    logits = desk.logits(desk.prompt("Name a colour."))
    expected = softmax(logits)
    best = np.argsort(-expected, kind="stable")[:5].tolist()
    bias = ((best[0], -50.0),)
    form = constraint(Format(type="json"))
    for spec in (
        SamplerSpec(logprobs=5),
        SamplerSpec(logprobs=5, bias=bias, **LOOSE),
        SamplerSpec(logprobs=5, constraint=form),
    ):
        said = desk.chosen(spec, logits)
        assert said.logprob == pytest.approx(expected[said.token], abs=1e-4)
        assert [token for token, _ in said.top] == best
        assert [value for _, value in said.top] == pytest.approx(expected[best].tolist(), abs=1e-4)
    assert desk.chosen(SamplerSpec(logprobs=0), logits).top == ()
    assert desk.chosen(SamplerSpec(), logits) == Sampled(best[0])


def test_a_choice_leaves_the_logits_as_they_are(desk: Desk) -> None:
    logits = desk.logits(desk.prompt("Name a colour."))
    before = logits.copy()
    form = constraint(Format(type="json"))
    for spec in (
        SamplerSpec(ban_end=True, bias=((5, 3.0),)),
        SamplerSpec(repeat_penalty=1.2, constraint=form, ban_end=True),
        SamplerSpec(bias=((5, 3.0),), constraint=form, **LOOSE),
    ):
        desk.chosen(spec, logits)
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("loose", [{}, LOOSE], ids=["greedy", "loose"])
def test_a_bias_forbids_and_forces(desk: Desk, loose: dict[str, Any]) -> None:
    logits = desk.logits(desk.prompt("Name a colour."))
    best = int(logits.argmax())
    unlikely = int(logits.argmin())
    for seed in range(10):
        assert desk.chosen(SamplerSpec(bias=((best, -100.0),), seed=seed, **loose), logits).token != best
        assert desk.chosen(SamplerSpec(bias=((unlikely, 100.0),), seed=seed, **loose), logits).token == unlikely


def test_penalties_lower_the_logits_of_what_was_said_as_they_are_defined(desk: Desk) -> None:
    logits = np.linspace(-1.0, 1.0, desk.model.vocabulary, dtype=np.float32)
    logits[[100, 200, 300]] = 5.0, 4.5, 4.2
    said = array("i", [100, 100, 100, 200])
    assert desk.chosen(SamplerSpec(), logits, said).token == 100
    assert desk.chosen(SamplerSpec(presence_penalty=1.0), logits, said).token == 300
    assert desk.chosen(SamplerSpec(frequency_penalty=0.2), logits, said).token == 100
    assert desk.chosen(SamplerSpec(frequency_penalty=0.26), logits, said).token == 200  # 5 - 0.78 < 4.5 - 0.26
    assert desk.chosen(SamplerSpec(repeat_penalty=1.3), logits, said).token == 300
    old = array("i", [100] + [7] * PENALTY_TOKENS)
    assert desk.chosen(SamplerSpec(presence_penalty=2.0), logits, old).token == 100, "beyond the window"
    assert desk.chosen(SamplerSpec(presence_penalty=-2.0), logits, array("i", [300])).token == 300


@pytest.mark.parametrize("wish", [{}, {"repeat_penalty": 1.1}, {"bias": ()}, {"ban_end": True}])
def test_the_shortlist_changes_no_choice(desk: Desk, wish: dict[str, Any]) -> None:
    """Against the definition: top-k, top-p and min-p over the whole vocabulary, by hand."""
    rng = np.random.default_rng(3)
    for spread in (0.5, 2.0, 6.0):
        logits = rng.normal(0, spread, desk.model.vocabulary).astype(np.float32)
        logits[list(desk.model.ending)] = logits.max() + 1 + 0.1 * np.arange(len(desk.model.ending))
        top = np.argsort(-logits)[:16].tolist()
        said = array("i", top[:6])
        if "bias" in wish:
            wish = {"bias": ((top[0], -9.0), (top[1], -9.0), (top[9], 2.0))}
        whole = logits.astype(np.float64)
        for token, value in wish.get("bias", ()):
            whole[token] += value
        if wish.get("ban_end"):
            whole[list(desk.model.ending)] = -np.inf
        if "repeat_penalty" in wish:
            at = sorted(set(said))
            whole[at] = np.where(whole[at] > 0, whole[at] / 1.1, whole[at] * 1.1)
        order = np.argsort(-whole)[:20]
        p = np.exp(whole[order] - whole[order[0]])
        p /= p.sum()
        kept = order[: int(np.searchsorted(np.cumsum(p), 0.8)) + 1].tolist()
        spec = {"temperature": 2.0, "top_k": 20, "top_p": 0.8}
        found = {desk.chosen(SamplerSpec(seed=s, **spec, **wish), logits, said).token for s in range(150)}
        assert found <= set(kept)
        assert len(found) > len(kept) // 2
        assert desk.chosen(SamplerSpec(**wish), logits, said).token == order[0]


def test_the_likeliest_are_found_whatever_the_spread() -> None:
    rng = np.random.default_rng(1)
    for spread in (0.001, 1.0, 50.0):
        row = rng.normal(0, spread, 5_000).astype(np.float32)
        for count in (1, 40, 5_000):
            assert set(likeliest(row, count)) == set(np.argsort(-row)[:count])
    row[10:] = -np.inf
    assert set(likeliest(row, 40)) == set(range(10))


# -- constraints


def test_json_mode_gives_an_object_that_ends_by_itself(desk: Desk) -> None:
    """So small a model may ramble on at a temperature of 1.5; then its object is cut, but not in white space."""
    form = constraint(Format(type="json"))
    wishes = [{}, *({**LOOSE, "seed": seed} for seed in range(4))]
    answers = [
        desk.answer(desk.prompt(CAT), SamplerSpec(constraint=form, repeat_penalty=1.1, **w), 160) for w in wishes
    ]
    whole = [answer for answer in answers if answer.ended]
    assert answers[0].ended
    assert len(whole) > len(answers) // 2
    assert all(isinstance(json.loads(answer.text), dict) for answer in whole)
    assert all(answer.text[0] == "{" and not re.search(r"\s{34}", answer.text) for answer in answers)


@pytest.mark.parametrize("wish", [{}, *({**LOOSE, "seed": seed} for seed in range(3))], ids=str)
def test_an_answer_follows_its_schema(desk: Desk, wish: dict[str, Any]) -> None:
    spec = SamplerSpec(constraint=constraint(Format(type="json_schema", schema=SCHEMA)), **wish)
    answer = desk.answer(desk.prompt(CAT), spec, 200)
    assert answer.ended, answer.text
    jsonschema.validate(json.loads(answer.text), SCHEMA)


def test_whole_json_ends_even_where_ends_are_banned(desk: Desk) -> None:
    form = constraint(Format(type="json_schema", schema={"const": 7}))
    for wish in ({}, LOOSE):
        spec = SamplerSpec(constraint=form, ban_end=True, **wish)
        assert desk.answer(desk.prompt(CAT), spec) == ("7", True, desk.model.tokenise("7", begin=False).tolist())


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ('root ::= answer [.!]\nanswer ::= "yes" | "no"', {"yes.", "yes!", "no.", "no!"}),
        ('start: ANSWER /[.!]/\nANSWER: "yes" | "no"', {"yes.", "yes!", "no.", "no!"}),
    ],
    ids=["gbnf", "lark"],
)
def test_an_answer_follows_its_grammar(desk: Desk, grammar: str, expected: set[str]) -> None:
    form = constraint(Format(type="grammar", grammar=grammar))
    answers = [desk.answer(desk.prompt("Is it late?"), SamplerSpec(constraint=form, seed=s, **LOOSE)) for s in range(3)]
    assert all(answer.ended for answer in answers)
    assert {answer.text for answer in answers} <= expected


def test_what_a_constraint_forces_is_what_is_chosen_next(desk: Desk) -> None:
    form = constraint(Format(type="grammar", grammar='start: "the quick brown fox " /[0-9]+/'))
    sampler = desk.machine.sampler(SamplerSpec(constraint=form, **LOOSE))
    logits = desk.logits(desk.prompt("Hello"))
    forced = list(sampler.forced())
    assert desk.said(forced).startswith("the quick brown")
    assert [sampler.pick(logits).token for _ in forced] == forced
    sampler.close()
    assert desk.machine.sampler(SamplerSpec()).forced() == ()


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (
            Format(type="json_schema", schema={"type": "object", "properties": {"a": {"not": {}}}}),
            "#/properties/a/not",
        ),
        (Format(type="json_schema", schema={"properties": {"a": {"type": "objekt"}}}), "objekt.*#/properties/a/type"),
        (Format(type="json_schema", schema={"items": {"type": "string", "pattern": "(?=x)y"}}), "#/items/pattern"),
        (Format(type="json_schema", schema={"$ref": "http://example.com/x"}), "not present"),
        (Format(type="json_schema", schema={"enum": ["x" * 70_000]}), "65536 at most"),
        (Format(type="json_schema", schema=False), "not"),
        (Format(type="json_schema"), "needs a schema"),
        (Format(type="grammar", grammar=" "), "needs a grammar"),
        (Format(type="grammar", grammar='root ::= "a'), "GBNF"),
        (Format(type="grammar", grammar="start: nothing"), "nothing"),
        (Format(type="grammar", grammar="root ::= " + "(" * 5_000 + '"a"' + ")" * 5_000), "too deep"),
        (
            Format(
                type="grammar",
                grammar="start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(4_000)) + 'r4000: "a"',
            ),
            "too deep or too large",
        ),
        (
            Format(
                type="json_schema",
                schema={"type": "string", "allOf": [{"pattern": f".*{'x' * i}.*"} for i in range(1, 30)]},
            ),
            "longer than",
        ),
    ],
    ids=lambda value: "" if isinstance(value, Format) else value,
)
def test_what_cannot_be_followed_is_refused_with_its_place(desk: Desk, form: Format, says: str) -> None:
    for _ in range(2):
        with pytest.raises(Rejected, match=says) as refusal:
            desk.machine.sampler(SamplerSpec(constraint=constraint(form)))
        assert refusal.value.code == "bad_format"
    assert desk.answer(
        desk.prompt("Hi"), SamplerSpec(constraint=constraint(Format(type="json_schema", schema={"const": 1})))
    )


# -- tools


@pytest.mark.parametrize("style", [HERMES, LLAMA, MISTRAL], ids=lambda style: style.name)
@pytest.mark.parametrize("choice", ["required", "=get_weather"])
def test_a_required_call_comes_and_its_arguments_follow_the_schema(desk: Desk, choice: str, style: Style) -> None:
    form = constraint_for(TOOLS, choice, False, style)
    for wish in ({}, {**LOOSE, "seed": 5}):
        answer = desk.answer(desk.prompt("What is the weather in Rome?", TOOLS), SamplerSpec(constraint=form, **wish))
        assert answer.ended, answer.text
        reader = Calls(style, [tool.name for tool in TOOLS], "r")
        shown = reader.feed(answer.text)
        rest, (call,) = reader.close()
        assert shown + rest == ""
        assert choice in ("required", f"={call.name}")
        tool = next(tool for tool in TOOLS if tool.name == call.name)
        jsonschema.validate(json.loads(call.arguments), tool.parameters)


def accepts(desk: Desk, form: str, text: str) -> bool:
    """Whether an answer may be `text` and end there."""
    follow = desk.model.guide.follow(form)
    for token in desk.model.tokenise(text, begin=False):
        if not follow.allows(token):
            return False
        follow.accept(token)
    return follow._matcher.is_accepting()


GOOD = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
BAD = '{"name": "add", "arguments": {"a": "x"}}'


@pytest.mark.parametrize(
    ("style", "text", "may"),
    [
        (HERMES, "Just words.", True),
        (HERMES, f"Let me see.\n<tool_call>\n{GOOD}\n</tool_call>", True),
        (HERMES, f"<tool_call>\n{GOOD}\n</tool_call>\n<tool_call>\n{GOOD}\n</tool_call>", True),
        (HERMES, f"<tool_call>\n{BAD}\n</tool_call>", False),
        (HERMES, "<tool_call> well", False),
        (LLAMA, "Just words.", True),
        (LLAMA, GOOD.replace("arguments", "parameters"), True),
        (LLAMA, '{"name": "sub", "parameters": {}}', False),
        (MISTRAL, "Just words.", True),
        (MISTRAL, f"[TOOL_CALLS][{GOOD}, {GOOD}]", True),
        (MISTRAL, f"[TOOL_CALLS][{BAD}]", False),
        (MISTRAL, f"Words [TOOL_CALLS]{GOOD}", False),
    ],
)
def test_free_words_are_free_and_calls_among_them_well_formed(desk: Desk, style: Style, text: str, may: bool) -> None:
    assert accepts(desk, constraint_for(TOOLS, "auto", True, style), text) == may


def test_one_call_at_most_where_parallel_calls_are_unwanted(desk: Desk) -> None:
    two = f"<tool_call>\n{GOOD}\n</tool_call>\n<tool_call>\n{GOOD}\n</tool_call>"
    for choice in ("auto", "required"):
        assert accepts(desk, constraint_for(TOOLS, choice, True), two)
        assert not accepts(desk, constraint_for(TOOLS, choice, False), two)
    assert not accepts(desk, constraint_for(TOOLS, "=add", True), two)


def test_an_answer_without_a_call_keeps_to_the_format_beside_the_tools(desk: Desk) -> None:
    form = constraint_for(TOOLS, "auto", True, HERMES, form=Format(type="json"))
    assert accepts(desk, form, '{"a": 1}')
    assert accepts(desk, form, f"<tool_call>\n{GOOD}\n</tool_call>")
    assert not accepts(desk, form, "words")


def test_marks_that_are_control_tokens_are_chosen_as_such(desk: Desk) -> None:
    begin, end = (desk.model.tokenise(name, begin=False)[0] for name in ("<file_sep>", "<filename>"))
    form = constraint_for(TOOLS, "=add", True, HERMES, tokens={"<tool_call>": begin, "</tool_call>": end})
    answer = desk.answer(desk.prompt("Add 1 and 2", TOOLS), SamplerSpec(constraint=form))
    assert (answer.tokens[0], answer.tokens[-1], answer.ended) == (begin, end, True)
    assert json.loads(answer.text)["name"] == "add"
