"""A repository on a web server: what it may say, what it may do to the connection, and what we tell it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest
from aiohttp import web

from schemas.errors import AuthFailed, ConfigError, Disconnected, Retryable, Untrusted
from tests.updater.source.servers import certificate, proxy_to, raw, response, serving
from tests.updater.source.test_patient import Hasty
from updater.source.contract import Missing, Unready
from updater.source.http import HttpSource, address
from updater.source.patient import Patient

BODY = random.Random(1).randbytes(50_000)


@contextlib.asynccontextmanager
async def source(port: int, *, timeout_s: float = 5.0, **more: object):
    opened = HttpSource(f"http://127.0.0.1:{port}/models", connections=2, timeout_s=timeout_s, **more)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.mark.parametrize("seed", range(40))
async def test_a_connection_cut_at_any_byte_gives_the_whole_object_or_an_error(seed: int) -> None:
    rng = random.Random(seed)
    whole = response(BODY)
    # one in four inside the head
    cuts = [rng.randrange(len(whole) - len(BODY)) if rng.random() < 0.25 else rng.randrange(len(whole)) for _ in "ab"]
    left = list(cuts)

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole[: left.pop()] if left else whole)

    async with raw(talk) as port, source(port) as http:
        patient = Patient(http, connections=2, timeout_s=5.0, rng=Hasty())
        assert await patient.read("chunks/ab/abcd", len(BODY)) == BODY, f"cut at {cuts}"
    assert not left


@pytest.mark.parametrize("cut", [0, 5, 30, 45, 60, 10_000, len(response(BODY)) - 1])
async def test_a_connection_that_is_always_cut_is_an_error_not_a_part(cut: int) -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(BODY)[:cut])

    async with raw(talk) as port, source(port) as http:
        with pytest.raises(Disconnected) as raised:
            await http.read("chunks/ab/abcd", len(BODY))
    assert "chunks/ab/abcd" in raised.value.message


@pytest.mark.parametrize("cut", [0, 3, 40, 5_000])
async def test_a_chunked_body_that_is_cut_is_an_error(cut: int) -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write((b"2000\r\n" + BODY[:0x2000] + b"\r\n")[:cut])

    async with raw(talk) as port, source(port) as http:
        with pytest.raises(Disconnected):
            await http.read("x", len(BODY))


async def test_a_server_that_drips_is_given_up_after_a_time_that_the_size_allows() -> None:
    drops = 0

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal drops
        writer.write(response(b"", length=300))
        for _ in range(300):
            writer.write(b"x")
            await writer.drain()
            drops += 1
            await asyncio.sleep(0.05)

    async with raw(talk) as port, source(port, timeout_s=0.2) as http:
        patient = Patient(http, connections=1, timeout_s=0.2, rng=Hasty())
        with pytest.raises(Disconnected, match="did not come within"):
            await patient.read("x", 300)
    assert drops > 4, "each byte came in time, the whole did not"


async def test_a_server_that_falls_silent_is_given_up() -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(BODY)[:1_000])
        await writer.drain()
        await asyncio.Event().wait()

    async with raw(talk) as port, source(port, timeout_s=0.1) as http:
        with pytest.raises(Disconnected, match=r"nothing came for 0\.1 s") as raised:
            await http.read("x", len(BODY))
    assert raised.value.code == "slow"


@pytest.mark.parametrize("claimed", [101, 10**15])
async def test_a_length_above_the_limit_is_refused_before_the_body(claimed: int) -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"", length=claimed))
        await writer.drain()
        await asyncio.Event().wait()

    async with raw(talk) as port, source(port) as http:
        with pytest.raises(Untrusted, match=f"{claimed} bytes; 100 are allowed") as raised:
            await http.read("x", 100)
    assert raised.value.code == "too_large"


async def test_a_body_without_a_length_is_cut_off_at_the_limit() -> None:
    sent = 0

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
            await writer.drain()
            sent += 0x1000

    async with raw(talk) as port, source(port) as http:
        with pytest.raises(Untrusted) as raised:
            await http.read("x", 100_000)
    assert raised.value.code == "too_large"
    assert sent < 50_000_000


async def test_a_length_that_is_too_short_is_an_error_and_spoils_no_later_read() -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"right" if b"second" in head else b"too long a body", length=5))

    async with raw(talk) as port, source(port) as http:
        with pytest.raises(Disconnected):
            await http.read("first", 100)
        assert await http.read("second", 100) == b"right"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x16\x03\x01",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1180591620717411303424\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"",
    ],
)
async def test_a_server_that_speaks_no_proper_http_is_an_error_of_the_link(garbage: bytes) -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)

    async with raw(talk) as port, source(port) as http:
        with pytest.raises((Disconnected, Unready)):
            await http.read("x", 100)


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (404, Missing, "has no x"),
        (410, Missing, "has no x"),
        (403, Missing, "ROOST_UPDATES_TOKEN"),
        (401, AuthFailed, "ROOST_UPDATES_TOKEN"),
        (400, Unready, "answers 400"),
        (418, Unready, "answers 418"),
        (206, Unready, "answers 206"),
        (204, Unready, "answers 204"),
        (500, Retryable, "answers 500"),
        (503, Retryable, "answers 503"),
        (429, Retryable, "answers 429"),
    ],
)
async def test_each_answer_of_the_server_has_its_reaction(status: int, kind: type[Exception], says: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Retry-After": "7"})

    async with serving(handler) as port, source(port) as http:
        with pytest.raises(kind, match=says) as raised:
            await http.read("x", 100)
    if raised.type is Retryable:
        assert raised.value.after_s == 7.0


async def test_a_compressed_body_is_refused_and_none_was_asked_for() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers["Accept-Encoding"])
        return web.Response(body=b"x" * 1000, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as port, source(port) as http:
        with pytest.raises(Unready, match="compresses"):
            await http.read("x", 10_000)
    assert asked == ["identity"]


async def test_a_redirect_on_the_same_server_is_followed_a_few_times() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/models/x":
            return web.Response(status=302, headers={"Location": "/elsewhere/x"})
        if path.startswith("/models/loop"):
            return web.Response(status=302, headers={"Location": path})
        return web.Response(body=path.encode())

    async with serving(handler) as port, source(port) as http:
        assert await http.read("x", 100) == b"/elsewhere/x"
        with pytest.raises(Unready, match="more than 3 times"):
            await http.read("loop", 100)


async def test_a_redirect_to_another_host_scheme_or_port_is_not_followed() -> None:
    asked: list[str] = []

    async def other(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=b"other")

    async with serving(other) as elsewhere:
        for location in (
            f"http://127.0.0.1:{elsewhere}/x", f"http://localhost:{elsewhere}/x", "https://127.0.0.1/x",
            "//example.org/x", "ftp://example.org/x", "http://[", "",
        ):  # fmt: skip

            async def handler(request: web.Request, location: str = location) -> web.StreamResponse:
                return web.Response(status=301, headers={"Location": location})

            async with serving(handler) as port, source(port, token="t0ken") as http:
                with pytest.raises(Unready, match="redirected") as raised:
                    await http.read("x", 100)
                assert raised.value.code == "redirect"
    assert asked == []


async def test_connections_are_kept_and_limited() -> None:
    peers: set[object] = set()
    running = most = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal running, most
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return web.Response(body=b"x")

    async with serving(handler) as port, source(port) as http:
        await asyncio.gather(*(http.read(f"chunks/{i}", 10) for i in range(30)))
    assert len(peers) <= 2
    assert most <= 2


async def test_the_token_is_sent_as_bearer_and_appears_in_no_message() -> None:
    heard: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        heard.append(request.headers.get("Authorization"))
        return web.Response(status=401)

    async with serving(handler) as port:
        for more in ({"token": "t0ken"}, {}):
            async with source(port, **more) as http:
                with pytest.raises(AuthFailed) as raised:
                    await http.read("x", 10)
                assert "t0ken" not in raised.value.message + http.where
    assert heard == ["Bearer t0ken", None]


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut"])
def test_a_token_that_no_header_can_hold_is_the_operators_mistake(token: str) -> None:
    with pytest.raises(ConfigError, match="ROOST_UPDATES_TOKEN") as raised:
        HttpSource("https://example.org/x", connections=1, timeout_s=1.0, token=token)
    assert token not in raised.value.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]:8080/x", "https://a.org"])
def test_addresses_that_may_be(url: str) -> None:
    assert str(address(url)).startswith(url)


async def test_nobody_listening_is_an_error_of_the_link() -> None:
    async with source(1) as http:
        with pytest.raises(Disconnected, match=r"127\.0\.0\.1"):
            await http.read("x", 10)


async def test_a_closed_source_reads_nothing_more() -> None:
    async with source(1) as http:
        pass
    with pytest.raises(Unready, match="closed"):
        await http.read("x", 10)


async def there(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"there")


async def test_https_needs_a_certificate_that_a_known_authority_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = certificate(tmp_path, "127.0.0.1")
    async with serving(there, ssl_context=context) as port:
        stranger = HttpSource(f"https://127.0.0.1:{port}/", connections=1, timeout_s=5.0)
        with pytest.raises(Unready, match="SSL_CERT_FILE") as raised:
            await stranger.read("x", 10)
        assert raised.value.code == "certificate"
        await stranger.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        known = HttpSource(f"https://127.0.0.1:{port}/", connections=1, timeout_s=5.0)
        assert await known.read("x", 10) == b"there"
        await known.close()
        wrong_name = HttpSource(f"https://localhost:{port}/", connections=1, timeout_s=5.0)
        with pytest.raises(Unready):
            await wrong_name.read("x", 10)
        await wrong_name.close()


async def test_the_environments_proxy_is_used_with_its_credentials_and_never_for_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = certificate(tmp_path, "updates.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(there, ssl_context=context) as behind, proxy_to(behind) as (proxy, heads):
        for name in ("https_proxy", "http_proxy"):
            monkeypatch.setenv(name, f"http://ada:pass@127.0.0.1:{proxy}")
        far = HttpSource("https://updates.test/models", connections=1, timeout_s=5.0, token="t0ken")
        assert await far.read("x", 10) == b"there"
        await far.close()
    assert len(heads) == 1
    assert heads[0].startswith(b"CONNECT updates.test:443 ")
    assert b"Basic YWRhOnBhc3M=" in heads[0]
    assert b"t0ken" not in heads[0]
    async with serving(there) as port, source(port) as http:
        assert await http.read("x", 10) == b"there", "the proxy is gone and not asked"
