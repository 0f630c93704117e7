"""The one web server that all HTTP connectors share.

It owns the socket, TLS, limits of size and time, and the security headers; connectors own their routes. Errors of
`schemas.errors` that a handler raises become a JSON body `{"error": {"code", "message"}}` with a fitting status; a
connector whose protocol words its errors differently catches them itself, and takes a catch-all route for its prefix.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

from connectors.host.connection import Connection, Door, body_of
from connectors.host.metrics import Metrics
from schemas.config import HttpConfig
from schemas.errors import AuthFailed, ConfigError, QueueFull, Rejected, Retryable, RoostError

log = logging.getLogger("roost.http")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
HEADERS = {
    "Server": "Roost",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
STATUS = {
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "unknown_model": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "cancelled": 409,
    "expired": 410,
    "too_large": 413,
    "media_type": 415,
    "rate_limited": 429,
}
KEEPALIVE_S = 75.0  # longer than the 60 s for which proxies keep an idle upstream connection
LINGERING_S = 2.0


def address(listen: str, place: str) -> tuple[str, int]:
    """`host:port` → (host, port); raises `ConfigError`."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{place}: expected host:port, got {listen!r}")
    return host.strip("[]"), int(port)


def status_of(error: RoostError) -> int:
    """HTTP status for an error that a handler raised."""
    if isinstance(error, QueueFull):
        return 429
    if isinstance(error, AuthFailed):
        return 401
    if isinstance(error, Rejected):
        return STATUS.get(error.code, 400)
    if isinstance(error, Retryable):
        return 504 if error.code == "timeout" else 503
    return 500


def retry_after(error: RoostError) -> dict[str, str]:
    """Header that says when to come back, for errors that pass."""
    seconds = getattr(error, "after_s", 1.0 if error.code == "rate_limited" else None)
    return {} if seconds is None else {"Retry-After": str(max(1, round(seconds)))}


def problem(error: RoostError) -> web.Response:
    """The plain error answer of Roost's own endpoints."""
    return web.Response(
        status=status_of(error),
        body=body_of(error.code, error.message),
        content_type="application/json",
        headers=retry_after(error),
    )


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into answers; a bug becomes a 500 with no inner detail."""
    if isinstance(request.protocol, Connection):
        request.protocol.begin()
    try:
        response = await handler(request)
    except RoostError as error:
        response = problem(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = web.Response(
            status=error.status,
            body=body_of(error.reason.lower().replace(" ", "_"), error.reason),
            content_type="application/json",
            headers={k: v for k, v in error.headers.items() if k == "Allow"},
        )
    except (asyncio.CancelledError, ConnectionResetError):
        raise
    except Exception:
        log.exception("unexpected error in %s %s", request.method, _route(request))
        response = web.Response(
            status=500,
            body=body_of("internal", "an unexpected error; the log has the details"),
            content_type="application/json",
        )
    if not response.prepared:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
    return response


def _route(request: web.Request) -> str:
    """The route's pattern: never a path, which may hold ids and has no limit of variety."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"


def _measured(metrics: Metrics) -> Middleware:
    """The middleware around all others that counts what was answered."""

    @web.middleware
    async def measured(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        status = 499  # nginx's number for a client that left before its answer
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            metrics.http(request.method, _route(request), status, time.perf_counter() - began)

    return measured


async def read_body(request: web.Request, config: HttpConfig) -> bytes:
    """The whole body within the limits of size and time; raises `Rejected`."""
    too_large = Rejected(f"the body is larger than {config.body_bytes_max} bytes", code="too_large")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Rejected("send the body without Content-Encoding", code="media_type")
    if request.content_length is not None and request.content_length > config.body_bytes_max:
        raise too_large
    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None
    except TimeoutError:
        raise Rejected(f"the body did not arrive within {config.body_timeout_s:g} s", code="timeout") from None
    except web.RequestPayloadError:
        raise Rejected("the body ended early or its chunks are malformed", code="malformed") from None


class HttpServer:
    """Listens from `start` to `stop`. `url` is where, once started (port 0 is resolved).

    `drain_s`: for how long `stop` lets handlers finish before it cancels them.
    """

    def __init__(
        self,
        config: HttpConfig,
        routes: Sequence[web.AbstractRouteDef],
        metrics: Metrics | None = None,
        drain_s: float = 5.0,
    ) -> None:
        self.config = config
        self.door = Door(config.connections_max, config.headers_timeout_s)
        middlewares: list[Middleware] = [guard] if metrics is None else [_measured(metrics), guard]
        self.app = web.Application(middlewares=middlewares, client_max_size=config.body_bytes_max)
        self.app.add_routes(routes)
        self._runner = web.AppRunner(self.app, handler_cancellation=True, shutdown_timeout=drain_s)
        self._server: asyncio.Server | None = None
        self.url = ""
        if metrics is not None:
            metrics.watch_connections(lambda: self.door.open)

    def _tls(self, host: str) -> ssl.SSLContext | None:
        if self.config.certificate and self.config.key:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                context.load_cert_chain(self.config.certificate, self.config.key)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"http.certificate, http.key: {error}") from None
            return context
        if host not in LOOPBACK:
            raise ConfigError(
                f"http.listen: {host} is beyond loopback; set http.certificate and http.key, or listen on 127.0.0.1"
            )
        return None

    def _connection(self) -> Connection:
        assert self._runner.server is not None
        return Connection(self.door, self._runner.server, keepalive_timeout_s=KEEPALIVE_S, lingering_s=LINGERING_S)

    async def start(self) -> None:
        """Listen; raises `ConfigError` when the address is taken or not allowed."""
        host, port = address(self.config.listen, "http.listen")
        context = self._tls(host)
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._connection,
                host,
                port,
                ssl=context,
                ssl_handshake_timeout=self.config.body_timeout_s if context else None,
                backlog=1024,
                reuse_address=True,
            )
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"http.listen: cannot listen on {self.config.listen}: {error.strerror or error}"
            ) from None
        bound = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if context else 'http'}://{'[' + host + ']' if ':' in host else host}:{bound}"

    async def stop(self) -> None:
        """Stop listening, close idle connections, and let the handlers finish within the limit."""
        if self._server is not None:
            self._server.close()
            await self._runner.cleanup()
            self._server = None
