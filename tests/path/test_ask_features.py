"""The newer fields of `roost.ask` on a running Roost: conversations brought along, and wishes that echo cannot meet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.running import RunningRoost

TOOL = {"name": "weather", "parameters": {"type": "object"}}
CALLED = {"role": "assistant", "text": "", "tool_calls": [{"id": "c1", "name": "weather"}]}


@pytest.fixture
async def client(roost: RunningRoost) -> Any:
    nc = await roost.client()
    yield nc
    await nc.close()


async def test_a_conversation_that_is_brought_along_is_read_and_not_kept(roost: RunningRoost, client: Any) -> None:
    messages = [{"role": "user", "text": "one two"}, {"role": "assistant", "text": "three"}]
    answer = await roost.ask(client, {"model": "echo", "messages": messages, "text": "four five"})
    assert answer["text"] == "four five"
    assert answer["usage"]["prompt_tokens"] == 5
    alone = await roost.ask(client, {"model": "echo", "text": "four five"})
    assert alone["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize("kind", ["auto", "chat", "code", "long", "completion"])
async def test_every_kind_of_text_is_answered(roost: RunningRoost, client: Any, kind: str) -> None:
    assert (await roost.ask(client, {"model": "echo", "kind": kind, "text": "hello"}))["text"] == "hello"


@pytest.mark.parametrize(
    ("body", "code", "begins"),
    [
        ({"text": "hi", "tools": [TOOL]}, "unsupported", "tools: the model 'echo'"),
        ({"text": "hi", "format": {"type": "json"}}, "unsupported", "format: the model 'echo'"),
        ({"text": "hi", "adapter": "pirate"}, "unsupported", "adapter: the model 'echo'"),
        ({"messages": [CALLED, {"role": "user", "text": "hi"}]}, "unsupported", "messages[0]: the model 'echo'"),
        ({"text": "hi", "conversation": "c", "tools": [TOOL]}, "unsupported", "tools: a stored conversation"),
        ({"text": "hi", "conversation": "c", "messages": [CALLED]}, "bad_value", "messages: "),
        ({"messages": [{"role": "tool", "text": "x", "tool_call": "c1"}]}, "bad_value", "messages[0].tool_call: "),
        ({"text": "hi", "tools": [TOOL], "tool_choice": "=nothing"}, "bad_value", "tool_choice: "),
        ({"text": "hi", "format": {"type": "json_schema"}}, "bad_value", "format.schema: "),
        ({"text": "hi", "format": {"type": "yaml"}}, "invalid_request", ""),
        ({"text": "hi", "kind": "poem"}, "invalid_request", ""),
        ({"text": "hi", "inputs": ["a"]}, "bad_value", "inputs: "),
        ({"kind": "embedding", "inputs": ["a", ""]}, "empty", "inputs[1]: "),
        ({"text": "hi", "presence_penalty": 3}, "bad_value", "presence_penalty: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_done_is_said_with_the_name_of_the_field(
    roost: RunningRoost, client: Any, body: dict[str, Any], code: str, begins: str
) -> None:
    answer = await roost.ask(client, {"model": "echo", **body})
    assert answer["error"]["code"] == code, answer
    assert answer["error"]["message"].startswith(begins)


async def test_texts_to_embed_need_a_model_that_can(roost: RunningRoost, client: Any) -> None:
    for body in ({"inputs": ["a", "b"]}, {"text": "a"}):
        answer = await roost.ask(client, {"model": "echo", "kind": "embedding", **body})
        assert answer["error"]["code"] == "unsupported", answer
