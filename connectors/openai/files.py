"""Pictures as a client is shown them: their bytes out of the blob store, or links to them, and what the links open."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from aiohttp import web

from connectors import Host
from connectors.openai.links import Links, file_of
from connectors.openai.pictures import Shown
from connectors.openai.reply import shape_of
from connectors.openai.responses import fresh
from connectors.openai.stream import Show
from schemas.config import HttpConfig
from schemas.errors import Rejected
from schemas.message import Outbound

KEPT_AS = "picture-links"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600, immutable",
}
"""A blob may be anything that somebody sent: it is shown as a picture or not at all, and no script runs in it."""


class Pictures:
    """The pictures of one connector's answers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._links = Links(
            lambda: host.secret(KEPT_AS, lambda: secrets.token_hex(32)), host.config.limits.picture_link_s
        )

    def show(self, request: web.Request, asked: Mapping[str, str]) -> Show:
        """How the pictures of an answer are shown to this client; `asked` is the `reply` of its request.

        What it returns raises `Rejected` when a picture is not kept any more.
        """
        as_links = shape_of(asked) != "image" or asked.get("format") == "url"

        async def show(outbound: Outbound) -> Sequence[Shown]:
            if not as_links:
                return [Shown(file, data=await self._bytes(file.sha256)) for file in outbound.attachments]
            origin = origin_of(request, self._host.config.http)
            return [Shown(file, url=origin + self._links.path(file, time.time())) for file in outbound.attachments]

        return show

    def check(self, request: web.Request) -> None:
        """Raises `Rejected` where the link that is asked for is not ours or has ended."""
        query, name = request.query, request.match_info["name"]
        self._links.check(name, query.get("expires", ""), query.get("signature", ""), time.time())

    async def file(self, request: web.Request, key: str) -> web.Response:
        """`GET /v1/images/files/<sha256>.png`."""
        name = request.match_info["name"]
        sha256, media_type = file_of(name)
        data = await self._bytes(sha256)
        headers = {**HEADERS, "Content-Disposition": f'inline; filename="{name}"', "x-request-id": fresh()}
        return web.Response(body=data, content_type=media_type, headers=headers)

    async def _bytes(self, sha256: str) -> bytes:
        data = await self._host.fetch(sha256)
        if data is None:
            raise Rejected("this picture is not kept any more (limits.blob_age_s)", code="expired")
        return data


def origin_of(request: web.Request, config: HttpConfig) -> str:
    """Where this client reaches us; `http.origins` tells which hosts have HTTPS in front of us."""
    secure = f"https://{request.host}"
    return secure if secure in {o.rstrip("/") for o in config.origins} else f"{request.scheme}://{request.host}"
