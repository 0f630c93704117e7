"""Tools, forms, several answers, log probabilities, embeddings and code on the real model, over HTTP and NATS."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.running import RunningRoost, running

NAME = "text-generation"
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather now", "parameters": CITY}}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[RunningRoost]:
    model = {"name": NAME, "type": "llama", "path": str(starter_model), "max_tokens": 64}
    with running(tmp_path_factory.mktemp("features"), {"models": [model]}) as started:
        yield started


@pytest.fixture(scope="module")
def key(house: RunningRoost) -> str:
    return house.key()


@pytest.fixture
async def client(house: RunningRoost, key: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{house.http}/v1", api_key=key, max_retries=0, timeout=90) as made:
        yield made


@pytest.fixture
async def nats(house: RunningRoost) -> Any:
    connected = await house.client()
    yield connected
    await connected.close()


async def test_an_answer_is_parsed_into_the_clients_own_class(client: AsyncOpenAI) -> None:
    class Verdict(BaseModel):
        mood: Literal["good", "bad"]
        stars: Literal[1, 2, 3, 4, 5]

    talk = [{"role": "user", "content": "Judge this film: a dull story, well told."}]
    for _ in range(2):
        done = await client.chat.completions.parse(model=NAME, messages=talk, response_format=Verdict, temperature=1.2)
        assert isinstance(done.choices[0].message.parsed, Verdict)
        assert done.choices[0].finish_reason == "stop"


async def test_a_tool_is_called_and_the_answer_uses_its_result(client: AsyncOpenAI) -> None:
    talk: list[Any] = [{"role": "user", "content": "How is the weather in Bonn?"}]
    named = {"type": "function", "function": {"name": "weather"}}
    asked = {"model": NAME, "tools": [WEATHER], "temperature": 0, "max_tokens": 96}
    first = (await client.chat.completions.create(messages=talk, tool_choice=named, **asked)).choices[0]
    [call] = first.message.tool_calls
    assert first.finish_reason == "tool_calls"
    assert set(json.loads(call.function.arguments)) == {"city"}
    talk += [first.message.model_dump(exclude_none=True)]
    talk += [{"role": "tool", "tool_call_id": call.id, "content": '{"sky": "rain", "degrees": 11}'}]
    second = await client.chat.completions.create(messages=talk, tool_choice="none", **asked)
    assert second.choices[0].message.content
    alone = await client.chat.completions.create(messages=talk[:1], tool_choice="none", **asked)
    assert second.usage.prompt_tokens > alone.usage.prompt_tokens + 10, "the model has read the call and its result"


async def test_a_streamed_call_is_put_together_by_the_client(client: AsyncOpenAI) -> None:
    asked = {"model": NAME, "messages": QUESTION, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 96,
             "parallel_tool_calls": False, "temperature": 0}  # fmt: skip
    async with client.chat.completions.stream(**asked) as events:
        text = "".join([event.delta async for event in events if event.type == "content.delta"])
        choice = (await events.get_final_completion()).choices[0]
    assert text == "", "the model's own way to write a call is not shown"
    assert choice.finish_reason == "tool_calls"
    assert "city" in json.loads(choice.message.tool_calls[0].function.arguments)


async def test_several_answers_differ_and_a_stream_tells_those_that_are_kept(
    client: AsyncOpenAI, house: RunningRoost, key: str
) -> None:
    asked = {"model": NAME, "messages": QUESTION, "temperature": 1.5, "seed": 7, "max_tokens": 16}
    several = await client.chat.completions.create(n=3, **asked)
    assert len({choice.message.content for choice in several.choices}) > 1
    assert 3 <= several.usage.completion_tokens <= 48
    streamed, ends, request = [""] * 3, set(), ""
    async for chunk in await client.chat.completions.create(n=3, stream=True, **asked):
        request = chunk.id
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            ends |= {(choice.index, choice.finish_reason)} if choice.finish_reason else set()
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{house.http}/v1/requests/{request}") as found:
        kept = (await found.json())["response"]["choices"]
    assert streamed == [choice["message"]["content"] for choice in kept]
    assert ends == {(choice["index"], choice["finish_reason"]) for choice in kept}


async def test_log_probabilities_are_told_for_each_streamed_token(client: AsyncOpenAI) -> None:
    asked = {"model": NAME, "messages": QUESTION, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    whole = (await client.chat.completions.create(**asked)).choices[0]
    streamed = []
    async for chunk in await client.chat.completions.create(stream=True, **asked):
        streamed += [t for c in chunk.choices if c.logprobs for t in c.logprobs.content]
    assert [t.token for t in streamed] == [t.token for t in whole.logprobs.content]
    assert [t.logprob for t in streamed] == pytest.approx([t.logprob for t in whole.logprobs.content], abs=0.05)
    assert all(t.logprob <= 0 for t in streamed)


async def test_a_code_question_gets_the_shared_prompt_for_components(client: AsyncOpenAI, house: RunningRoost) -> None:
    asked = {"model": NAME, "messages": [{"role": "user", "content": "A login form"}], "max_tokens": 4}
    plain = await client.chat.completions.create(**asked, extra_body={"kind": "chat"})
    answers = []
    for name in ("ann", "bob"):
        one = client.with_options(api_key=house.key(name))
        answers.append(await one.chat.completions.create(**asked, extra_body={"kind": "code"}))
    assert answers[0].usage.prompt_tokens > plain.usage.prompt_tokens + 60
    assert answers[0].roost["route"]["kind"] == "code"
    cached = answers[1].usage.prompt_tokens_details.cached_tokens
    assert cached > 60, "the operator's words are computed once for all"


async def test_vectors_are_the_same_over_http_and_nats(client: AsyncOpenAI, house: RunningRoost, nats: Any) -> None:
    texts = ["The cat sleeps on the sofa", "A cat is sleeping on a couch", "Interest rates rose by half a point"]
    told = await client.embeddings.create(model=NAME, input=texts)
    vectors = [row.embedding for row in told.data]
    answer = await house.ask(nats, {"model": NAME, "kind": "embedding", "inputs": texts}, timeout_s=60)
    over_nats = [list(struct.unpack(f"<{len(vectors[0])}f", base64.b64decode(v))) for v in answer["embeddings"]]
    for one, other in zip(vectors, over_nats, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
        assert sum(x * x for x in one) == pytest.approx(1, abs=1e-3)

    def alike(a: int, b: int) -> float:
        return sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True))

    assert alike(0, 1) > alike(0, 2)
    short = await client.embeddings.create(model=NAME, input=texts[0], dimensions=16)
    assert len(short.data[0].embedding) == 16


async def test_an_answer_that_the_bus_cannot_carry_is_refused_with_both_numbers(
    client: AsyncOpenAI, house: RunningRoost, nats: Any
) -> None:
    inputs = ["a"] * 400  # 576 dimensions each: 1.2 MB in base64
    answer = await house.ask(nats, {"model": NAME, "kind": "embedding", "inputs": inputs, "id": "many"}, timeout_s=90)
    assert answer["error"]["code"] == "too_large"
    has, carries = map(int, re.findall(r"\d+", answer["error"]["message"]))
    assert has > carries <= nats.max_payload
    state = json.loads((await nats.request("roost.ask.state", b'{"id": "many"}', timeout=10)).data)
    assert state["error"]["code"] == "too_large"
    assert len((await client.embeddings.create(model=NAME, input=inputs)).data) == 400


async def test_forms_and_tools_over_nats(house: RunningRoost, nats: Any) -> None:
    schema = {**CITY, "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    ask = {"model": NAME, "text": "Is Paris in France?", "format": {"type": "json_schema", "schema": schema}}
    answer = await house.ask(nats, ask, timeout_s=60)
    assert isinstance(json.loads(answer["text"])["yes"], bool)
    tool = {"name": "weather", "parameters": CITY}
    called = await house.ask(
        nats, {"model": NAME, "text": "The weather in Bonn?", "tools": [tool], "tool_choice": "=weather"}, timeout_s=60
    )
    assert called["finish"] == "tool_calls"
    assert "city" in json.loads(called["tool_calls"][0]["arguments"])
