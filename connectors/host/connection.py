"""One TCP connection of the shared web server, with the limits that aiohttp leaves to its user.

It refuses connections beyond a limit, closes those whose request line and headers do not arrive in time (an idle
kept-alive connection may stay longer), and answers what is not HTTP with JSON. It knows no route and no connector.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec
from aiohttp import web

log = logging.getLogger("roost.http")

LINE_BYTES_MAX = 8_190
HEADERS_MAX = 64


class Door:
    """What all connections of one server share: how many are open, and the limits."""

    def __init__(self, connections_max: int, headers_timeout_s: float) -> None:
        self.connections_max = connections_max
        self.headers_timeout_s = headers_timeout_s
        self.open = 0
        self.refused = 0


def body_of(code: str, message: str) -> bytes:
    """The plain error body of Roost's own endpoints."""
    return msgspec.json.encode({"error": {"code": code, "message": message}})


def _raw(status: str, code: str, message: str) -> bytes:
    body = body_of(code, message)
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body


class Connection(web.RequestHandler):
    """aiohttp's protocol with a place in the `Door` and a clock for headers.

    The clock starts with the connection, and again with the first byte after an answer; `begin` stops it.
    """

    __slots__ = ("_clock", "_counted", "_door", "_idle")

    def __init__(self, door: Door, server: web.Server, *, keepalive_timeout_s: float, lingering_s: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=keepalive_timeout_s,
            lingering_time=lingering_s,
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for "no access log"
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
            logger=log,
        )
        self._door = door
        self._idle = True
        self._counted = False
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._door.open >= self._door.connections_max:
            self._door.refused += 1
            assert isinstance(transport, asyncio.Transport)
            transport.write(_raw("503 Service Unavailable", "busy", "too many open connections; try again later"))
            self.force_close()
            transport.close()
            return
        self._door.open += 1
        self._counted = True
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._counted = False
            self._door.open -= 1
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._idle and self._clock is None:
            self._start_clock()
        super().data_received(data)

    def begin(self) -> None:
        """A whole head has arrived and its handler runs."""
        self._idle = False
        self._stop_clock()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        done = await super().finish_response(request, resp, start_time)
        self._idle = True
        return done

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed. Neither log nor answer repeats the bytes: a key may be among them."""
        if status >= 500:
            log.error("unexpected error below the handlers", exc_info=exc)
            code, sentence = "internal", "an unexpected error; the log has the details"
        else:
            log.info("refused malformed HTTP: %s", type(exc).__name__)
            code, sentence = "malformed", f"this is not a well-formed HTTP request ({type(exc).__name__})"
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; a second one cannot follow")
        response = web.Response(status=status, body=body_of(code, sentence), content_type="application/json")
        response.force_close()
        return response

    def _start_clock(self) -> None:
        self._clock = asyncio.get_running_loop().call_later(self._door.headers_timeout_s, self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self) -> None:
        self._clock = None
        if self.transport is not None:
            limit = f"the headers did not arrive within {self._door.headers_timeout_s:g} s"
            self.transport.write(_raw("408 Request Timeout", "timeout", limit))
        self.force_close()
