"""What all endpoints read of a request: its body, its id, and whether its client is still there."""

from __future__ import annotations

from aiohttp import web

from connectors.host.http import read_body
from connectors.openai.request import StreamOptions
from schemas.config import HttpConfig
from schemas.errors import Rejected

IDEMPOTENCY_CHARS_MAX = 255


async def read_json(request: web.Request, config: HttpConfig) -> bytes:
    """The body, undecoded; raises `Rejected` for another media type, and as `read_body` does."""
    if request.content_type not in ("application/json", "application/octet-stream"):  # the latter: none given
        raise Rejected("send JSON with Content-Type: application/json", code="media_type")
    return await read_body(request, config)


def inbound_id(request: web.Request, key: str) -> tuple[str, bool]:
    """Id of the message (empty: a new one, which ingress need not look up), and if the client may come back."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return "", False
    if not given or len(given) > IDEMPOTENCY_CHARS_MAX or not (given.isascii() and given.isprintable()):
        raise Rejected(f"Idempotency-Key: expected 1 to {IDEMPOTENCY_CHARS_MAX} printable ASCII characters")
    return f"k:{key}:{given}", True


def wants_usage(options: StreamOptions | None) -> bool:
    return options is not None and bool(options.include_usage)


def gone(request: web.Request) -> bool:
    """Whether the client has left."""
    return request.transport is None or request.transport.is_closing()
