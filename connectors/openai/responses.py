"""HTTP responses in OpenAI's words."""

from __future__ import annotations

import secrets

from aiohttp import web

from connectors.host.http import retry_after, status_of
from connectors.openai import reply
from schemas.errors import RoostError


def fresh() -> str:
    """An id for `x-request-id` where no request was accepted."""
    return secrets.token_hex(16)


def answered(body: object, id: str, *, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=reply.encode(body), content_type="application/json", headers={"x-request-id": id}
    )


def refusal(error: RoostError, id: str) -> web.Response:
    status = status_of(error)
    headers = {"x-request-id": id, **retry_after(error)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (409, 504):  # a word that OpenAI's clients know: they would ask a second time by themselves
        headers["x-should-retry"] = "false"
    return web.Response(
        status=status, body=reply.error_body(status, error), content_type="application/json", headers=headers
    )
