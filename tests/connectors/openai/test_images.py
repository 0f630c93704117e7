"""Pictures over HTTP: the official client, links, streams and mistakes, against a running Roost that paints."""

from __future__ import annotations

import base64
import gzip
import io
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import openai
import pytest

from tests.running import ECHO, RunningRoost, running, wait_for
from tests.tools import painter

LIMIT_S = 20.0
SLOW = {"name": "slow", "type": "painter", "delay_step_ms": 40, "steps": 8}
URL = re.compile(r"http://127\.0\.0\.1:\d+/v1/images/files/[0-9a-f]{64}\.png\?expires=\d+&signature=[\w-]{43}")


@pytest.fixture(scope="module")
def paints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRoost]:
    config = {"models": [ECHO, painter.MODEL, SLOW]}
    with running(tmp_path_factory.mktemp("paints"), config, painter.environment()) as started:
        yield started


@pytest.fixture(scope="module")
def key(paints: RunningRoost) -> str:
    return paints.key("images-test")


@pytest.fixture
async def client(paints: RunningRoost, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{paints.http}/v1", api_key=key, max_retries=0) as made:
        yield made


@pytest.fixture
async def http(paints: RunningRoost, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(paints.http, headers={"Authorization": f"Bearer {key}"}) as session:
        yield session


@pytest.fixture
async def stranger() -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody without a key."""
    async with aiohttp.ClientSession() as session:
        yield session


def bytes_of(image: Any) -> bytes:
    return base64.b64decode(image.b64_json, validate=True)


def test_the_official_client_gets_as_many_pictures_as_it_asks_for(paints: RunningRoost, key: str) -> None:
    with openai.OpenAI(base_url=f"{paints.http}/v1", api_key=key, max_retries=0) as client:
        made = client.images.generate(
            model="painter", prompt="a red boat", n=2, size="128x64", user="ann",
            extra_body={"seed": 7, "steps": 3, "guidance": 4.5, "negative_prompt": "fog", "scheduler": "euler"},
        )  # fmt: skip
    first, second = (painter.seen(bytes_of(image)) for image in made.data)
    assert first[:2] == second[:2] == (128, 64)
    assert first[2] != second[2]
    assert (made.output_format, made.size) == ("png", "128x64")
    told = made.roost["pictures"]
    assert [one["drawn"]["seed"] for one in told] == [7, 8]
    drawn = told[0]["drawn"]
    assert (drawn["prompt"], drawn["steps"], drawn["guidance"]) == ("a red boat", 3, 4.5)
    assert (drawn["negative"], drawn["scheduler"], drawn["model"]) == ("fog", "euler", "painter")


async def test_the_same_seed_makes_the_same_picture_and_no_model_needs_to_be_named(client: openai.AsyncOpenAI) -> None:
    async def made(seed: int) -> bytes:
        body = {"seed": seed}
        return bytes_of((await client.images.generate(prompt="a boat", size="auto", extra_body=body)).data[0])

    assert await made(5) == await made(5) != await made(6)
    assert painter.seen(await made(5))[:2] == (64, 64)


async def test_a_link_opens_without_a_key_and_holds_a_picture_and_nothing_else(
    client: openai.AsyncOpenAI, stranger: aiohttp.ClientSession
) -> None:
    made = await client.images.generate(model="painter", prompt="a boat", response_format="url")
    assert made.data[0].b64_json is None
    url = made.data[0].url
    assert URL.fullmatch(url), url
    assert 86_000 < int(parse_qs(urlsplit(url).query)["expires"][0]) - time.time() < 87_000
    async with stranger.get(url) as response:
        assert response.status == 200
        painter.seen(await response.read())
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in response.headers["Content-Security-Policy"]
        assert response.headers["Content-Disposition"].startswith('inline; filename="')
        assert response.headers["Cache-Control"].startswith("private")


async def test_a_link_that_was_changed_or_has_ended_opens_nothing(
    client: openai.AsyncOpenAI, stranger: aiohttp.ClientSession, http: aiohttp.ClientSession, paints: RunningRoost
) -> None:
    async def status(url: str) -> tuple[int, str]:
        async with stranger.get(url) as response:
            return response.status, (await response.json())["error"]["code"]

    url = (await client.images.generate(model="painter", prompt="a boat", response_format="url")).data[0].url
    bare, _, query = url.partition("?")
    expires = parse_qs(query)["expires"][0]
    later = url.replace(f"expires={expires}", f"expires={int(expires) + 1}")
    other = url.replace(bare[-20:-4], "0" * 16)
    for wrong in (later, other, url[:-1] + ("A" if url[-1] != "A" else "B"), f"{bare}?expires={expires}&signature=é"):
        assert await status(wrong) == (403, "forbidden"), wrong
    assert await status(bare) == (403, "forbidden")
    assert await status(f"{bare}?expires=9999999999999&signature=") == (403, "forbidden")

    from connectors.openai.links import Links
    from schemas.message import Attachment

    sha256 = bare.rpartition("/")[2].removesuffix(".png")
    links = Links(lambda: (paints.data / "secrets" / "picture-links").read_text().strip(), 60.0)
    file = Attachment(sha256=sha256, media_type="image/png", size_bytes=1)
    assert await status(paints.http + links.path(file, time.time() - 61)) == (410, "expired")
    async with stranger.get(paints.http + links.path(file, time.time())) as response:
        assert response.status == 200
    unknown = Attachment(sha256="0" * 64, media_type="image/png", size_bytes=1)
    assert await status(paints.http + links.path(unknown, time.time())) == (410, "expired")
    async with http.get(urlsplit(bare).path) as response:  # with a key, the hash is enough
        assert response.status == 200
    async with http.get("/v1/images/files/../../etc/passwd") as response:
        assert response.status == 404
    async with http.get(f"/v1/images/files/{sha256}.html") as response:
        assert response.status == 404


async def test_an_idempotency_key_brings_the_same_pictures_again(client: openai.AsyncOpenAI) -> None:
    async def made(**fields: Any) -> Any:
        headers = {"Idempotency-Key": "boat-1"}
        return await client.images.generate(model="painter", prompt="a boat", extra_headers=headers, **fields)

    first, again = await made(), await made()
    assert (first._request_id, bytes_of(first.data[0])) == (again._request_id, bytes_of(again.data[0]))
    assert URL.fullmatch((await made(response_format="url")).data[0].url)
    headers = {"Idempotency-Key": "hello-1"}
    messages: Any = [{"role": "user", "content": "hi"}]
    await client.chat.completions.create(model="echo", messages=messages, extra_headers=headers)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.images.generate(model="painter", prompt="a boat", extra_headers=headers)
    assert caught.value.code == "conflict"
    with pytest.raises(openai.APIError, match="another kind"):
        async for _ in await client.images.generate(prompt="a boat", stream=True, extra_headers=headers):
            pass


async def test_a_stream_shows_previews_and_ends_with_the_pictures(client: openai.AsyncOpenAI) -> None:
    stream = await client.images.generate(
        model="slow", prompt="a boat", n=2, stream=True, partial_images=2, extra_body={"seed": 3}
    )
    events = [event async for event in stream]
    assert [e.type.partition(".")[2] for e in events] == ["partial_image"] * 2 + ["completed"] * 2
    assert [e.partial_image_index for e in events[:2]] == [0, 1]
    previews = [base64.b64decode(e.b64_json) for e in events[:2]]
    assert all(data.startswith(b"\xff\xd8\xff") for data in previews)
    assert previews[0] != previews[1]
    assert events[0].output_format == "jpeg"
    whole = await client.images.generate(model="slow", prompt="a boat", n=2, extra_body={"seed": 3})
    assert [bytes_of(e) for e in events[2:]] == [bytes_of(image) for image in whole.data]
    assert events[3].usage.total_tokens == 0
    assert (events[3].size, events[3].output_format) == ("64x64", "png")


async def test_a_stream_without_previews_brings_the_picture_alone(client: openai.AsyncOpenAI) -> None:
    stream = await client.images.generate(model="slow", prompt="a boat", stream=True)
    assert [event.type async for event in stream] == ["image_generation.completed"]


async def test_a_picture_can_be_started_from_another(client: openai.AsyncOpenAI) -> None:
    made = await client.images.generate(model="painter", prompt="a boat", extra_body={"seed": 1})
    start = bytes_of(made.data[0])
    body = {"seed": 1, "strength": 0.5}
    edited = await client.images.edit(
        model="painter", image=("start.png", start), prompt="a blue boat", extra_body=body
    )
    assert painter.seen(bytes_of(edited.data[0]))[2] != painter.seen(start)[2]
    assert edited.roost["pictures"][0]["drawn"]["strength"] == 0.5
    nameless = await client.images.edit(
        model="painter", image=io.BytesIO(start), prompt="a blue boat", n=2, extra_body=body
    )
    assert bytes_of(nameless.data[0]) == bytes_of(edited.data[0]) != bytes_of(nameless.data[1])
    stream = await client.images.edit(
        model="painter", image=[start], prompt="a blue boat", stream=True, partial_images=1, extra_body=body
    )
    events = [event async for event in stream]
    assert [e.type for e in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert bytes_of(events[1]) == bytes_of(edited.data[0])


BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"prompt": ""}, "prompt", "empty"),
    ({"prompt": " \n"}, "prompt", "empty"),
    ({"prompt": "a" * 4_001}, "prompt", "too_large"),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 1_000}, "n", "bad_value"),
    ({"size": "500x500"}, "size", "bad_value"),
    ({"size": "32x64"}, "size", "bad_value"),
    ({"size": "99999x64"}, "size", "bad_value"),
    ({"size": "large"}, "size", "bad_value"),
    ({"size": "64 x 64"}, "size", "bad_value"),
    ({"steps": 0}, "steps", "bad_value"),
    ({"steps": 10_000}, "steps", "bad_value"),
    ({"guidance": 31}, "guidance", "bad_value"),
    ({"negative_prompt": "x" * 2_001}, "negative_prompt", "too_large"),
    ({"negative_prompt": "a\0b"}, "negative_prompt", "bad_text"),
    ({"scheduler": "../etc"}, "scheduler", "bad_value"),
    ({"response_format": "gif"}, "response_format", "invalid_value"),
    ({"output_format": "webp"}, "output_format", "unsupported"),
    ({"background": "transparent"}, "background", "unsupported"),
    ({"stream": True, "partial_images": 4}, "partial_images", "invalid_value"),
    ({"partial_images": 1}, "partial_images", "invalid_value"),
    ({"stream": True, "response_format": "url"}, "response_format", "unsupported"),
    ({"model": "echo"}, "kind", "unsupported"),
    ({"model": "dall-e-3"}, "model", "model_not_found"),
    ({"adapter": "ink"}, "adapter", "unsupported"),
]


@pytest.mark.parametrize(("fields", "param", "code"), BAD, ids=[f"{i}-{code}" for i, (_, _, code) in enumerate(BAD)])
async def test_what_cannot_be_drawn_is_refused_by_its_name(
    http: aiohttp.ClientSession, fields: dict[str, Any], param: str | None, code: str
) -> None:
    body = {"model": "painter", "prompt": "a boat", **fields}
    async with http.post("/v1/images/generations", json=body) as response:
        error = (await response.json())["error"]
        assert (response.status // 100, error["param"], error["code"]) == (4, param, code), error
        assert param is None or error["message"].startswith(param) or code == "model_not_found", error


async def test_hints_at_quality_are_taken_and_said_to_have_no_effect(client: openai.AsyncOpenAI) -> None:
    made = await client.images.generate(
        model="painter", prompt="a boat", quality="high", style="vivid", moderation="low"
    )
    assert made.roost["notes"] == [f"{name} has no effect here" for name in ("quality", "style", "moderation")]


def form(**parts: Any) -> aiohttp.FormData:
    data = aiohttp.FormData(default_to_multipart=True)
    for name, value in parts.items():
        if isinstance(value, tuple):
            data.add_field(name, io.BytesIO(value[1]), filename=value[0], content_type=value[2])
        else:
            data.add_field(name, value)
    return data


PART = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ({"prompt": "x"}, "image", "invalid_value"),
        ({"image": ("a.png", PNG, "image/png")}, "prompt", "invalid_value"),
        ({"prompt": "x", "image": ("a.png", b"hello", "image/png")}, "image", "media_type"),
        ({"prompt": "x", "image": ("a.png", b"", "image/png")}, "image", "media_type"),
        ({"prompt": "x", "image": "iVBORw0="}, "image", "invalid_value"),
        ({"prompt": "x", "image": ("a.png", PNG, "image/png"), "strength": "2"}, "strength", "bad_value"),
        ({"prompt": "x", "image": ("a.png", PNG, "image/png"), "strength": "much"}, "strength", "invalid_value"),
        ({"prompt": "x", "image": ("a.png", PNG, "image/png"), "n": "0"}, "n", "invalid_value"),
        (
            {"prompt": "x", "image": ("a.png", PNG, "image/png"), "mask": ("m.png", PNG, "image/png")},
            "mask",
            "unsupported",
        ),
        ({"prompt": "x", "image": ("a.png", PNG + bytes(10_500_000), "image/png")}, None, "too_large"),
        ({"prompt": "x", "image": ("a.png", PNG + bytes(12_500_000), "image/png")}, None, "too_large"),
        ({f"field{i}": "x" for i in range(100)}, None, "too_large"),
    ],
)
async def test_a_form_that_cannot_be_used_is_refused_by_its_name(
    http: aiohttp.ClientSession, parts: dict[str, Any], param: str | None, code: str
) -> None:
    async with http.post("/v1/images/edits", data=form(**parts)) as response:
        error = (await response.json())["error"]
        assert (response.status // 100, error["param"], error["code"]) == (4, param, code), error


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"{}", "application/json", "media_type"),
        (b"hello", "multipart/form-data", "malformed"),
        (b"hello", "multipart/form-data; boundary=b", "malformed"),
        (PART + b"x", "multipart/form-data; boundary=b", "malformed"),
        (PART + b"\xff\xfe\r\n--b--\r\n", "multipart/form-data; boundary=b", "invalid_value"),
        (b"", "multipart/form-data; boundary=b", "malformed"),
    ],
)
async def test_what_is_no_form_is_refused(
    http: aiohttp.ClientSession, body: bytes, content_type: str, code: str
) -> None:
    async with http.post("/v1/images/edits", data=body, headers={"Content-Type": content_type}) as response:
        error = (await response.json())["error"]
        assert (response.status // 100, error["code"]) == (4, code), error


async def test_a_packed_form_is_refused_unread(http: aiohttp.ClientSession) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Encoding": "gzip"}
    bomb = gzip.compress(PART + bytes(30_000_000))
    async with http.post("/v1/images/edits", data=bomb, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (415, "media_type")


async def test_a_chat_with_a_painter_is_answered_with_pictures_that_any_client_shows(
    client: openai.AsyncOpenAI, stranger: aiohttp.ClientSession
) -> None:
    messages: Any = [{"role": "user", "content": "hi"}, {"role": "user", "content": "a [red] boat"}]
    answered = await client.chat.completions.create(model="painter", messages=messages, n=2, seed=4)
    texts = [choice.message.content for choice in answered.choices]
    assert [text.startswith("![a red boat](http") for text in texts] == [True, True]
    urls = [URL.search(text)[0] for text in texts]  # type: ignore[index]
    assert urls[0] != urls[1]
    async with stranger.get(urls[1]) as response:
        painter.seen(await response.read())
    assert answered.roost["pictures"][1]["drawn"]["seed"] == 5


async def test_a_streamed_chat_with_a_painter_ends_with_the_link(client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "a boat"}]
    stream = await client.chat.completions.create(model="slow", messages=messages, stream=True)
    chunks = [chunk async for chunk in stream]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert URL.search(text)
    assert text.startswith("![a boat](")
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_request_for_pictures_can_be_fetched_later(
    client: openai.AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    made = await client.images.generate(model="painter", prompt="a boat")
    async with http.get(f"/v1/requests/{made._request_id}") as response:
        state = await response.json()
    assert state["state"] == "answered"
    assert state["response"]["data"][0]["b64_json"] == made.data[0].b64_json


async def test_models_tell_what_they_make(client: openai.AsyncOpenAI) -> None:
    async def kinds() -> Any:
        return {model.id: model.roost["kinds"] for model in (await client.models.list()).data if model.roost["kinds"]}

    async def known() -> bool:
        return (await kinds()).get("painter") == ["image"]

    await wait_for(known, LIMIT_S, "the painter is known")


async def test_other_methods_are_refused(http: aiohttp.ClientSession) -> None:
    for path, allow in (("generations", "POST"), ("edits", "POST")):
        async with http.get(f"/v1/images/{path}") as response:
            assert (response.status, response.headers["Allow"]) == (405, allow)
    async with http.post(f"/v1/images/files/{'0' * 64}.png") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET")


async def test_links_stay_good_when_the_part_is_restarted(tmp_path: Path, stranger: aiohttp.ClientSession) -> None:
    with running(tmp_path / "r", {"models": [painter.MODEL]}, painter.environment()) as roost:
        async with openai.AsyncOpenAI(base_url=f"{roost.http}/v1", api_key=roost.key()) as client:
            url = (await client.images.generate(model="painter", prompt="a boat", response_format="url")).data[0].url
        before = roost.kill("connectors")
        roost.wait_back("connectors", before)
        roost.wait_ready()
        path = url.partition("/v1/")[2]
        async with stranger.get(f"{roost.http}/v1/{path}") as response:
            assert response.status == 200
