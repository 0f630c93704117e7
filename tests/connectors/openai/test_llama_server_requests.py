"""Requests of the kinds that llama.cpp tests its server with, sent to a running Roost with the starter model.

docs/llama-server-compatibility.md lists what agrees and why the rest does not apply.
"""

import asyncio
import base64
import json
import math
import re
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from tests.running import RunningRoost, running

NAME = "tiny"
TALK = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Name a good book."}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
TOOL = {
    "type": "function",
    "function": {"name": "note", "description": "Keep a note", "parameters": {
        "type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"],
    }},
}  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[RunningRoost]:
    model = {"name": NAME, "type": "llama", "path": str(starter_model), "context": 512, "slots": 2, "max_tokens": 32}
    with running(tmp_path_factory.mktemp("tiny"), {"models": [model], "connectors": [{"type": "openai"}]}) as started:
        yield started


@pytest.fixture(scope="module")
def key(house: RunningRoost) -> str:
    return house.key("requests")


@pytest.fixture
async def client(house: RunningRoost, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{house.http}/v1", api_key=key, max_retries=0, timeout=60) as made:
        yield made


class Http:
    """Plain requests, as any program sends them."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def post(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.post(path, json=body) as response:
            return response.status, await response.json()

    async def chat(self, **body: Any) -> tuple[int, dict[str, Any]]:
        return await self.post("/v1/chat/completions", **{"messages": TALK, "max_tokens": 8} | body)

    async def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """All events but the last, which says that there are no more."""
        async with self.session.post(path, json={"stream": True, **body}) as response:
            assert response.status == 200, await response.text()
            lines = [line for line in (await response.text()).split("\n") if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line[6:]) for line in lines[:-1]]


@pytest.fixture
async def http(house: RunningRoost, key: str) -> AsyncIterator[Http]:
    async with aiohttp.ClientSession(house.http, headers={"Authorization": f"Bearer {key}"}) as session:
        yield Http(session)


async def test_health_needs_no_key_and_a_generation_does(house: RunningRoost) -> None:
    async with aiohttp.ClientSession(house.http) as session:
        async with session.get("/health") as response:
            assert (response.status, await response.json()) == (200, {"status": "ok"})
        for given in ({}, {"Authorization": "Bearer invalid-key"}):
            async with session.post("/v1/completions", json={"prompt": "Once"}, headers=given) as response:
                assert response.status == 401
                assert (await response.json())["error"]["code"] == "invalid_api_key"


async def test_models_are_listed(http: Http) -> None:
    async with http.session.get("/v1/models") as response:
        body = await response.json()
    assert (body["object"], [model["id"] for model in body["data"]]) == ("list", [NAME])


async def test_metrics_are_prometheus_text(http: Http) -> None:
    await http.chat()
    async with http.session.get("/metrics") as response:
        assert response.content_type == "text/plain"
        text = await response.text()
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-zA-Z_:][\w:]*(\{.*\})? [-+.\deEInfNa]+", line), line


@pytest.mark.parametrize(
    "content", ["Name a good book.", [{"type": "text", "text": "Name a"}, {"type": "text", "text": "good book."}]]
)
async def test_a_chat_without_a_model_has_the_shape_and_the_counts(http: Http, content: Any) -> None:
    status, body = await http.chat(model=None, messages=[TALK[0], {"role": "user", "content": content}])
    assert status == 200
    assert "cmpl" in body["id"]
    [choice] = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert (choice["finish_reason"], body["usage"]["completion_tokens"]) == ("length", 8)
    assert body["usage"]["prompt_tokens"] > 8
    assert body["system_fingerprint"]


async def test_a_prompt_that_was_read_before_is_not_read_again(http: Http) -> None:
    talk = [TALK[0], {"role": "user", "content": "one two three four five six seven"}]
    counts = [(await http.chat(messages=talk))[1]["usage"] for _ in range(2)]
    assert counts[1]["prompt_tokens_details"]["cached_tokens"] > counts[1]["prompt_tokens"] / 2


async def test_a_stream_names_its_role_once_and_one_id_throughout(http: Http) -> None:
    options = {"include_usage": True}
    events = await http.stream("/v1/chat/completions", messages=TALK, max_tokens=8, stream_options=options)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len({event["id"] for event in events}) == 1
    assert {event["model"] for event in events} == {NAME}
    middle = [event["choices"][0] for event in events[1:-2]]
    assert all("role" not in choice["delta"] and choice["finish_reason"] is None for choice in middle)
    finish = events[-2]["choices"][0]
    assert (finish["delta"], finish["finish_reason"]) == ({}, "length")
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 8


async def test_a_stream_and_a_whole_answer_say_the_same(http: Http) -> None:
    asked = {"messages": TALK, "max_tokens": 16, "temperature": 0}
    events = await http.stream("/v1/chat/completions", **asked)
    _, body = await http.chat(**asked)
    streamed = "".join(c["delta"].get("content") or "" for event in events for c in event["choices"])
    assert streamed == body["choices"][0]["message"]["content"]


async def test_the_openai_library_completes_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model=NAME, prompt="The meaning of life is", max_tokens=8, temperature=0)
    stream = await client.completions.create(
        model=NAME, prompt="The meaning of life is", max_tokens=8, temperature=0, stream=True
    )
    text = "".join([piece.choices[0].text async for piece in stream])
    assert whole.choices[0].finish_reason == "length"
    assert text == whole.choices[0].text != ""


async def test_stops_end_an_answer_and_are_not_shown(client: openai.AsyncOpenAI) -> None:
    prompt = "Count: one, two, three, four, five"
    whole = await client.completions.create(model=NAME, prompt=prompt, max_tokens=16, temperature=0)
    stop = whole.choices[0].text.split()[1][:3]
    stream = await client.completions.create(
        model=NAME, prompt=prompt, max_tokens=16, temperature=0, stop=[stop], stream=True
    )
    pieces = [piece async for piece in stream]
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text.partition(stop)[0]
    assert pieces[-1].choices[0].finish_reason == "stop"


async def test_one_seed_says_the_same_and_others_something_else(http: Http) -> None:
    async def said(seed: int) -> str:
        _, body = await http.chat(seed=seed, temperature=1.0, max_tokens=16)
        return str(body["choices"][0]["message"]["content"])

    await said(42)  # from now on the prompt is cached
    again = [await said(42) for _ in range(3)]
    assert len(set(again)) == 1
    assert len({await said(seed) for seed in range(4)}) > 1


async def test_an_end_that_is_ignored_does_not_end_the_answer(http: Http) -> None:
    asked = {"messages": [{"role": "user", "content": "Say yes."}], "temperature": 0, "max_tokens": 30}
    _, body = await http.chat(**asked, ignore_eos=True)
    assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (30, "length")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_conversation_that_does_not_fit_is_refused_with_both_numbers(
    client: openai.AsyncOpenAI, stream: bool
) -> None:
    long = [{"role": "user", "content": "What is the best book? " * 200}]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=NAME, messages=long, stream=stream)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert "512" in caught.value.message
    assert max(map(int, re.findall(r"\d+", caught.value.message))) > 900


@pytest.mark.parametrize(
    "messages",
    [None, "string", [123], [{}], [{"role": 123}], [{"role": "system", "content": 123}], [TALK[0], {}], []],
)
async def test_what_are_no_messages_is_a_400(http: Http, messages: Any) -> None:
    status, body = await http.chat(messages=messages)
    assert status == 400
    assert body["error"]["param"].startswith("messages")


async def test_fields_of_llama_server_that_change_no_answer_are_taken(http: Http) -> None:
    status, _ = await http.chat(
        timings_per_token=True, return_progress=True, cache_prompt=False, id_slot=0, verbose=False, samplers=["top_k"]
    )
    assert status == 200


async def test_two_answers_to_one_prompt(http: Http) -> None:
    for _ in range(2):
        status, body = await http.chat(n=2, temperature=1.0)
        assert status == 200
        assert [choice["index"] for choice in body["choices"]] == [0, 1]
        assert [choice["finish_reason"] for choice in body["choices"]] == ["length"] * 2
        assert body["usage"]["completion_tokens"] == 16


async def test_log_probabilities_join_to_the_text(client: openai.AsyncOpenAI) -> None:
    done = await client.chat.completions.create(
        model=NAME, messages=TALK, max_tokens=5, temperature=0, logprobs=True, top_logprobs=10
    )
    told = done.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in told).decode() == done.choices[0].message.content
    for token in told:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 10
        assert max(top.logprob for top in token.top_logprobs) == pytest.approx(token.logprob, abs=1e-4)


async def test_streamed_log_probabilities_join_to_the_text(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=NAME, messages=TALK, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3, stream=True
    )
    text, told = "", b""
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for token in choice.logprobs.content if choice.logprobs else ():
                told += bytes(token.bytes)
                assert len(token.top_logprobs) == 3
    assert told.decode() == text != ""


async def test_a_bias_forces_a_token_and_forbids_one(client: openai.AsyncOpenAI) -> None:
    asked = {"model": NAME, "prompt": "The meaning of life is", "max_tokens": 6, "temperature": 0, "logprobs": 0}
    forced = await client.completions.create(**asked, logit_bias={"2000": 100})
    tokens = set(forced.choices[0].logprobs.tokens)
    assert len(tokens) == 1
    forbidden = await client.completions.create(**asked, logit_bias={"2000": -100})
    assert not tokens & set(forbidden.choices[0].logprobs.tokens)


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"response_format": {"type": "json_object", "schema": {"const": "42"}}}, r'"42"'),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "foo"}}}}, r'"foo"'),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, r'\{\s*"n"\s*:\s*-?\d+\s*\}'),
        ({"json_schema": {"const": "42"}}, r'"42"'),
        ({"grammar": 'root ::= "a"{5,5}'}, r"a{5}"),
    ],
    ids=["object with schema", "const", "schema", "json_schema", "grammar"],
)
async def test_a_form_is_kept(http: Http, wanted: dict[str, Any], pattern: str) -> None:
    status, body = await http.chat(**wanted, max_tokens=48, temperature=0)
    assert status == 200, body
    assert re.fullmatch(pattern, body["choices"][0]["message"]["content"]), body


async def test_any_json_is_json_as_far_as_it_goes(http: Http) -> None:
    _, body = await http.chat(response_format={"type": "json_object"}, max_tokens=64, temperature=0)
    choice = body["choices"][0]
    assert choice["message"]["content"].lstrip().startswith("{")
    if choice["finish_reason"] == "stop":
        json.loads(choice["message"]["content"])


@pytest.mark.parametrize(
    "wanted",
    [
        {"response_format": {"type": "sound"}},
        {"response_format": {"type": "json_object", "schema": 123}},
        {"response_format": {"type": "json_object", "schema": {"type": 123}}},
        {"response_format": {"type": "json_object", "schema": {"type": "hiccup"}}},
        {"grammar": "root ::= this is (not valid GBNF"},
    ],
    ids=["sound", "number", "type 123", "hiccup", "grammar"],
)
async def test_a_form_that_is_none_is_a_400(http: Http, wanted: dict[str, Any]) -> None:
    status, body = await http.chat(**wanted)
    assert status == 400
    assert body["error"]["param"].startswith("response_format"), body


@pytest.mark.parametrize("stream", [True, False])
async def test_a_tool_that_is_required_is_called(client: openai.AsyncOpenAI, stream: bool) -> None:
    asked = {"model": NAME, "messages": TALK, "tools": [TOOL], "tool_choice": "required", "max_tokens": 128,
             "parallel_tool_calls": False, "temperature": 0}  # fmt: skip
    if stream:
        async with client.chat.completions.stream(**asked) as events:
            choice = (await events.get_final_completion()).choices[0]
    else:
        choice = (await client.chat.completions.create(**asked)).choices[0]
    [call] = choice.message.tool_calls
    assert choice.message.content in (None, "")
    assert choice.finish_reason == "tool_calls"
    assert call.id
    assert call.function.name == "note"
    assert isinstance(json.loads(call.function.arguments)["done"], bool)


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": [TOOL], "tool_choice": "none"}])
async def test_without_tools_to_call_nothing_is_called(http: Http, fields: dict[str, Any]) -> None:
    status, body = await http.chat(**fields)
    assert status == 200
    assert not body["choices"][0]["message"].get("tool_calls")
    assert body["choices"][0]["message"]["content"]


async def test_texts_are_embedded_with_length_1_and_counted(http: Http, client: openai.AsyncOpenAI) -> None:
    texts = ["A short text", "Another one, a little longer than the first", "A short text"]
    status, body = await http.post("/v1/embeddings", input=texts)
    assert status == 200
    vectors = [row["embedding"] for row in body["data"]]
    assert [row["index"] for row in body["data"]] == [0, 1, 2]
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1] * 3, abs=1e-3)
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-3)
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 6
    packed = await client.embeddings.create(model=NAME, input=texts[0], encoding_format="base64")
    data = base64.b64decode(packed.data[0].embedding)
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == pytest.approx(vectors[0], abs=1e-3)


@pytest.mark.parametrize("input", [[], {"content": "text"}, [12, 34], ["a", {"b": 1}], ""])
async def test_what_cannot_be_embedded_is_a_400(http: Http, input: Any) -> None:
    status, body = await http.post("/v1/embeddings", input=input)
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert body["error"]["param"].startswith("input")


async def test_requests_at_once_are_all_answered(http: Http) -> None:
    answers = await asyncio.gather(*(http.chat(max_tokens=4 + i, ignore_eos=True) for i in range(6)))
    assert [status for status, _ in answers] == [200] * 6
    assert [body["usage"]["completion_tokens"] for _, body in answers] == [4 + i for i in range(6)]
