"""The shared web server against clients that are slow, broken or hostile: raw bytes on real sockets."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from connectors.host.http import HttpServer, read_body, status_of
from connectors.host.metrics import Metrics
from schemas.config import HttpConfig
from schemas.errors import ConfigError, QueueFull, Rejected, Retryable, RoostError

LIMIT_S = 10.0


class Served:
    """A server with a few routes, and raw access to it."""

    def __init__(self, server: HttpServer, metrics: Metrics) -> None:
        self.server = server
        self.metrics = metrics
        self.port = int(server.url.rpartition(":")[2])
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.left = asyncio.Event()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def raw(self, data: bytes) -> tuple[int, bytes]:
        """Send bytes, read all there is until the server closes; status and body of the first answer."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            return await answer(reader)
        finally:
            writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(LIMIT_S):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length"))
        return int(lines[0].split()[1]), await reader.readexactly(length)


def error_code(body: bytes) -> str:
    return json.loads(body)["error"]["code"]


@asynccontextmanager
async def serving(**settings: object) -> AsyncIterator[Served]:
    config = HttpConfig(**{"listen": "127.0.0.1:0", **settings})
    served: Served

    async def hello(request: web.Request) -> web.Response:
        return web.json_response({"hello": "world"})

    async def upload(request: web.Request) -> web.Response:
        return web.json_response({"bytes": len(await read_body(request, config))})

    async def fail(request: web.Request) -> web.Response:
        errors: dict[str, Exception] = {
            "rejected": Rejected("no"), "full": QueueFull("full", after_s=7), "bug": ZeroDivisionError("secret")
        }  # fmt: skip
        raise errors[request.match_info["what"]]

    async def hold(request: web.Request) -> web.Response:
        served.started.set()
        try:
            await served.release.wait()
        finally:
            served.left.set()
        return web.json_response({"held": True})

    metrics = Metrics()
    routes = [web.get("/hello", hello), web.post("/upload", upload), web.get("/fail/{what}", fail),
              web.get("/hold", hold)]  # fmt: skip
    server = HttpServer(config, routes, metrics, drain_s=LIMIT_S)
    await server.start()
    served = Served(server, metrics)
    try:
        yield served
    finally:
        served.release.set()
        await server.stop()


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


async def test_answers_carry_the_security_headers() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get("/hello"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"X-Content-Type-Options: nosniff" in head
        assert b"X-Frame-Options: DENY" in head
        writer.close()


async def test_errors_are_json_with_their_status() -> None:
    async with serving() as served:
        assert [(s, error_code(b)) for s, b in [
            await served.raw(get("/fail/rejected")), await served.raw(get("/fail/full")),
            await served.raw(get("/nothing")), await served.raw(b"PUT /hello HTTP/1.1\r\nHost: x\r\n\r\n"),
        ]] == [(400, "rejected"), (429, "queue_full"), (404, "not_found"), (405, "method_not_allowed")]  # fmt: skip


async def test_a_full_queue_says_when_to_come_back() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get("/fail/full"))
        assert b"Retry-After: 7\r\n" in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_a_bug_becomes_a_500_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        status, body = await served.raw(get("/fail/bug"))
    assert (status, error_code(body)) == (500, "internal")
    assert b"secret" not in body
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"NONSENSE\r\n\r\n",
        b"GET /hello HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: x\r\n" + b"".join(b"H%d: 1\r\n" % i for i in range(500)) + b"\r\n",
        b"GET /hello HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["tls", "words", "version", "header", "long-header", "long-path", "many-headers", "nul", "two-lengths",
         "negative", "smuggled"],
)  # fmt: skip
async def test_malformed_http_gets_a_400_in_json_and_the_next_client_is_served(data: bytes) -> None:
    async with serving() as served:
        status, body = await served.raw(data)
        assert (status, error_code(body)) == (400, "malformed")
        assert (await served.raw(get("/hello")))[0] == 200


async def test_malformed_http_is_not_repeated_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with serving() as served:
        await served.raw(b"GET /hello HTTP/1.1\r\nHost: x\r\nAuthorization Bearer topsecret\r\n\r\n")
    assert "topsecret" not in caplog.text


async def test_an_unknown_method_is_refused() -> None:
    async with serving() as served:
        status, _ = await served.raw(b"BREW /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status in (400, 405)
        assert b'method="other"' in served.metrics.render() or status == 400


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get("/hello") + get("/nothing") + get("/hello"))
        assert [(await answer(reader))[0] for _ in range(3)] == [200, 404, 200]
        writer.close()


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    async with serving(body_bytes_max=1000) as served:
        status, body = await served.raw(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10000001\r\n\r\n")
        assert (status, error_code(body)) == (413, "too_large")


async def test_a_chunked_body_over_the_limit_is_refused() -> None:
    chunk = b"400\r\n" + b"a" * 1024 + b"\r\n"
    async with serving(body_bytes_max=1000) as served:
        status, body = await served.raw(
            b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 8 + b"0\r\n\r\n"
        )
        assert (status, error_code(body)) == (413, "too_large")


async def test_garbage_between_chunks_is_refused() -> None:
    async with serving() as served:
        status, body = await served.raw(
            b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZZZ\r\nabc\r\n"
        )
        assert (status, error_code(body)) == (400, "malformed")
        assert (await served.raw(get("/hello")))[0] == 200


async def test_a_compressed_body_is_refused() -> None:
    async with serving() as served:
        status, body = await served.raw(
            b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab"
        )
        assert (status, error_code(body)) == (415, "media_type")


async def test_a_slow_body_ends_in_a_408() -> None:
    async with serving(body_timeout_s=0.2) as served:
        status, body = await served.raw(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        assert (status, error_code(body)) == (408, "timeout")


@pytest.mark.parametrize("sent", [b"", b"GET /hello HT", b"GET /hello HTTP/1.1\r\nHost: x\r\nA: "])
async def test_slow_headers_end_in_a_408_and_a_closed_connection(sent: bytes) -> None:
    async with serving(headers_timeout_s=0.2) as served:
        reader, writer = await served.connect()
        writer.write(sent)
        status, body = await answer(reader)
        assert (status, error_code(body)) == (408, "timeout")
        assert await reader.read() == b""
        writer.close()


async def test_dripping_headers_do_not_extend_the_limit() -> None:
    async with serving(headers_timeout_s=0.3) as served:
        reader, writer = await served.connect()
        writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\nA: ")
        answered = asyncio.ensure_future(answer(reader))
        other_reader, other_writer = await served.connect()
        while not answered.done():  # one more byte in each round trip of another client
            other_writer.write(get("/hello"))
            await answer(other_reader)
            writer.write(b"a")
        assert (await answered)[0] == 408
        other_writer.close()
        writer.close()


async def test_slow_headers_of_a_second_request_are_limited_too() -> None:
    async with serving(headers_timeout_s=0.2) as served:
        reader, writer = await served.connect()
        writer.write(get("/hello"))
        assert (await answer(reader))[0] == 200
        writer.write(b"GET /hello HTTP/1.1\r\n")
        assert (await answer(reader))[0] == 408
        writer.close()


async def test_a_long_handler_is_not_taken_for_a_slow_client() -> None:
    async with serving(headers_timeout_s=0.05) as served:
        reader, writer = await served.connect()
        writer.write(get("/hold"))
        await served.started.wait()
        late_reader, late_writer = await served.connect()
        assert (await answer(late_reader))[0] == 408  # so that the limit has passed for the first one too
        served.release.set()
        assert (await answer(reader))[0] == 200
        late_writer.close()
        writer.close()


async def test_connections_beyond_the_limit_are_refused_and_a_free_place_is_used_again() -> None:
    async with serving(connections_max=2) as served:
        first, second = await served.connect(), await served.connect()
        for reader, writer in (first, second):
            writer.write(get("/hello"))
            assert (await answer(reader))[0] == 200
        reader, writer = await served.connect()
        status, body = await answer(reader)
        assert (status, error_code(body)) == (503, "busy")
        assert served.server.door.refused == 1
        assert b"roost_http_connections 2.0" in served.metrics.render()
        writer.close()
        first[1].write(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await first[0].read()
        assert (await served.raw(get("/hello")))[0] == 200
        second[1].close()
        first[1].close()


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    async with serving() as served:
        _, writer = await served.connect()
        writer.write(get("/hold"))
        await served.started.wait()
        writer.close()
        async with asyncio.timeout(LIMIT_S):
            await served.left.wait()
        assert not served.release.is_set()


async def refused(served: Served) -> None:
    """Returns once the server takes no new connections."""
    with suppress(ConnectionError):
        while True:
            (await served.connect())[1].close()


async def test_stopping_lets_a_running_handler_finish() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(get("/hold"))
        await served.started.wait()
        stopping = asyncio.ensure_future(served.server.stop())
        await asyncio.wait_for(refused(served), LIMIT_S)
        served.release.set()
        assert (await answer(reader))[0] == 200
        await stopping
        writer.close()


async def test_requests_are_counted_by_pattern_and_status_and_never_by_path() -> None:
    async with serving() as served:
        await served.raw(get("/fail/rejected"))
        await served.raw(get("/secret-path"))
        text = served.metrics.render().decode()
    assert 'roost_http_requests_total{method="GET",route="/fail/{what}",status="400"} 1.0' in text
    assert 'route="unmatched",status="404"' in text
    assert "secret-path" not in text


async def test_listening_beyond_loopback_needs_tls() -> None:
    with pytest.raises(ConfigError, match="beyond loopback"):
        await HttpServer(HttpConfig(listen="0.0.0.0:0"), []).start()


async def test_a_taken_port_names_the_address() -> None:
    async with serving() as served:
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1"):
            await HttpServer(HttpConfig(listen=f"127.0.0.1:{served.port}"), []).start()


async def test_tls_is_served_and_a_client_that_never_shakes_hands_is_dropped(tmp_path: object) -> None:
    certificate, key = f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    async with serving(certificate=certificate, key=key, body_timeout_s=1.0) as served:
        assert served.server.url.startswith("https://")
        context = ssl.create_default_context(cafile=certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
        writer.write(get("/hello"))
        assert (await answer(reader))[0] == 200
        writer.close()
        await writer.wait_closed()
        reader, writer = await served.connect()
        async with asyncio.timeout(LIMIT_S):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Rejected("x"), 400), (Rejected("x", code="unknown_model"), 404), (Rejected("x", code="too_large"), 413),
        (Rejected("x", code="unauthenticated"), 401), (Rejected("x", code="rate_limited"), 429), (QueueFull("x"), 429),
        (Retryable("x"), 503), (Retryable("x", code="timeout"), 504), (RoostError("x"), 500),
    ],
)  # fmt: skip
def test_each_error_has_one_status(error: RoostError, status: int) -> None:
    assert status_of(error) == status
