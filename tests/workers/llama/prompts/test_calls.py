"""What is shown of an answer that may call tools, and what is called. The pieces may be cut anywhere."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.llama.prompts.calls import Calls
from workers.llama.prompts.tools import HERMES, LLAMA, MISTRAL, Style

ONE = '{"name": "add", "arguments": {"a": 1, "b": "</x> }"}}'
LONE = '{"name": "add", "parameters": {"a": 1}}'


def read(text: str, style: Style = HERMES, cuts: list[int] | None = None) -> tuple[str, list[tuple[str, str]]]:
    """What is shown and called; checks that nothing is taken back."""
    calls = Calls(style, ["add", "look_up"], "r1")
    edges = sorted({0, len(text), *(c % (len(text) + 1) for c in cuts or range(len(text)))})
    shown = "".join(calls.feed(text[a:b]) for a, b in pairwise(edges))
    rest, found = calls.close()
    return shown + rest, [(call.name, call.arguments) for call in found]


@pytest.mark.parametrize(
    ("style", "text", "shown", "called"),
    [
        (HERMES, f"Wait.\n<tool_call>\n{ONE}\n</tool_call>", "Wait.", ['{"a": 1, "b": "</x> }"}']),
        (HERMES, f"<tool_call>{ONE}</tool_call>\n<tool_call>{ONE}</tool_call>\n", "", ['{"a": 1, "b": "</x> }"}'] * 2),
        (HERMES, f"<tool_call>[{ONE}]</tool_call> Done.", " Done.", ['{"a": 1, "b": "</x> }"}']),
        (HERMES, f"<tool_call>{ONE}", "", ['{"a": 1, "b": "</x> }"}']),
        (HERMES, f"<tool_call>{ONE}\n</tool_c", "", ['{"a": 1, "b": "</x> }"}']),
        (
            HERMES,
            '<tool_call>{"name": "add", "arguments": {"a": "</tool_call>"}}</tool_call>',
            "",
            ['{"a": "</tool_call>"}'],
        ),
        (HERMES, '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', "", ['{"a": 1}']),
        (HERMES, '<tool_call>{"name": "add"}</tool_call>', "", ["{}"]),
        (LLAMA, LONE, "", ['{"a": 1}']),
        (LLAMA, f"\n{LONE}; {LONE}", "", ['{"a": 1}'] * 2),
        (LLAMA, f"<|python_tag|>{LONE}", "", ['{"a": 1}']),
        (MISTRAL, f"[TOOL_CALLS] [{ONE}, {ONE}]", "", ['{"a": 1, "b": "</x> }"}'] * 2),
    ],
)
def test_calls_are_read_and_never_shown(style: Style, text: str, shown: str, called: list[str]) -> None:
    assert read(text, style) == (shown, [("add", arguments) for arguments in called])


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (HERMES, "a <tool_call>\n{not json}\n</tool_call> b\n"),
        (HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": [1]}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": NaN}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "argum'),
        (HERMES, f"<tool_call>{'[' * 100_000}</tool_call>"),
        (LLAMA, '{"name": "Anna", "parameters": {}}'),
        (LLAMA, '{"answer": 42}'),
        (LLAMA, "<|python_tag|>print(1)"),
        (MISTRAL, "[TOOL_CALLS] maybe"),
        (HERMES, " \n "),
    ],
)
def test_what_only_looks_like_a_call_comes_out_as_it_went_in(style: Style, text: str) -> None:
    cuts = [] if len(text) > 1_000 else None
    assert read(text, style, cuts) == (text, [])


def test_an_answer_in_json_that_is_no_call_is_shown_as_it_comes() -> None:
    calls = Calls(LLAMA, ["add"], "r1")
    assert calls.feed('{"na') == ""
    assert calls.feed('mes": [1') == '{"names": [1'
    assert calls.feed("]}") == "]}"


def test_ids_depend_on_the_request_the_answer_and_the_place_alone() -> None:
    def ids(request: str, choice: int = 0) -> list[str]:
        calls = Calls(HERMES, ["add"], request, choice)
        calls.feed(f"<tool_call>{ONE}</tool_call>" * 2)
        return [call.id for call in calls.close()[1]]

    assert ids("r1") == ids("r1")
    assert len({*ids("r1"), *ids("r2"), *ids("r1", 1)}) == 6
    assert all(len(i) == 9 and i.isalnum() for i in ids("r1"))


fragments = st.lists(
    st.sampled_from([
        "<tool_call>", "</tool_call>", "<tool", "_call>", "[TOOL_CALLS]", "<|python_tag|>", ONE, LONE, f"[{ONE}]", "{",
        '{"name": "', '"', "\\", " ", "\n", "word", "ü€", ";",
    ]),
    max_size=12,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    text=fragments | st.text(max_size=40),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
    style=st.sampled_from([HERMES, LLAMA, MISTRAL]),
)
def test_the_pieces_make_no_difference(text: str, cuts: list[int], style: Style) -> None:
    shown, called = read(text, style, cuts)
    assert (shown, called) == read(text, style, [0])
    assert all(isinstance(json.loads(arguments), dict) for _, arguments in called)
    if not called:
        assert shown == text


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=12),
            st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(), max_size=3),
        ),
        max_size=4,
    ),
    cuts=st.lists(st.integers(0, 10_000), max_size=20),
)
def test_all_calls_are_found_between_any_words(parts: list[tuple[str, dict[str, object]]], cuts: list[int]) -> None:
    text = "".join(
        f'{words}<tool_call>\n{{"name": "add", "arguments": {json.dumps(arguments, ensure_ascii=False)}}}\n</tool_call>'
        for words, arguments in parts
    )
    shown, called = read(text, HERMES, cuts)
    assert [json.loads(arguments) for _, arguments in called] == [arguments for _, arguments in parts]
    assert shown == "".join(words.rstrip() for words, _ in parts)
