"""The HTTP API in front of a gateway in memory: statuses, streams, and clients that leave."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import openai
import pytest

from connectors import ConnectorSettings
from connectors.host.http import HttpServer
from connectors.openai import OpenAIConnector
from schemas.config import HttpConfig
from schemas.message import Delta, Inbound, Problem
from tests.connectors.openai.double import KEY, OTHER, DoubleHost, Item, answer, text_of

LIMIT_S = 10.0
HELLO = [{"role": "user", "content": "hello small world"}]


class Api:
    def __init__(self, host: DoubleHost, url: str, http: aiohttp.ClientSession) -> None:
        self.host = host
        self.url = url
        self.http = http
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)

    async def post(self, path: str, data: object, **headers: str) -> tuple[int, dict, aiohttp.typedefs.LooseHeaders]:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"} | headers
        async with self.http.post(self.url + path, data=raw, headers=headers) as response:
            return response.status, await response.json(), response.headers

    async def chat(self, headers: dict[str, str] | None = None, **fields: object) -> tuple[int, dict]:
        status, body, _ = await self.post("/v1/chat/completions", {"messages": HELLO} | fields, **(headers or {}))
        return status, body

    async def get(self, path: str, key: str | None = KEY, method: str = "GET") -> tuple[int, dict]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self.http.request(method, self.url + path, headers=headers) as response:
            return response.status, await response.json()

    async def metrics(self) -> bytes:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with self.http.get(f"{self.url}/metrics", headers=headers) as response:
            return await response.read()

    async def events(self, **fields: object) -> list[str]:
        """The lines of a stream, without the empty ones."""
        body = {"messages": HELLO, "stream": True} | fields
        headers = {"Authorization": f"Bearer {KEY}"}
        async with self.http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            return [line for line in (await response.text()).split("\n") if line]


@asynccontextmanager
async def serving(**http: object) -> AsyncIterator[Api]:
    host = DoubleHost(HttpConfig(**{"listen": "127.0.0.1:0", **http}))
    connector = OpenAIConnector("openai", ConnectorSettings(), host)
    server = HttpServer(host.config.http, connector.routes(), host.metrics)
    await server.start()
    try:
        async with asyncio.timeout(LIMIT_S), aiohttp.ClientSession() as session:
            yield Api(host, server.url, session)
    finally:
        await server.stop()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as served:
        yield served


def contents(lines: list[str]) -> str:
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk.get("choices", []))


async def test_the_official_client_chats(api: Api) -> None:
    async with api.client as client:
        answered = await client.chat.completions.create(model="echo", messages=HELLO, max_tokens=50, user="ann")
    assert answered.choices[0].message.content == "hello small world"
    assert answered.choices[0].finish_reason == "stop"
    assert answered.usage.total_tokens == 6
    assert answered._request_id == answered.roost["request"]
    assert api.host.asked[0].sender.id == "test/ann"
    assert all(exchange.closed for exchange in api.host.exchanges)


async def test_the_official_client_streams_with_usage(api: Api) -> None:
    async with api.client as client:
        stream = await client.chat.completions.create(
            model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "hello small world"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3
    assert api.host.asked[0].stream


async def test_the_official_client_completes(api: Api) -> None:
    async with api.client as client:
        whole = await client.completions.create(model="echo", prompt="once upon")
        pieces = [p async for p in await client.completions.create(model="echo", prompt="once upon", stream=True)]
    assert whole.choices[0].text == "once upon"
    assert "".join(p.choices[0].text for p in pieces) == "once upon"
    assert pieces[-1].choices[0].finish_reason == "stop"


async def test_the_official_client_lists_models(api: Api) -> None:
    async with api.client as client:
        models = [model.id async for model in client.models.list()]
        echo = await client.models.retrieve("echo")
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("nothing")
    assert models == ["echo", "picture"]
    assert echo.owned_by == "roost"
    assert caught.value.code == "model_not_found"


async def test_the_official_client_knows_the_errors(api: Api) -> None:
    async with api.client as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="gpt-9", messages=HELLO)
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model="echo", messages=HELLO, n=0)
        api.host.full = True
        with pytest.raises(openai.RateLimitError) as full:
            await client.chat.completions.create(model="echo", messages=HELLO)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert bad.value.param == "n"
    assert full.value.type == "rate_limit_error"
    assert full.value.response.headers["Retry-After"] == "3"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/requests/x", "/v1/nothing", "/metrics"])
async def test_everything_wants_a_key(api: Api, path: str) -> None:
    for key in (None, "wrong"):
        status, body = await api.get(path, key)
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic eDp5", f"Token {KEY}", KEY])
async def test_only_a_bearer_key_counts(api: Api, header: str) -> None:
    status, body, headers = await api.post("/v1/chat/completions", {"messages": HELLO}, Authorization=header)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert headers["WWW-Authenticate"] == "Bearer"
    assert not api.host.asked


async def test_health_needs_no_key_and_says_little(api: Api) -> None:
    assert await api.get("/health", None) == (200, {"status": "ok"})


async def test_metrics_are_prometheus_text(api: Api) -> None:
    await api.chat()
    async with api.http.get(f"{api.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}) as response:
        assert response.content_type == "text/plain"
        assert 'route="/v1/chat/completions",status="200"} 1.0' in await response.text()


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [
        ("/v1/nothing", "GET", 404, "not_found"),
        ("/v1/chat/completions", "GET", 405, "method_not_allowed"),
        ("/v1/models", "DELETE", 405, "method_not_allowed"),
        ("/v1/models/echo", "PUT", 405, "method_not_allowed"),
        ("/v1/requests/x", "PUT", 405, "method_not_allowed"),
        ("/v1/requests/x", "GET", 404, "not_found"),
        ("/v1/models/a/b", "GET", 404, "not_found"),
    ],
)
async def test_wrong_places_are_refused_in_openais_words(
    api: Api, path: str, method: str, status: int, code: str
) -> None:
    got, body = await api.get(path, method=method)
    assert (got, body["error"]["code"], body["error"]["type"]) == (status, code, "invalid_request_error")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not valid JSON"), (b"{", "not valid JSON"), (b"[" * 100_000, "xpected"),
        (b'{"messages":[{"role":"user","content":"x"}],"a":' + b"[" * 100_000, "too deeply"),
        (b'{"messages":[{"role":"user","content":"\xff"}]}', "UTF-8"), (b'{"messages":[]}', "messages"),
        (b'{"messages":5}', "messages"),
    ],
)  # fmt: skip
async def test_bad_bodies_are_refused_and_the_next_is_answered(api: Api, data: bytes, says: str) -> None:
    status, body, headers = await api.post("/v1/chat/completions", data)
    assert status == 400
    assert says in body["error"]["message"]
    assert body["error"]["type"] == "invalid_request_error"
    assert headers["x-request-id"]
    assert (await api.chat())[0] == 200


async def test_a_body_of_another_type_is_refused(api: Api) -> None:
    status, body, _ = await api.post("/v1/chat/completions", {}, **{"Content-Type": "text/plain"})
    assert (status, body["error"]["code"]) == (415, "media_type")


async def test_a_body_over_the_limit_is_refused_in_openais_words() -> None:
    async with serving(body_bytes_max=100_000) as api:
        status, body = await api.chat(messages=[{"role": "user", "content": "a" * 200_000}])
    assert (status, body["error"]["code"], body["error"]["type"]) == (413, "too_large", "invalid_request_error")


async def test_the_same_idempotency_key_asks_the_model_once_and_answers_as_it_likes(api: Api) -> None:
    again = {"Idempotency-Key": "order-7"}
    _, first = await api.chat(headers=again)
    status, second = await api.chat(headers=again)
    assert status == 200
    assert first["id"] == second["id"]
    assert first["choices"] == second["choices"]
    assert len(api.host.asked) == 1
    headers = {"Authorization": f"Bearer {KEY}", **again}
    body = {"messages": HELLO, "stream": True}
    async with api.http.post(f"{api.url}/v1/chat/completions", json=body, headers=headers) as response:
        assert contents((await response.text()).split("\n")) == "hello small world"
    assert len(api.host.asked) == 1


@pytest.mark.parametrize("value", ["", "a" * 256, "ключ"])
async def test_an_odd_idempotency_key_is_refused(api: Api, value: str) -> None:
    status, _ = await api.chat(headers={"Idempotency-Key": value})
    assert status == 400


async def test_a_request_is_found_by_its_id_and_by_its_idempotency_key_but_not_by_another_api_key(api: Api) -> None:
    _, answered = await api.chat(headers={"Idempotency-Key": "order-7"}, user="ann")
    request = answered["roost"]["request"]
    for name in (request, answered["id"], "order-7"):
        status, body = await api.get(f"/v1/requests/{name}")
        assert (status, body["state"], body["id"]) == (200, "answered", request)
        assert body["response"]["choices"][0]["message"]["content"] == "hello small world"
        assert (await api.get(f"/v1/requests/{name}", OTHER))[0] == 404


async def test_an_open_request_can_be_cancelled_by_its_id(api: Api) -> None:
    async def endless(inbound: Inbound, request: str, cancelled: asyncio.Event) -> AsyncIterator[Item]:
        yield Delta(request=request, text="a")
        await cancelled.wait()

    api.host.script = endless
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"messages": HELLO, "stream": True}
    async with api.http.post(f"{api.url}/v1/chat/completions", json=body, headers=headers) as response:
        request = response.headers["x-request-id"]
        assert await api.get(f"/v1/requests/{request}", OTHER, "DELETE") == (404, await _not_found(api))
        status, told = await api.get(f"/v1/requests/{request}", method="DELETE")
    assert (status, told["cancelling"]) == (202, True)
    assert request in api.host.cancelled


async def _not_found(api: Api) -> dict:
    return (await api.get("/v1/requests/unknown"))[1]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_cancels_its_request(api: Api, stream: bool) -> None:
    await _leave(api, stream, {})
    await api.host.cancel_seen.wait()
    assert api.host.cancelled == [api.host.exchanges[0].accepted.request]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_may_come_back_cancels_nothing(api: Api, stream: bool) -> None:
    await _leave(api, stream, {"Idempotency-Key": "later"})
    while not api.host.exchanges[0].closed:
        await api.get("/health", None)
    assert api.host.cancelled == []


async def _leave(api: Api, stream: bool, headers: dict[str, str]) -> None:
    asked = asyncio.Event()

    async def endless(inbound: Inbound, request: str, cancelled: asyncio.Event) -> AsyncIterator[Item]:
        yield Delta(request=request, text="a")
        asked.set()
        await asyncio.Event().wait()

    api.host.script = endless
    leaving = asyncio.ensure_future(api.chat(stream=stream, headers=headers))
    await asked.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)


async def test_a_client_that_leaves_while_the_bus_stores_its_message_leaves_no_generation(api: Api) -> None:
    api.host.gate = asyncio.Event()
    leaving = asyncio.ensure_future(api.chat())
    await api.host.entered.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    while b"roost_http_connections 1.0" not in (await api.metrics()):  # the connection of this very question
        pass
    api.host.gate.set()
    await api.host.cancel_seen.wait()


async def test_a_restarted_answer_goes_on_without_a_seam(api: Api) -> None:
    async def restarted(inbound: Inbound, request: str, cancelled: asyncio.Event) -> AsyncIterator[Item]:
        yield Delta(request=request, text="hello sm")
        yield Delta(request=request, attempt=2, text="hello ")
        yield Delta(request=request, attempt=2, at=6, text="small wor")
        yield answer(inbound, request, text=text_of(inbound))

    api.host.script = restarted
    lines = await api.events()
    assert contents(lines) == "hello small world"
    assert lines[-1] == "data: [DONE]"


async def test_a_restarted_answer_that_differs_ends_with_an_error_that_names_the_request(api: Api) -> None:
    async def diverged(inbound: Inbound, request: str, cancelled: asyncio.Event) -> AsyncIterator[Item]:
        yield Delta(request=request, text="hello sm")
        yield Delta(request=request, attempt=2, text="good morning")
        yield answer(inbound, request, text="good morning")

    api.host.script = diverged
    async with api.client as client:
        stream = await client.chat.completions.create(model="echo", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as caught:
            _ = [chunk async for chunk in stream]
    assert caught.value.code == "diverged"
    assert api.host.exchanges[0].accepted.request in caught.value.message


@pytest.mark.parametrize(("code", "status"), [("context", 400), ("unavailable", 503), ("internal", 500),
                                              ("cancelled", 409)])  # fmt: skip
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_before_the_first_word_has_a_status_and_the_request_id(
    api: Api, code: str, status: int, stream: bool
) -> None:
    async def failing(inbound: Inbound, request: str, cancelled: asyncio.Event) -> AsyncIterator[Item]:
        yield Delta(request=request, state="queued", place=3)
        yield answer(inbound, request, error=Problem(code, "prompt 900, window 512"), finish="error")

    api.host.script = failing
    got, body, headers = await api.post("/v1/chat/completions", {"messages": HELLO, "stream": stream})
    assert (got, body["error"]["code"]) == (status, code)
    assert "window 512" in body["error"]["message"]
    assert headers["x-request-id"] == api.host.exchanges[0].accepted.request


async def test_a_failure_after_the_first_word_is_an_event(api: Api) -> None:
    async def failing(inbound: Inbound, request: str, cancelled: asyncio.Event) -> AsyncIterator[Item]:
        yield Delta(request=request, text="hel")
        yield answer(inbound, request, error=Problem("unavailable", "gone"), finish="error")

    api.host.script = failing
    lines = await api.events()
    assert json.loads(lines[-1][6:])["error"]["code"] == "unavailable"


async def test_a_bug_is_a_500_in_openais_words(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(inbound: Inbound, request: str, cancelled: asyncio.Event) -> AsyncIterator[Item]:
        yield Delta(request=request)
        raise ZeroDivisionError("inner secret")

    api.host.script = broken
    status, body = await api.chat()
    assert (status, body["error"]["type"], body["error"]["code"]) == (500, "server_error", "internal")
    assert "secret" not in json.dumps(body)
    assert "ZeroDivisionError" in caplog.text
