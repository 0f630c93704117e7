"""Messages and tools in OpenAI's shape."""

import json
from typing import Any

import pytest

from connectors.openai.decode import BadParameter
from connectors.openai.request import chat, chat_inbound
from schemas.message import Inbound, Message, Tool, ToolCall

HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tell it", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}


def inbound(**fields: Any) -> Inbound:
    return chat_inbound(chat(json.dumps({"messages": HELLO} | fields).encode()), id="i", key="k")


def refused(**fields: Any) -> BadParameter:
    with pytest.raises(BadParameter) as caught:
        inbound(**fields)
    return caught.value


def test_tools_and_their_choice_become_sampling() -> None:
    sampling = inbound(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False).sampling
    assert sampling.tools == (Tool("weather", "Tell it", SCHEMA),)
    assert (sampling.tool_choice, sampling.parallel_tool_calls) == ("required", False)
    named = inbound(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "weather"}}).sampling
    assert (named.tool_choice, named.parallel_tool_calls) == ("=weather", True)
    bare = inbound(tools=[{"type": "function", "function": {"name": "now"}}]).sampling
    assert (bare.tools, bare.tool_choice) == ((Tool("now"),), "auto")


def test_a_call_and_its_result_stand_in_the_conversation() -> None:
    asked = inbound(messages=[
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
    ])  # fmt: skip
    assert asked.history is not None
    assert asked.history[1:] == (
        Message("assistant", "", (ToolCall("call_1", "weather", '{"city": "Köln"}'),)),
        Message("tool", "rain", tool_call="call_1", name="weather"),
    )


def test_words_beside_a_call_are_kept() -> None:
    asked = inbound(messages=[*HELLO, {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}])
    assert asked.history is not None
    assert (asked.history[1].text, asked.history[1].tool_calls[0].name) == ("I look.", "weather")


RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [WEATHER, {"type": "function", "function": {}}]}, "tools[1].function"),
        ({"tools": [{"type": "function", "function": {"name": "x", "parameters": 5}}]}, "tools[0].function.parameters"),
        ({"tools": "weather"}, "tools"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"messages": [RESULT]}, "messages[0].tool_call_id"),
        ({"messages": [CALLED, {"role": "tool", "content": "rain"}]}, "messages[1].tool_call_id"),
        ({"messages": [CALLED, RESULT | {"tool_call_id": "call_2"}]}, "messages[1].tool_call_id"),
        ({"messages": [CALLED, RESULT | {"content": None}]}, "messages[1].content"),
        ({"messages": [CALLED | {"role": "user"}]}, "messages[0].tool_calls"),
        ({"messages": [CALLED | {"tool_calls": [CALL | {"type": "x"}]}]}, "messages[0].tool_calls[0].type"),
        ({"messages": [CALLED | {"tool_calls": [{"id": "c"}]}]}, "messages[0].tool_calls[0].function"),
        ({"messages": [CALLED | {"tool_calls": [CALL | {"id": ""}]}]}, "messages[0].tool_calls[0].id"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "assistant", "content": "x", "function_call": {"name": "f"}}]}, "messages[0]"),
    ],
)
def test_a_refusal_names_the_place(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert param in error.message
