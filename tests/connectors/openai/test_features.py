"""Tools, forms, log probabilities, several answers and embeddings, with OpenAI's own clients."""

import base64
import json
import math
import struct
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from schemas.message import Message, Tool, ToolCall
from tests import node
from tests.connectors.openai.double import KEY
from tests.connectors.openai.features import CITY, TOOL, capable, vector
from tests.connectors.openai.test_api import Api, serving

HELLO = [{"role": "user", "content": "hello small world"}]
WEATHER = [{"role": "user", "content": "How is the weather in Bonn"}]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as served:
        served.host.script = capable
        yield served


async def test_a_tool_is_called_and_its_result_brought_back(api: Api) -> None:
    async with api.client as client:
        first = await client.chat.completions.create(model="echo", messages=WEATHER, tools=[TOOL])
        choice = first.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        [call] = choice.message.tool_calls
        assert (call.type, call.function.name) == ("function", "weather")
        assert json.loads(call.function.arguments) == {"city": "Bonn"}
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain in Bonn"}
        second = await client.chat.completions.create(
            model="echo", messages=[*WEATHER, choice.message.model_dump(), result], tools=[TOOL]
        )
    assert second.choices[0].message.content == "rain in Bonn"
    assert api.host.asked[0].sampling.tools == (Tool("weather", "The weather now", CITY),)
    assert api.host.asked[1].history[1:] == (
        Message("assistant", "", (ToolCall(call.id, "weather", call.function.arguments),)),
        Message("tool", "rain in Bonn", tool_call=call.id, name="weather"),
    )


async def test_streamed_tool_calls_are_put_together_by_the_client(api: Api) -> None:
    tools = [TOOL, {"type": "function", "function": {**TOOL["function"], "name": "forecast"}}]
    async with (
        api.client as client,
        client.chat.completions.stream(model="echo", messages=WEATHER, tools=tools) as events,
    ):
        async for _ in events:
            pass
        done = await events.get_final_completion()
    calls = done.choices[0].message.tool_calls
    assert [(call.id, call.function.name) for call in calls] == [("call_0", "weather"), ("call_1", "forecast")]
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Bonn", "Bonn"]
    assert done.choices[0].finish_reason == "tool_calls"


async def test_the_client_parses_an_answer_into_its_own_class(api: Api) -> None:
    class Said(BaseModel):
        said: str

    async with api.client as client:
        done = await client.chat.completions.parse(model="echo", messages=HELLO, response_format=Said)
    assert done.choices[0].message.parsed == Said(said="hello small world")
    format_ = api.host.asked[0].sampling.format
    assert format_.type == "json_schema"
    assert format_.schema["properties"]["said"]["type"] == "string"


async def test_log_probabilities_of_a_chat_join_to_its_text(api: Api) -> None:
    async with api.client as client:
        done = await client.chat.completions.create(model="echo", messages=HELLO, logprobs=True, top_logprobs=3)
        plain = await client.chat.completions.create(model="echo", messages=HELLO)
    told = done.choices[0].logprobs.content
    assert "".join(token.token for token in told) == done.choices[0].message.content
    assert all(bytes(token.bytes).decode() == token.token for token in told)
    assert [len(token.top_logprobs) for token in told] == [3, 3, 3]
    assert plain.choices[0].logprobs is None


async def test_several_answers_are_streamed_beside_each_other_with_their_log_probabilities(api: Api) -> None:
    async with api.client as client:
        stream = await client.chat.completions.create(model="echo", messages=HELLO, n=3, logprobs=True, stream=True)
        chunks = [chunk async for chunk in stream]
    texts, told = [""] * 3, [""] * 3
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            told[choice.index] += "".join(t.token for t in choice.logprobs.content) if choice.logprobs else ""
    assert texts == told == ["hello small world", "HELLO SMALL WORLD", "HELLO SMALL WORLD"]
    order = [choice.index for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert order != sorted(order), "one answer does not wait for another"
    ends = [(c.index, c.finish_reason) for chunk in chunks for c in chunk.choices if c.finish_reason]
    assert ends == [(0, "stop"), (1, "length"), (2, "length")]


async def test_several_answers_come_whole(api: Api) -> None:
    async with api.client as client:
        done = await client.chat.completions.create(model="echo", messages=HELLO, n=2)
    assert [(c.index, c.message.content) for c in done.choices] == [(0, "hello small world"), (1, "HELLO SMALL WORLD")]
    assert done.usage.completion_tokens == 6


async def test_a_completion_tells_its_log_probabilities_in_its_own_shape(api: Api) -> None:
    async with api.client as client:
        done = await client.completions.create(model="echo", prompt="once upon", logprobs=2, n=2)
        pieces = [
            p async for p in await client.completions.create(model="echo", prompt="once upon", logprobs=2, stream=True)
        ]
    told = done.choices[0].logprobs
    assert (told.tokens, told.token_logprobs, told.text_offset) == (["once", " upon"], [-0.5, -0.5], [0, 4])
    assert set(told.top_logprobs[0]) == {"once", "other0", "other1"}
    assert [c.text for c in done.choices] == ["once upon", "ONCE UPON"]
    streamed = [p.choices[0].logprobs for p in pieces if p.choices[0].logprobs]
    assert [(t.tokens, t.text_offset) for t in streamed] == [(["once"], [0]), ([" upon"], [4])]


async def test_texts_are_embedded_in_the_clients_own_encoding(api: Api) -> None:
    async with api.client as client:
        plain = await client.embeddings.create(model="echo", input=["a b", "c"], encoding_format="float")
        packed = await client.embeddings.create(model="echo", input="a b")
        coded = await client.embeddings.create(model="echo", input="a b", encoding_format="base64")
        short = await client.embeddings.create(model="echo", input="a b", dimensions=2)
    expected = list(struct.unpack("<8f", vector("a b")))
    assert plain.data[0].embedding == pytest.approx(expected)
    assert packed.data[0].embedding == pytest.approx(expected)
    assert base64.b64decode(coded.data[0].embedding) == vector("a b")
    assert [row.index for row in plain.data] == [0, 1]
    assert (plain.usage.prompt_tokens, plain.usage.total_tokens) == (3, 3)
    assert math.hypot(*short.data[0].embedding) == pytest.approx(1)


async def test_an_embedding_is_found_by_its_id_in_its_own_shape(api: Api) -> None:
    status, body, _ = await api.post("/v1/embeddings", {"input": "a", "encoding_format": "base64"})
    assert status == 200
    _, found = await api.get(f"/v1/requests/{body['roost']['request']}")
    assert found["response"]["data"] == body["data"]


@pytest.mark.parametrize(
    ("input", "param"), [([], "input"), ([1, 2], "input"), (["a", [1]], "input[1]"), ({"a": 1}, "input")]
)
async def test_what_is_no_text_is_not_embedded(api: Api, input: Any, param: str) -> None:
    status, body, _ = await api.post("/v1/embeddings", {"model": "echo", "input": input})
    assert (status, body["error"]["param"], body["error"]["type"]) == (400, param, "invalid_request_error")
    assert not api.host.asked


async def test_more_dimensions_than_there_are_are_refused(api: Api) -> None:
    async with api.client as client:
        with pytest.raises(openai.BadRequestError, match="have 8") as caught:
            await client.embeddings.create(model="echo", input="a", dimensions=9)
    assert caught.value.param == "dimensions"


async def test_the_answer_says_why_this_model_gave_it(api: Api) -> None:
    async with api.client as client:
        done = await client.chat.completions.create(model="auto", messages=HELLO, extra_body={"kind": "code"})
    assert done.roost["route"]["reason"] == "language"
    assert "questions in en" in done.roost["route"]["why"]
    assert (api.host.asked[0].model, api.host.asked[0].kind) == ("auto", "code")


async def test_the_npm_client_calls_tools_keeps_forms_counts_answers_and_embeds(api: Api) -> None:
    seen = json.loads(await node.run("openai_features.mjs", ROOST_URL=f"{api.url}/v1", ROOST_KEY=KEY))
    assert seen["called"] == {"reason": "tool_calls", "name": "weather", "arguments": {"city": "Bonn"}}
    assert seen["result"] == "rain in Bonn"
    assert seen["streamedCall"] == [{"name": "weather", "arguments": {"city": "Bonn"}}]
    assert seen["parsed"] == {"said": "hello small world"}
    assert seen["answers"] == ["hello small world", "HELLO SMALL WORLD"]
    assert seen["logprobs"] == seen["streamedLogprobs"] == "hello small world"
    assert seen["embedding"] == pytest.approx(list(struct.unpack("<8f", vector("a b"))))
    assert seen["dimensions"] == [2, 2]
