"""The page's server over real HTTP: what is refused, what is answered, what the stream tells."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from connectors.web import COOKIE
from tests.connectors.web.conftest import PageServer, double_server
from tests.connectors.web.double import DoubleHost

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


class Client:
    """A browser's requests without the browser."""

    def __init__(self, session: aiohttp.ClientSession, server: PageServer) -> None:
        assert server.host is not None
        self.session = session
        self.server = server
        self.host: DoubleHost = server.host

    def call(self, method: str, path: str, **options: Any):
        headers = {"Origin": self.server.url} | options.pop("headers", {})
        return self.session.request(method, self.server.url + path, headers=headers, **options)

    async def json(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        async with self.call(method, path, **options) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def send(self, conversation: str, text: str, status: int = 202, **fields: Any) -> Any:
        body = {"id": uuid.uuid4().hex, "text": text} | fields
        return await self.json("POST", f"/api/conversations/{conversation}/messages", status, json=body)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        async with self.call("GET", "/api/events") as response:
            assert response.status == 200

            async def read() -> AsyncIterator[tuple[str, Any]]:
                name = ""
                async for line in response.content:
                    if line.startswith(b"event: "):
                        name = line[7:].decode().strip()
                    elif line.startswith(b"data: "):
                        yield name, json.loads(line[6:])

            yield read()


@pytest_asyncio.fixture
async def outside() -> AsyncIterator[Client]:
    """Somebody without a cookie."""
    async with double_server() as server, aiohttp.ClientSession() as session:
        yield Client(session, server)


@pytest_asyncio.fixture
async def client(outside: Client) -> Client:
    """The owner. (The cookie jar of aiohttp keeps no cookies of bare addresses, so the header is set by hand.)"""
    async with outside.call("POST", "/api/login", json={"code": outside.server.code}) as response:
        assert response.status == 200
        outside.session.headers["Cookie"] = f"{COOKIE}={response.cookies[COOKIE].value}"
    return outside


async def until(events: AsyncIterator[tuple[str, Any]], wanted: str) -> tuple[list[tuple[str, Any]], Any]:
    """Events up to the first `wanted` one, and that."""
    before = []
    async with asyncio.timeout(10):
        async for name, data in events:
            if name == wanted:
                return before, data
            before.append((name, data))
    raise AssertionError(f"the stream ended without {wanted!r}")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/me"),
        ("GET", "/api/models"),
        ("GET", "/api/events"),
        ("GET", "/api/conversations"),
        ("GET", "/api/conversations/x"),
        ("DELETE", "/api/conversations/x"),
        ("POST", "/api/conversations/x/messages"),
        ("POST", "/api/conversations/x/retry"),
        ("GET", "/api/requests/x"),
        ("POST", "/api/requests/x/cancel"),
        ("POST", "/api/attachments"),
        ("GET", "/api/attachments/" + "0" * 64),
        ("POST", "/api/logout"),
    ],
)
async def test_without_a_cookie_nothing_is_answered(outside: Client, method: str, path: str) -> None:
    answer = await outside.json(method, path, 401)
    assert answer["error"]["code"] == "auth_failed"
    outside.session.headers["Cookie"] = f"{COOKIE}=gAAAAABforged"
    await outside.json(method, path, 401)


async def test_wrong_codes_are_limited_for_everybody(outside: Client) -> None:
    for _ in range(10):
        assert (await outside.json("POST", "/api/login", 401, json={"code": "X"}))["error"]["code"] == "wrong_code"
    async with outside.call("POST", "/api/login", json={"code": outside.server.code}) as response:
        assert response.status == 429
        assert 290 <= int(response.headers["Retry-After"]) <= 300


async def test_the_cookie_is_kept_from_scripts_and_other_sites(outside: Client) -> None:
    async with outside.call("POST", "/api/login", json={"code": outside.server.code}) as response:
        cookie = response.headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=2592000"):
        assert part in cookie
    assert outside.server.code not in cookie


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", ""])
async def test_another_origin_changes_nothing(client: Client, origin: str) -> None:
    body = {"id": "1", "text": "hello"}
    path = "/api/conversations/c/messages"
    assert (await client.json("POST", path, 403, json=body, headers={"Origin": origin}))["error"]["code"] == "forbidden"
    await client.json("DELETE", "/api/conversations/c", 403, headers={"Origin": origin})
    await client.json("POST", "/api/login", 403, json={"code": client.server.code}, headers={"Origin": origin})
    assert client.host.jobs == {}


async def test_another_name_for_our_address_is_refused(client: Client) -> None:
    for path in ("/", "/api/me", "/static/app.js"):
        await client.json("GET", path, 403, headers={"Host": "rebound.example:8420"})


async def test_the_page_forbids_what_it_does_not_need(outside: Client) -> None:
    async with outside.call("GET", "/") as response:
        assert response.status == 200
        policy = response.headers["Content-Security-Policy"]
        body = await response.text()
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for"):
        assert part in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "style=" not in body
    assert "<script>" not in body


async def test_files_are_asked_for_again_and_answered_with_not_modified(outside: Client) -> None:
    async with outside.call("GET", "/static/app.js") as response:
        assert response.headers["Content-Type"].startswith("text/javascript")
        etag = response.headers["ETag"]
    async with outside.call("GET", "/static/app.js", headers={"If-None-Match": etag}) as response:
        assert response.status == 304


@pytest.mark.parametrize(
    "path", ["../__init__.py", "%2e%2e/api.py", "view/../../api.py", "/etc/passwd", "view", "x.js"]
)
async def test_only_the_pages_own_files_are_served(outside: Client, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(outside.server.url.rpartition(":")[2]))
    writer.write(f"GET /static/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.split(b" ", 2)[1] == b"404"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "bad_request"),
        (b"[]", "bad_request"),
        (b'{"id": 5, "text": "x"}', "bad_request"),
        (b'{"id": "1"}', "bad_request"),
        (b'{"id": "", "text": "x"}', "bad_request"),
        (b'{"id": "1", "text": "  "}', "empty"),
        (b'{"id": "1", "text": "\xff"}', "bad_request"),
        (b'{"id": "1", "text": ' + b"[" * 50_000, "bad_request"),
        (b'{"id": "1", "text": "x", "model": "nobody"}', "unknown_model"),
        (json.dumps({"id": "1", "text": "x" * 100_001}).encode(), "too_large"),
    ],
)
async def test_bad_input_is_refused_with_the_reason(client: Client, body: bytes, code: str) -> None:
    async with client.call(
        "POST", "/api/conversations/c/messages", data=body, headers={"Content-Type": "application/json"}
    ) as response:
        assert 400 <= response.status < 500
        assert (await response.json())["error"]["code"] == code
    assert client.host.jobs == {}


async def test_a_form_of_another_kind_is_refused(client: Client) -> None:
    await client.json("POST", "/api/conversations/c/messages", 400, data=b"{}", headers={"Content-Type": "text/plain"})


async def test_a_question_is_followed_from_the_queue_to_its_end(client: Client) -> None:
    async with client.events() as events:
        await until(events, "hello")
        taken = await client.send("c1", "**one** two", model="slow")
        _, asked = await until(events, "asked")
        assert asked["asked"]["text"] == "**one** two"
        between, final = await until(events, "final")
    assert {name for name, _ in between} <= {"progress", "blocks"}
    shown: list[str] = []
    for name, data in [*between, ("blocks", final)]:
        if name == "blocks":
            shown[data["from"] :] = data["html"]
    assert shown == ["<p><strong>one</strong> two</p>\n"]
    assert final["request"] == taken["request"]
    assert final["text"] == "**one** two"
    talk = await client.json("GET", f"/api/conversations/{taken['conversation']}")
    assert [(line["role"], line["html"]) for line in talk["entries"]] == [("user", []), ("assistant", shown)]
    listed = await client.json("GET", "/api/conversations")
    assert [item["conversation"] for item in listed] == [taken["conversation"]]
    state = await client.json("GET", f"/api/requests/{taken['request']}")
    assert state["state"] == "answered"


async def test_the_same_id_is_asked_once(client: Client) -> None:
    first = await client.send("c", "hello", id="same")
    again = await client.send("c", "hello", id="same")
    assert first["request"] == again["request"]
    assert len(client.host.jobs) == 1


async def test_a_page_that_comes_later_finds_what_is_open(client: Client) -> None:
    taken = await client.send("c", " ".join(["word"] * 40), model="slow")
    async with client.events() as events:
        _, hello = await until(events, "hello")
        (opened,) = hello["open"]
        assert opened["asked"]["request"] == taken["request"]
        talk = await client.json("GET", f"/api/conversations/{taken['conversation']}")
        assert [p["asked"]["request"] for p in talk["pending"]] == [taken["request"]]
        _, final = await until(events, "final")
    assert final["text"] == " ".join(["word"] * 40)


async def test_a_restart_finds_the_open_requests_again(client: Client) -> None:
    """A question accepted before this connector ran: nobody told it, it asks."""
    from connectors import Inbound
    from schemas.message import Sender

    accepted = await client.host.emit(
        Inbound(id="old", conversation="c", sender=Sender(id="owner"), text="from before", model="slow")
    )
    async with client.events() as events:
        _, hello = await until(events, "hello")
        assert [o["asked"]["request"] for o in hello["open"]] == [accepted.request]
        _, final = await until(events, "final")
    assert final["text"] == "from before"


async def test_cancel_ends_the_answer_and_a_strange_request_is_unknown(client: Client) -> None:
    taken = await client.send("c", " ".join(["word"] * 200), model="slow")
    async with client.events() as events:
        async with client.call("POST", f"/api/requests/{taken['request']}/cancel") as response:
            assert response.status == 204
        _, final = await until(events, "final")
    assert final["finish"] == "cancelled"
    await client.json("POST", "/api/requests/nobody/cancel", 404)


async def test_retry_drops_what_followed_and_is_done_once(client: Client) -> None:
    async with client.events() as events:
        first = await client.send("c", "one")
        await until(events, "final")
        await client.send("c", "two")
        await until(events, "final")
        path = f"/api/conversations/{first['conversation']}/retry"
        body = {"id": "r1", "request": first["request"]}
        again = await client.json("POST", path, 202, json=body)
        await until(events, "truncated")
        await until(events, "final")
        assert (await client.json("POST", path, 202, json=body))["request"] == again["request"]
    talk = await client.json("GET", f"/api/conversations/{first['conversation']}")
    assert [line["text"] for line in talk["entries"]] == ["one", "one"]
    assert talk["entries"][0]["request"] == again["request"]


async def test_deleting_a_conversation_stops_what_runs_in_it(client: Client) -> None:
    taken = await client.send("c", " ".join(["word"] * 400), model="slow")
    async with client.call("DELETE", f"/api/conversations/{taken['conversation']}") as response:
        assert response.status == 204
    assert await client.json("GET", "/api/conversations") == []


async def test_a_full_queue_is_told_with_the_time_to_come_back(client: Client) -> None:
    client.host.full = True
    async with client.call("POST", "/api/conversations/c/messages", json={"id": "1", "text": "x"}) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "5"
        assert (await response.json())["error"]["code"] == "queue_full"


async def test_an_image_comes_back_as_what_its_bytes_are(client: Client) -> None:
    headers = {"Content-Type": "text/html", "X-File-Name": "..%2Fa%20b.png"}
    stored = await client.json("POST", "/api/attachments", 201, data=PNG, headers=headers)
    assert stored["media_type"] == "image/png"
    assert stored["name"] == "a b.png"
    async with client.call("GET", f"/api/attachments/{stored['sha256']}") as response:
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert "immutable" in response.headers["Cache-Control"]
        assert await response.read() == PNG
    taken = await client.send("c", "", attachments=[stored])
    assert taken["request"] in client.host.jobs


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", b"GIF8", b"RIFF0000WAVE", b"<html>"])
async def test_what_is_no_image_is_refused(client: Client, data: bytes) -> None:
    answer = await client.json("POST", "/api/attachments", 400, data=data, headers={"Content-Type": "image/png"})
    assert answer["error"]["code"] == "bad_type"


async def test_a_file_that_is_too_large_is_refused(client: Client) -> None:
    await client.json("POST", "/api/attachments", 413, data=io.BytesIO(PNG + bytes(10_000_001)))


@pytest.mark.parametrize("sha256", ["0" * 64, "x", "..%2f..%2fetc%2fpasswd", "0" * 63 + "G"])
async def test_an_unknown_attachment_is_not_found(client: Client, sha256: str) -> None:
    await client.json("GET", f"/api/attachments/{sha256}", 404)


async def test_models_are_one_line_each_with_the_best_state(client: Client) -> None:
    from schemas.model import ModelStatus

    client.host.extra = [
        ModelStatus(name="fast", type="echo", worker="", state="absent"),
        ModelStatus(name="big", type="llama", worker="", state="absent", reason="file missing"),
        ModelStatus(name="vectors", type="embedding", worker="w", state="ready"),
    ]
    rows = {row["name"]: row for row in await client.json("GET", "/api/models")}
    assert set(rows) == {"fast", "slow", "coder", "big"}
    assert rows["fast"]["state"] == "ready"
    assert rows["fast"]["default"] is True
    assert rows["big"]["reason"] == "file missing"
