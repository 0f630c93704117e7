"""A repository on a web server, any that serves files.

What always holds: nothing is asked of another host or scheme than the operator wrote, plain http goes to this machine
only, and a token goes to that host only. Bodies come as they are (no compression), and no more than `limit` of them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from yarl import URL

from schemas.errors import AuthFailed, ConfigError, Disconnected, Retryable
from updater.source.contract import Missing, Unready, plain, too_large

TOKEN_ENV = "ROOST_UPDATES_TOKEN"  # noqa: S105
REDIRECTS_MAX = 3
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
MOVED = frozenset({301, 302, 303, 307, 308})
PIECE_BYTES = 65_536


class HttpSource:
    """One session that keeps its connections. Begins on the first read; `close` ends it for good."""

    def __init__(self, url: str, *, connections: int, timeout_s: float, token: str = "") -> None:
        self._url = address(url)
        self.where = str(self._url)
        self._connections = max(1, connections)
        self._timeout_s = timeout_s
        self._headers = authorization(token)
        self._proxy = {} if loopback(self._url) else proxy_of(self._url)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Unready(f"{self.where}: this source is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, ssl=ssl.create_default_context()),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s, ceil_threshold=60
                ),
                headers={"Accept-Encoding": "identity", "User-Agent": "roost"},  # a proxy gets these too: no token
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def read(self, path: str, limit: int) -> bytes:
        url = self._url.joinpath(*plain(path).split("/"))
        session = self._open()
        with self._failures(path):
            for _ in range(REDIRECTS_MAX + 1):
                async with session.get(url, headers=self._headers, allow_redirects=False, **self._proxy) as response:
                    if response.status not in MOVED:
                        self._judge(response, path, limit)
                        return await self._body(response, path, limit)
                    url = self._moved(url, response.headers.get("Location", ""), path)
        raise Unready(f"{self.where}: {path} is redirected more than {REDIRECTS_MAX} times", code="redirect")

    async def _body(self, response: aiohttp.ClientResponse, path: str, limit: int) -> bytes:
        body = bytearray()
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            body += piece
            if len(body) > limit:
                response.close()
                raise too_large(self.where, path, "more", limit)
        if response.content_length is not None and len(body) != response.content_length:
            raise Disconnected(f"{self.where}: {path} came in part: {len(body)} of {response.content_length} bytes")
        return bytes(body)

    def _judge(self, response: aiohttp.ClientResponse, path: str, limit: int) -> None:
        """Raise unless the answer's head promises the object."""
        status, place = response.status, f"{self.where}: {path}"
        if status in (404, 410):
            raise Missing(f"{self.where} has no {path}")
        if status == 403:  # some object stores say this of what is not there
            raise Missing(f"{place} is not there, or not for us (403); see updates.source and {TOKEN_ENV}")
        if status in (401, 407):
            raise AuthFailed(f"{place}: access is refused ({status}); set {TOKEN_ENV} to a token that is good there")
        if status in BUSY:
            raise Retryable(f"{place}: the server answers {status}", after_s=after_s(response), code="busy")
        if status != 200:
            raise Unready(f"{place}: the server answers {status}, which means nothing here; see updates.source")
        if (coding := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise Unready(f"{place}: the server compresses ({coding}) though it was asked not to; turn that off there")
        if response.content_length is not None and response.content_length > limit:
            raise too_large(self.where, path, str(response.content_length), limit)

    def _moved(self, url: URL, location: str, path: str) -> URL:
        try:
            to = url.join(URL(location))
            same = to.origin() == self._url.origin()
        except ValueError:
            raise Unready(f"{self.where}: {path} is redirected to no address", code="redirect") from None
        if not location or not same:
            elsewhere = to.with_user(None).with_query(None)
            raise Unready(
                f"{self.where}: {path} is redirected to {elsewhere}, on another host or scheme; "
                "write that address in updates.source if you mean it",
                code="redirect",
            )
        return to

    @contextmanager
    def _failures(self, path: str) -> Iterator[None]:
        """Errors of the link and the server's grammar become ours."""
        place = f"{self.where}: {path}"
        try:
            yield
        except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError) as error:
            raise Unready(
                f"{place}: the server's certificate is not good: {error}; see the clock of this machine, "
                "or name your own authority in SSL_CERT_FILE",
                code="certificate",
            ) from None
        except aiohttp.ClientHttpProxyError as error:
            raise Disconnected(f"{place}: the proxy answers {error.status}", code="proxy") from None
        except TimeoutError:
            raise Disconnected(f"{place}: nothing came for {self._timeout_s:g} s", code="slow") from None
        except aiohttp.ClientPayloadError:
            raise Disconnected(f"{place} came in part: the connection was cut") from None
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            said = " ".join(str(error).split())[:200]
            raise Disconnected(f"{place}: {said or type(error).__name__}") from None


def address(url: str) -> URL:
    """The folder of a repository; raises `ConfigError` for what may not stand in `updates.source`."""
    try:
        parsed = URL(url)
        host = parsed.host
    except ValueError:
        raise ConfigError("updates.source: that is no address") from None
    if parsed.user is not None or parsed.password is not None:
        raise ConfigError(
            f"updates.source: take user name and password out of the address of {host}; "
            f"put a token into {TOKEN_ENV} instead"
        )
    if parsed.scheme not in ("http", "https") or not host:
        raise ConfigError("updates.source: a folder, https://HOST/…, http:// on this machine, or bus")
    if parsed.query_string or parsed.fragment:
        raise ConfigError(f"updates.source: {host}: an address without ? and #; put a token into {TOKEN_ENV}")
    if parsed.scheme == "http" and not loopback(parsed):
        raise ConfigError(f"updates.source: http://{host} is not encrypted and not this machine; use https://{host}")
    return parsed


def loopback(url: URL) -> bool:
    try:
        return ipaddress.ip_address(url.host or "").is_loopback
    except ValueError:
        return url.host == "localhost"


def authorization(token: str) -> dict[str, str]:
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"{TOKEN_ENV}: a token has printable ASCII characters and no space")
    return {"Authorization": f"Bearer {token}"}


def proxy_of(url: URL) -> dict[str, Any]:
    """Arguments of a request that name the environment's proxy for `url`; credentials only from its own address."""
    host = url.host or ""
    named = urllib.request.getproxies().get(url.scheme, "")
    if not named or urllib.request.proxy_bypass(host):
        return {}
    proxy = URL(named if "://" in named else f"http://{named}")
    if proxy.user is None:
        return {"proxy": proxy}
    credentials = aiohttp.encode_basic_auth(proxy.user, proxy.password or "")
    return {"proxy": proxy.with_user(None), "proxy_headers": {"Proxy-Authorization": credentials}}


def after_s(response: aiohttp.ClientResponse) -> float:
    """What `Retry-After` asks for, in seconds; dates count as nothing."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0
