"""The one web server that all HTTP connectors share.

It owns the socket, TLS, limits of size and time, and the security headers; connectors own their routes. Errors of
`schemas.errors` that a handler raises become a JSON body `{"error": {"code", "message"}}` with a fitting status.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web

from schemas.config import HttpConfig
from schemas.errors import AuthFailed, ConfigError, QueueFull, Rejected, Retryable, RoostError

log = logging.getLogger("roost.http")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


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
        return {"not_found": 404, "unknown_model": 404, "too_large": 413, "rate_limited": 429, "forbidden": 403}.get(
            error.code, 400
        )
    if isinstance(error, Retryable):
        return 503
    return 500


def retry_after(error: RoostError) -> dict[str, str]:
    """Header that says when to come back, for errors that pass."""
    seconds = getattr(error, "after_s", 1.0 if error.code == "rate_limited" else None)
    return {} if seconds is None else {"Retry-After": str(max(1, round(seconds)))}


def problem(error: RoostError) -> web.Response:
    """The plain error body of Roost's own endpoints."""
    body = msgspec.json.encode({"error": {"code": error.code, "message": error.message}})
    return web.Response(
        status=status_of(error), body=body, content_type="application/json", headers=retry_after(error)
    )


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into answers; a bug becomes a 500 with no inner detail."""
    try:
        response = await handler(request)
    except RoostError as error:
        response = problem(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = web.json_response(
            {"error": {"code": error.reason.lower().replace(" ", "_"), "message": error.reason}},
            status=error.status,
            headers={k: v for k, v in error.headers.items() if k == "Allow"},
        )
    except (asyncio.CancelledError, ConnectionResetError):
        raise
    except Exception:
        log.exception("unexpected error in %s %s", request.method, request.path)
        response = web.json_response(
            {"error": {"code": "internal", "message": "an unexpected error; the log has the details"}}, status=500
        )
    if not response.prepared:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
    return response


async def read_body(request: web.Request, config: HttpConfig) -> bytes:
    """The whole body within the limits of size and time; raises `Rejected`."""
    if request.content_length is not None and request.content_length > config.body_bytes_max:
        raise Rejected(f"the body is larger than {config.body_bytes_max} bytes", code="too_large")
    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Rejected(f"the body is larger than {config.body_bytes_max} bytes", code="too_large") from None
    except TimeoutError:
        raise Rejected(f"the body did not arrive within {config.body_timeout_s:g} s", code="timeout") from None


class HttpServer:
    """Listens from `start` to `stop`. `url` is where, once started (port 0 is resolved)."""

    def __init__(self, config: HttpConfig, routes: Sequence[web.AbstractRouteDef]) -> None:
        self.config = config
        self.app = web.Application(middlewares=[guard], client_max_size=config.body_bytes_max)
        self.app.add_routes(routes)
        self._runner: web.AppRunner | None = None
        self.url = ""

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

    async def start(self) -> None:
        """Listen; raises `ConfigError` when the address is taken or not allowed."""
        host, port = address(self.config.listen, "http.listen")
        context = self._tls(host)
        self._runner = web.AppRunner(
            self.app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=75,
            shutdown_timeout=5,
            lingering_time=2,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=context, backlog=1024, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(f"http.listen: cannot listen on {self.config.listen}: {error.strerror or error}") from None
        bound = self._runner.addresses[0][1]
        self.url = f"{'https' if context else 'http'}://{'[' + host + ']' if ':' in host else host}:{bound}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
