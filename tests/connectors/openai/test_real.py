"""The HTTP API of a running Roost, from the official Python client's side of the wire."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import openai
import pytest

from tests.running import RunningRoost, running, wait_for

HELLO = [{"role": "user", "content": "hello small world"}]
LONG = [{"role": "user", "content": " ".join(f"word{i}" for i in range(400))}]
LIMIT_S = 20.0


@pytest.fixture(scope="module")
def key(roost: RunningRoost) -> str:
    return roost.key("openai-test")


@pytest.fixture
async def client(roost: RunningRoost, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{roost.http}/v1", api_key=key, max_retries=0) as made:
        yield made


@pytest.fixture
async def http(roost: RunningRoost, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(roost.http, headers=headers) as session:
        yield session


async def state(http: aiohttp.ClientSession, name: str) -> dict:
    async with http.get(f"/v1/requests/{name}") as response:
        return await response.json()


async def test_a_chat_is_answered_with_usage_version_and_request_id(client: openai.AsyncOpenAI) -> None:
    answered = await client.chat.completions.create(model="echo", messages=HELLO)
    assert answered.choices[0].message.content == "hello small world"
    assert answered.usage.completion_tokens == 3
    assert answered._request_id == answered.roost["request"]
    assert answered.roost["timings"]["queued_ms"] > 0


async def test_a_chat_is_streamed_in_pieces(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="slow", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(pieces) == "hello small world"
    assert len(pieces) > 1
    assert chunks[-1].usage.total_tokens == 6


async def test_a_prompt_is_completed(client: openai.AsyncOpenAI) -> None:
    answered = await client.completions.create(model="echo", prompt="once upon", max_tokens=1)
    assert answered.choices[0].text == "once"
    assert answered.choices[0].finish_reason == "length"


async def test_models_are_listed_as_ready(client: openai.AsyncOpenAI) -> None:
    async def ready() -> set[str]:
        return {m.id for m in (await client.models.list()).data if m.roost["state"] == "ready"} >= {"echo", "slow"}

    await wait_for(ready, LIMIT_S, "the models are listed as ready")


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found"),
        ({"messages": []}, openai.BadRequestError, "invalid_value"),
        ({"messages": [{"role": "user", "content": " "}]}, openai.BadRequestError, "empty"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, openai.BadRequestError, "bad_text"),
        ({"messages": [{"role": "user", "content": "a" * 11_000_000}]}, openai.APIStatusError, "too_large"),
        ({"n": 2}, openai.BadRequestError, "unsupported"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "unsupported"),
    ],
)
async def test_what_cannot_be_answered_is_refused_and_the_next_is_answered(
    client: openai.AsyncOpenAI, fields: dict, kind: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(**{"model": "echo", "messages": HELLO} | fields)
    assert caught.value.code == code
    assert (await client.chat.completions.create(model="echo", messages=HELLO)).choices


async def test_a_wrong_key_is_refused(roost: RunningRoost) -> None:
    async with openai.AsyncOpenAI(base_url=f"{roost.http}/v1", api_key="rk-wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model="echo", messages=HELLO)


async def test_the_same_idempotency_key_is_one_inference_whichever_way_it_is_asked(
    client: openai.AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    again = {"Idempotency-Key": "order/7 a"}
    first = await client.chat.completions.create(model="echo", messages=HELLO, extra_headers=again)
    second = await client.chat.completions.create(model="echo", messages=HELLO, extra_headers=again)
    stream = await client.chat.completions.create(model="echo", messages=HELLO, stream=True, extra_headers=again)
    text = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert first.id == second.id
    assert text == "hello small world"
    assert stream.response.headers["x-request-id"] == first.roost["request"]
    found = await state(http, "order%2F7%20a")
    assert (found["id"], found["state"]) == (first.roost["request"], "answered")
    assert found["response"]["choices"][0]["message"]["content"] == "hello small world"


TOOL = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported"),
        ({"n": 17}, "n", "bad_value"),
        ({"tools": [TOOL]}, "tools", "unsupported"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name", "bad_value"),
        ({"tool_choice": "required"}, "tool_choice", "bad_value"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported"),
        ({"logprobs": True}, "logprobs", "unsupported"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported"),
        ({"logit_bias": {"five": 1}}, "logit_bias", "bad_value"),
        ({"extra_body": {"adapter": "pirate"}}, "adapter", "unsupported"),
        ({"extra_body": {"grammar": 'root ::= "a"'}}, "response_format", "unsupported"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_model_or_the_limits_do_not_allow_is_refused_by_the_parameter(
    client: openai.AsyncOpenAI, fields: dict, param: str, code: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="echo", messages=HELLO, stream=stream, **fields)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.message.find(param) >= 0


async def test_a_model_that_embeds_nothing_says_so(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await client.embeddings.create(model="echo", input="hello")
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize("model", ["auto", ""])
async def test_without_a_name_the_router_chooses_and_says_why(client: openai.AsyncOpenAI, model: str) -> None:
    answered = await client.chat.completions.create(model=model, messages=HELLO)
    assert answered.choices[0].message.content == "hello small world"
    assert answered.model in ("echo", "slow", "one")
    assert answered.roost["route"]["reason"]


async def test_two_at_once_with_one_idempotency_key_are_one_inference(client: openai.AsyncOpenAI) -> None:
    again = {"Idempotency-Key": "twice"}
    both = await asyncio.gather(
        *(client.chat.completions.create(model="slow", messages=HELLO, extra_headers=again) for _ in range(2))
    )
    assert both[0].id == both[1].id
    assert [one.choices[0].message.content for one in both] == ["hello small world"] * 2


async def test_a_request_belongs_to_its_key(
    roost: RunningRoost, client: openai.AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    answered = await client.chat.completions.create(model="echo", messages=HELLO, user="ann")
    other = {"Authorization": f"Bearer {roost.key('somebody-else')}"}
    async with http.get(f"/v1/requests/{answered.roost['request']}", headers=other) as response:
        assert response.status == 404
    assert (await state(http, answered.id))["state"] == "answered"


async def test_who_waits_has_a_place_and_can_be_cancelled(http: aiohttp.ClientSession) -> None:
    def ask(name: str, messages: list[dict[str, str]]) -> asyncio.Future:
        body, headers = {"model": "one", "messages": messages}, {"Idempotency-Key": name}
        return asyncio.ensure_future(http.post("/v1/chat/completions", json=body, headers=headers))

    async def runs() -> bool:
        return (await state(http, "wait-long")).get("state") == "running"

    async def rows() -> list[dict] | None:
        found = [await state(http, name) for name in names]
        return found if all(row.get("place") for row in found) else None

    longest = ask("wait-long", LONG)
    await wait_for(runs, LIMIT_S, "the only slot is taken")
    names = [f"wait-{i}" for i in range(3)]
    asking = {name: ask(name, HELLO) for name in names}
    waiting = await wait_for(rows, LIMIT_S, "all others wait")
    places = [row["place"] for row in waiting]
    assert len(set(places)) == 3, "two have the same place"
    last = names[places.index(max(places))]
    for gone in (last, "wait-long"):
        async with http.delete(f"/v1/requests/{gone}") as response:
            assert response.status == 202
    await longest
    answers = {name: await (await answer).json() for name, answer in asking.items()}
    assert answers.pop(last)["error"]["code"] == "cancelled"
    assert all("choices" in answer for answer in answers.values())


async def counted(http: aiohttp.ClientSession, line: str) -> float:
    """The value behind `line` in the metrics; 0 when it is not there yet."""
    async with http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return next((float(found.rpartition(" ")[2]) for found in lines if found.startswith(line + " ")), 0.0)


async def test_a_streaming_client_that_leaves_cancels_its_generation(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", json={"model": "slow", "messages": LONG, "stream": True}) as response:
        request = response.headers["x-request-id"]
        await response.content.readuntil(b"word0")
        response.close()

    async def ended() -> dict | None:
        found = await state(http, request)
        return found if found["state"] == "answered" else None

    found = await wait_for(ended, LIMIT_S, "the generation is cancelled")
    assert found["error"]["code"] == "cancelled"
    assert len(found["response"]["choices"][0]["message"]["content"].split()) < 400


async def test_a_waiting_client_that_leaves_cancels_its_generation(http: aiohttp.ClientSession) -> None:
    line = 'roost_answers_total{finish="cancelled",model="slow"}'
    before = await counted(http, line)
    leaving = asyncio.ensure_future(http.post("/v1/chat/completions", json={"model": "slow", "messages": LONG}))

    async def waits() -> bool:
        return await counted(http, "roost_exchanges_waiting") > 0

    await wait_for(waits, LIMIT_S, "the request waits")
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    async def cancelled() -> bool:
        return await counted(http, line) > before

    await wait_for(cancelled, LIMIT_S, "the generation is cancelled")


async def test_metrics_tell_what_was_done_and_nothing_about_whom(
    client: openai.AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "palimpsest"}], user="bob")
    async with http.get("/metrics") as response:
        text = await response.text()
    assert 'roost_accepted_total{channel="openai"}' in text
    assert 'roost_answers_total{finish="stop",model="echo"}' in text
    assert "palimpsest" not in text
    assert "bob" not in text


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRoost]:
    """A Roost of its own with room for three messages, that a test may harm."""
    config = {
        "models": [{"name": "one", "type": "echo", "slots": 1, "delay_ms": 1500}],
        "connectors": [{"type": "openai"}],
        "limits": {"inbox_messages_max": 3},
    }
    with running(tmp_path_factory.mktemp("small"), config) as started:
        yield started


async def test_a_full_queue_refuses_with_429_and_answers_what_it_accepted(small: RunningRoost) -> None:
    async with openai.AsyncOpenAI(base_url=f"{small.http}/v1", api_key=small.key("full"), max_retries=0) as client:
        asked = [client.chat.completions.create(model="one", messages=HELLO) for _ in range(6)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [a for a in answers if isinstance(a, openai.RateLimitError)]
    answered = [a for a in answers if not isinstance(a, BaseException)]
    assert (len(answered), len(refused)) == (3, 3), answers
    assert all(int(error.response.headers["Retry-After"]) >= 1 for error in refused)
    assert refused[0].type == "rate_limit_error"


async def test_an_accepted_request_is_answered_over_a_kill_of_the_connectors(small: RunningRoost) -> None:
    key = small.key("kill")
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "survivor"}
    body = {"model": "one", "messages": HELLO}
    async with aiohttp.ClientSession(headers=headers) as http:
        first = asyncio.ensure_future(http.post(f"{small.http}/v1/chat/completions", json=body))

        async def known() -> bool:
            async with http.get(f"{small.http}/v1/requests/survivor") as response:
                return response.status == 200

        await wait_for(known, LIMIT_S, "the request is accepted")
        small.kill("connectors")
        with pytest.raises(aiohttp.ClientError):
            await first

        async def served() -> bool:
            await asyncio.to_thread(small.wait_ready)
            try:
                async with http.get(f"{small.http}/health") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await wait_for(served, LIMIT_S, "the connectors are back")
        async with http.post(f"{small.http}/v1/chat/completions", json=body) as response:
            answer = json.loads(await response.read())
            assert answer["choices"][0]["message"]["content"] == "hello small world"
        async with http.get(f"{small.http}/v1/requests/survivor") as response:
            found = await response.json()
            assert (found["state"], found["id"]) == ("answered", answer["roost"]["request"])


def test_no_key_and_no_text_is_in_the_logs(small: RunningRoost) -> None:
    logs = "".join(path.read_text(errors="replace") for path in Path(small.data / "logs").glob("*"))
    assert "rk-" not in logs
    assert "hello small" not in logs
