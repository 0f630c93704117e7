"""A web server as a place to send a repository to.

What always holds: nothing is sent to another host than the one that was named, plain http goes to this machine only,
and every request ends. That a file appears whole or not at all, the server must see to itself.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from yarl import URL

from schemas.errors import AuthFailed, ConfigError, Disconnected, Rejected, Retryable
from updater.source.http import loopback, proxy_of

TOKEN_ENV = "ROOST_RELEASE_TOKEN"  # noqa: S105
TIMEOUT_S = 30.0
ATTEMPTS = 5
PAUSE_S = 0.5
PAUSE_S_MAX = 10.0
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
READ_BYTES_MAX = 64_000_000

T = TypeVar("T")


class Web:
    """A web server: GET, HEAD and PUT below one address, each answered with 2xx (404: not there)."""

    def __init__(self, url: str, token: str = "", *, pause_s: float = PAUSE_S, timeout_s: float = TIMEOUT_S) -> None:
        self._url = _address(url)
        self.where = str(self._url)
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise ConfigError(f"{TOKEN_ENV}: a token has printable ASCII characters and no space")
        self._headers = {"User-Agent": "roost", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._proxy = {} if loopback(self._url) else proxy_of(self._url)
        self._pause_s = pause_s
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        limit = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s)
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=limit,
            cookie_jar=aiohttp.DummyCookieJar(),  # a proxy gets its headers: no token
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def has(self, path: str, size: int) -> bool:
        async def judge(answer: aiohttp.ClientResponse) -> bool:
            length = answer.headers.get("Content-Length", "")
            return answer.status != 404 and (not length.isdigit() or int(length) == size)

        return await self._call("HEAD", path, None, judge)

    async def read(self, path: str) -> bytes | None:
        async def judge(answer: aiohttp.ClientResponse) -> bytes | None:
            if answer.status == 404:
                return None
            body = bytearray()
            async for piece in answer.content.iter_chunked(65_536):
                body += piece
                if len(body) > READ_BYTES_MAX:
                    raise Rejected(f"{self.where}: {path} is too large to be metadata", code="too_large")
            return bytes(body)

        return await self._call("GET", path, None, judge)

    async def write(self, path: str, data: bytes) -> None:
        async def judge(answer: aiohttp.ClientResponse) -> None:
            if answer.status == 404:
                raise Rejected(f"{self.where} does not take {path} (404); does it allow PUT?", code="http")

        await self._call("PUT", path, data, judge)

    async def settle(self) -> None:
        return None

    async def prune(self, keep: set[str]) -> None:
        return None

    async def _call(
        self, method: str, path: str, data: bytes | None, judge: Callable[[aiohttp.ClientResponse], Awaitable[T]]
    ) -> T:
        """One request, tried again while the server or the way to it is not well."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._once(method, path, data, judge)
            except (Retryable, Disconnected):
                if attempt == ATTEMPTS:
                    raise
            pause_s = min(PAUSE_S_MAX, self._pause_s * 2 ** (attempt - 1))
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  (spreads attempts, guards nothing)
        raise AssertionError("unreachable")

    async def _once(
        self, method: str, path: str, data: bytes | None, judge: Callable[[aiohttp.ClientResponse], Awaitable[T]]
    ) -> T:
        if self._session is None:
            raise Disconnected(f"{self.where}: this place is closed")
        place = f"{self.where}/{path}"
        url = self._url.joinpath(*path.split("/"))
        try:
            async with (
                asyncio.timeout(self._timeout_s + len(data or b"") / 10_000),
                self._session.request(
                    method, url, data=data, headers=self._headers, allow_redirects=False, **self._proxy
                ) as answer,
            ):
                if answer.status in (401, 403):
                    raise AuthFailed(f"{place}: access is refused ({answer.status}); set {TOKEN_ENV} to a good token")
                if answer.status in BUSY:
                    raise Retryable(f"{place}: the server answers {answer.status}; run the command again later")
                if answer.status != 404 and answer.status // 100 != 2:
                    raise Rejected(f"{place}: the server answers {answer.status} to {method}", code="http")
                return await judge(answer)
        except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError) as error:
            raise ConfigError(f"{place}: the server's certificate is not good: {error}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Disconnected(
                f"{place}: {error or type(error).__name__}; run the command again, it goes on where it ended"
            ) from None


def _address(url: str) -> URL:
    try:
        parsed = URL(url.rstrip("/"))
        host = parsed.host
    except ValueError:
        raise ConfigError(f"{url!r} is no address") from None
    if parsed.user is not None or parsed.password is not None:
        raise ConfigError(f"take user name and password out of the address of {host}; set {TOKEN_ENV} instead")
    if not host or parsed.query_string or parsed.fragment:
        raise ConfigError(f"{url!r}: name a folder of a web server, without ? and #")
    if parsed.scheme == "http" and not loopback(parsed):
        raise ConfigError(f"http://{host} is not encrypted and not this machine; use https://{host}")
    return parsed
