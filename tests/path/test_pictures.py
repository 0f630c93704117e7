"""Pictures through the front door of a running Roost: asked for in any words, followed, fetched, refused."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.running import ECHO, RunningRoost, running, wait_for
from tests.tools import painter

LIMIT_S = 20.0
SLOW = {"name": "slow", "type": "painter", "delay_step_ms": 40, "steps": 6, "routes": {"commands": ["/slow"]}}

IMAGE = {"text": "a boat", "kind": "image"}
LARGE = {"name": "large", "type": "painter", "ballast_bytes": 2_500_000}


@pytest.fixture(scope="module")
def paints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRoost]:
    config = {"models": [ECHO, painter.MODEL, SLOW, LARGE]}
    with running(tmp_path_factory.mktemp("paints"), config, painter.environment()) as started:
        yield started


@pytest.fixture
async def client(paints: RunningRoost) -> AsyncIterator[Any]:
    nc = await paints.client()

    async def known() -> bool:
        answer = await paints.ask(nc, {"text": "a dot", "kind": "image"})
        return "attachments" in answer

    await wait_for(known, LIMIT_S, "the router knows the painter")
    yield nc
    await nc.close()


async def file(client: Any, sha256: str, **fields: Any) -> Any:
    return await client.request("roost.ask.file", json.dumps({"sha256": sha256, **fields}).encode(), timeout=10)


async def seen(client: Any, answer: dict[str, Any]) -> list[tuple[int, int, tuple[int, int, int]]]:
    return [painter.seen((await file(client, one["sha256"])).data) for one in answer["attachments"]]


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("/image a red boat under a yellow sun", "a red boat under a yellow sun"),
        ("／image 一只红色的船", "一只红色的船"),
        ("draw me a red boat", "draw me a red boat"),
        ("画一只红色的船", "画一只红色的船"),
    ],
)
async def test_a_picture_is_asked_for_by_a_command_or_in_plain_words(
    paints: RunningRoost, client: Any, text: str, prompt: str
) -> None:
    answer = await paints.ask(client, {"text": text})
    assert (answer["text"], answer["route"]["kind"]) == ("", "image")
    (picture,) = answer["attachments"]
    assert picture["drawn"]["prompt"] == prompt
    assert picture["drawn"]["version"]
    data = (await file(client, picture["sha256"])).data
    assert hashlib.sha256(data).hexdigest() == picture["sha256"]
    assert len(data) == picture["size_bytes"]


async def test_what_is_asked_for_beside_the_words_reaches_the_model(paints: RunningRoost, client: Any) -> None:
    drawing = {"size": "64x128", "steps": 2, "guidance": 3.5, "negative": "fog", "scheduler": "ddim"}
    body = {"text": "a boat", "kind": "image", "n": 3, "seed": 8, "drawing": drawing}
    answer = await paints.ask(client, body)
    drawn = [one["drawn"] for one in answer["attachments"]]
    assert [one["seed"] for one in drawn] == [8, 9, 10]
    assert {key: drawn[0][key] for key in ("steps", "guidance", "negative", "scheduler")} == {
        key: drawing[key] for key in ("steps", "guidance", "negative", "scheduler")
    }
    pictures = await seen(client, answer)
    assert {picture[:2] for picture in pictures} == {(64, 128)}
    assert len({picture[2] for picture in pictures}) == 3


async def test_a_guessed_picture_may_come_several_times(paints: RunningRoost, client: Any) -> None:
    answer = await paints.ask(client, {"text": "draw me a red boat", "n": 2})
    assert len(answer["attachments"]) == 2


async def test_a_command_keeps_the_picture_to_start_from(paints: RunningRoost, client: Any) -> None:
    made = await paints.ask(client, {"text": "/image a boat", "seed": 1})
    start = (await file(client, made["attachments"][0]["sha256"])).data
    attached = [{"media_type": "image/png", "data": base64.b64encode(start).decode(), "name": "start.png"}]
    body = {"text": "/image a blue boat", "seed": 1, "attachments": attached, "drawing": {"strength": 0.4}}
    answer = await paints.ask(client, body)
    assert answer["attachments"][0]["drawn"]["strength"] == 0.4
    assert await seen(client, answer) != await seen(client, made)


async def test_a_stream_tells_how_far_the_picture_is(paints: RunningRoost, client: Any) -> None:
    inbox = client.new_inbox()
    sub = await client.subscribe(inbox)
    body = {"text": "/slow a boat", "stream": True}
    await client.publish("roost.ask", json.dumps(body).encode(), reply=inbox)
    progress, last = [], {}
    while "finish" not in last:
        last = json.loads((await sub.next_msg(timeout=10)).data)
        assert "error" not in last
        if "progress" in last:
            progress.append(last["progress"])
    await sub.unsubscribe()
    steps = [one["step"] for one in progress]
    assert steps == sorted(steps)
    assert len(steps) >= 3
    assert {one["steps"] for one in progress} == {6}
    assert base64.b64decode(progress[0]["preview"]).startswith(b"\xff\xd8\xff")
    assert len(last["attachments"]) == 1


async def test_a_picture_is_cancelled_between_its_steps(paints: RunningRoost, client: Any) -> None:
    inbox = client.new_inbox()
    sub = await client.subscribe(inbox)
    body = {"text": "a boat", "model": "slow", "stream": True, "id": "stop-drawing", "drawing": {"steps": 150}}
    await client.publish("roost.ask", json.dumps(body).encode(), reply=inbox)
    last: dict[str, Any] = {}
    while "progress" not in last:
        last = json.loads((await sub.next_msg(timeout=10)).data)
    await client.request("roost.ask.cancel", b'{"id": "stop-drawing"}')
    while "finish" not in last:
        last = json.loads((await sub.next_msg(timeout=10)).data)
    await sub.unsubscribe()
    assert last["finish"] == "cancelled"
    assert "attachments" not in last


async def test_a_conversation_goes_on_after_a_picture(paints: RunningRoost, client: Any) -> None:
    async def said(text: str) -> dict[str, Any]:
        return await paints.ask(client, {"text": text, "conversation": "boats"})

    assert (await said("hello"))["model"] == "echo"
    assert (await said("/image a red boat"))["attachments"]
    assert (await said("again, but blue"))["text"] == "again, but blue"
    assert (await said("draw me a green boat"))["attachments"]
    assert (await said("thank you"))["model"] == "echo"


async def test_a_file_is_given_in_parts(paints: RunningRoost, client: Any) -> None:
    answer = await paints.ask(client, {"text": "/image a boat"})
    sha256 = answer["attachments"][0]["sha256"]
    whole = await file(client, sha256)
    assert whole.headers["Roost-Size-Bytes"] == str(len(whole.data))
    assert (await file(client, sha256, offset=10)).data == whole.data[10:]
    assert (await file(client, sha256, offset=len(whole.data))).data == b""


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"sha256": "0" * 64}, "not_found", "sha256"),
    ({"sha256": "../../etc/passwd"}, "bad_value", "sha256"),
    ({"sha256": "A" * 64}, "bad_value", "sha256"),
    ({"sha256": "", "offset": 0}, "bad_value", "sha256"),
    ({}, "invalid_request", "sha256"),
]


@pytest.mark.parametrize(("body", "code", "says"), BAD)
async def test_a_file_that_there_is_not_is_an_error(client: Any, body: dict[str, Any], code: str, says: str) -> None:
    reply = await client.request("roost.ask.file", json.dumps(body).encode(), timeout=10)
    assert reply.headers["Nats-Service-Error-Code"] == code
    assert says in json.loads(reply.data)["error"]["message"]


async def test_an_offset_beyond_the_file_is_an_error(paints: RunningRoost, client: Any) -> None:
    sha256 = (await paints.ask(client, {"text": "/image a boat"}))["attachments"][0]["sha256"]
    for offset in (-1, 10**9):
        reply = await file(client, sha256, offset=offset)
        assert reply.headers["Nats-Service-Error-Code"] == "bad_value"


DATA = base64.b64encode(b"hello").decode()


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({**IMAGE, "text": " "}, "empty", "empty"),
        ({"text": "/image"}, "empty", "/image"),
        ({**IMAGE, "text": "a" * 4_001}, "too_large", "text: "),
        ({**IMAGE, "n": 0}, "bad_value", "n: "),
        ({**IMAGE, "n": 1_000}, "bad_value", "n: "),
        ({**IMAGE, "drawing": {"size": "513x512"}}, "bad_value", "size: "),
        ({**IMAGE, "drawing": {"steps": 10_000}}, "bad_value", "steps: "),
        ({**IMAGE, "drawing": {"steps": "many"}}, "invalid_request", "steps"),
        ({**IMAGE, "drawing": {"strength": 0.5}}, "bad_value", "strength: "),
        ({**IMAGE, "kind": "chat", "drawing": {"steps": 5}}, "bad_value", "drawing: "),
        ({**IMAGE, "attachments": [{"media_type": "image/png", "data": "%%%"}]}, "bad_value", "base64"),
        ({**IMAGE, "attachments": [{"media_type": "text/plain", "data": DATA}]}, "media_type", "attachments[0]: "),
        ({**IMAGE, "attachments": [{"media_type": "image/png", "data": DATA}]}, "bad_picture", "attachments[0]: "),
        ({**IMAGE, "model": "echo"}, "unsupported", "kind: "),
    ],
)
async def test_what_cannot_be_drawn_is_refused_and_the_next_is_drawn(
    paints: RunningRoost, client: Any, body: dict[str, Any], code: str, says: str
) -> None:
    error = (await paints.ask(client, body))["error"]
    assert (error["code"], says in error["message"]) == (code, True), error
    assert (await paints.ask(client, IMAGE))["attachments"]


async def test_a_file_that_is_larger_than_a_message_comes_in_parts_alone(paints: RunningRoost, client: Any) -> None:
    (picture,) = (await paints.ask(client, {**IMAGE, "model": "large"}))["attachments"]
    assert picture["size_bytes"] > 2 * client.max_payload
    refused = await file(client, picture["sha256"])
    assert refused.headers["Nats-Service-Error-Code"] == "too_large"
    assert "/v1/images/files/" in json.loads(refused.data)["error"]["message"]
    data = b""
    while len(data) < picture["size_bytes"]:
        data += (await file(client, picture["sha256"], offset=len(data))).data
    assert hashlib.sha256(data).hexdigest() == picture["sha256"]


async def test_without_a_model_for_pictures_a_command_says_what_to_do(roost: RunningRoost) -> None:
    nc = await roost.client()
    try:
        error = (await roost.ask(nc, {"text": "/image a boat"}))["error"]
        assert error["code"] == "unsupported_kind"
        assert "config.yaml" in error["message"]
        assert (await roost.ask(nc, {"text": "draw me a red boat"}))["text"] == "draw me a red boat"
    finally:
        await nc.close()
