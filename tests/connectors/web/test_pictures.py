"""Pictures over the page's HTTP: wishes on their way in, progress and files on their way out."""

from __future__ import annotations

import asyncio
import base64
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from schemas.message import Sampling
from schemas.picture import Drawing
from tests.connectors.web.conftest import double_server
from tests.connectors.web.double import DoubleModel
from tests.connectors.web.pictures import JPEG, made
from tests.connectors.web.test_routes import Client


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    """Logged in, before a model `painter` that does what the test says."""
    painter = DoubleModel("painter", slots=0, kind="diffusion")
    jar = aiohttp.CookieJar(unsafe=True)  # keeps cookies of bare addresses
    async with double_server([painter]) as server, aiohttp.ClientSession(cookie_jar=jar) as session:
        client = Client(session, server)
        await client.json("POST", "/api/login", json={"code": server.code})
        yield client


async def told(events: AsyncIterator[tuple[str, Any]], wanted: str) -> Any:
    async with asyncio.timeout(10):
        async for name, data in events:
            if name == wanted:
                return data
    raise AssertionError(f"the stream ended before {wanted}")


async def test_wishes_reach_the_model_and_every_page_knows_the_room_that_pictures_will_take(client: Client) -> None:
    async with client.events() as events:
        drawing, sampling = {"size": "640x512", "steps": 9, "negative": "sea"}, {"seed": 7, "n": 3}
        taken = await client.send("c", "/image a boat", drawing=drawing, sampling=sampling)
        inbound = client.host.jobs[taken["request"]].inbound
        assert (inbound.kind, inbound.text) == ("image", "a boat")
        assert inbound.drawing == Drawing(size="640x512", steps=9, negative="sea")
        assert inbound.sampling == Sampling(seed=7, n=3)
        asked = (await told(events, "asked"))["asked"]
        assert (asked["n"], asked["drawing"]["size"]) == (3, "640x512")


async def test_a_wish_that_there_is_not_is_refused_and_nothing_is_asked(client: Client) -> None:
    refused = await client.send("c", "/image x", status=400, drawing={"sise": "64x64"})
    assert "sise" in refused["error"]["message"]
    assert client.host.jobs == {}


async def test_progress_is_told_with_its_preview_and_a_later_page_begins_with_the_newest(client: Client) -> None:
    async with client.events() as events:
        request = (await client.send("c", "/image a boat"))["request"]
        client.host.paint(request, 1, 4, JPEG)
        seen = await told(events, "painting")
        assert (seen["request"], seen["step"], seen["steps"]) == (request, 1, 4)
        assert base64.b64decode(seen["preview"]) == JPEG
        client.host.paint(request, 3, 4)
        assert (await told(events, "painting"))["step"] == 3
        async with client.events() as later:
            painting = (await told(later, "hello"))["open"][0]["painting"]
            assert painting["step"] == 3
            assert base64.b64decode(painting["preview"]) == JPEG
            assert painting["left_s"] > 0
        client.host.painted(request, (await made(client.host, "a boat", 7),))
        final = await told(events, "final")
        assert final["attachments"][0]["drawn"]["seed"] == 7
    line = (await client.json("GET", "/api/conversations/c"))["entries"][-1]
    assert line["attachments"] == final["attachments"]


async def test_a_retry_brings_its_wishes_along(client: Client) -> None:
    first = await client.send("c", "/image a boat")
    client.host.painted(first["request"], (await made(client.host, "a boat", 7),))
    again = {"id": "again", "request": first["request"], "model": "painter", "sampling": {"n": 2}}
    taken = await client.json("POST", "/api/conversations/c/retry", 202, json=again)
    inbound = client.host.jobs[taken["request"]].inbound
    assert (inbound.text, inbound.kind, inbound.sampling.n) == ("a boat", "image", 2)


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("doodler-seed-7", "doodler-seed-7.png"),
        ("doodler-seed-7.png", "doodler-seed-7.png"),
        ("run.exe", "run.exe.png"),
        ("../../etc/passwd", "passwd.png"),
        ("..\\..\\boot.ini", "boot.ini.png"),
        ('a"; filename="b.html', "a-; filename=-b.html.png"),
        ("line\r\nSet-Cookie: x=1", "lineSet-Cookie- x=1.png"),
        ("红色的船", "红色的船.png"),
        ("‮gnp.exe", "gnp.exe.png"),
        ("x" * 500, "x" * 120 + ".png"),
    ],
)
async def test_a_picture_is_saved_under_a_name_that_can_do_no_harm(client: Client, wish: str, name: str) -> None:
    picture = await made(client.host, "a boat", 7)
    path = f"/api/attachments/{picture.sha256}?save_as={urllib.parse.quote(wish)}"
    async with client.call("GET", path) as response:
        disposition = response.headers["Content-Disposition"]
        assert await response.read() == client.host.blobs[picture.sha256]
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "private" in response.headers["Cache-Control"]
        assert "Set-Cookie" not in response.headers
    assert disposition.startswith("attachment; filename*=UTF-8''")
    assert urllib.parse.unquote(disposition.partition("''")[2]) == name


async def test_a_name_of_nothing_but_harm_leaves_the_hash(client: Client) -> None:
    picture = await made(client.host, "a boat", 7)
    async with client.call("GET", f"/api/attachments/{picture.sha256}?save_as=..%2F..") as response:
        assert response.headers["Content-Disposition"] == f"attachment; filename={picture.sha256[:12]}.png"


async def test_what_is_gone_and_what_was_altered_is_told_apart(client: Client) -> None:
    gone, altered = await made(client.host, "a", 1), await made(client.host, "b", 2)
    del client.host.blobs[gone.sha256]
    client.host.blobs[altered.sha256] += b"!"
    refused = await client.json("GET", f"/api/attachments/{gone.sha256}", 404)
    assert refused["error"]["code"] == "not_found"
    refused = await client.json("GET", f"/api/attachments/{altered.sha256}", 500)
    assert refused["error"]["code"] == "untrusted"
