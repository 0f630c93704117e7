"""The OpenAI-compatible HTTP API.

It speaks HTTP and OpenAI's JSON; `request.py` and `reply.py` translate, the gateway does the rest. What always holds:
every endpoint but `/health` wants an API key, an accepted request has its id in `x-request-id`, and a key sees only
the requests that it made itself.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from aiohttp import web

from connectors import Capabilities, Connector, ConnectorSettings, Exchange, Host
from connectors.host.http import read_body, retry_after, status_of
from connectors.host.metrics import CONTENT_TYPE
from connectors.openai import reply
from connectors.openai.request import (
    ChatRequest,
    CompletionRequest,
    chat,
    chat_inbound,
    completion,
    completion_inbound,
    ignored,
)
from connectors.openai.stream import EventStream, relay
from schemas.errors import Rejected, RoostError
from schemas.message import Inbound, Outbound, RequestState

log = logging.getLogger("roost.openai")

Handler = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
IDEMPOTENCY_CHARS_MAX = 255
CANCEL_TIMEOUT_S = 5.0
METHODS = {"chat/completions": "POST", "completions": "POST", "models": "GET"}


class OpenAIConnector(Connector):
    """`/v1/*`, `/health` and `/metrics` on the shared web server."""

    capabilities = Capabilities(authenticates=True, repeatable=True)

    def __init__(self, name: str, settings: ConnectorSettings, host: Host) -> None:
        super().__init__(name, settings, host)
        self._started = int(time.time())

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return (
            web.post("/v1/chat/completions", self._api(self._chat)),
            web.post("/v1/completions", self._api(self._completion)),
            web.get("/v1/models", self._api(self._models)),
            web.get("/v1/models/{id}", self._api(self._model)),
            web.get("/v1/requests/{id}", self._api(self._state)),
            web.delete("/v1/requests/{id}", self._api(self._cancel)),
            web.route("*", "/v1/{rest:.*}", self._api(self._nothing)),
            web.get("/health", self._health),
            web.get("/metrics", self._api(self._metrics)),
        )

    async def send(self, message: Outbound) -> None:
        """Nothing to do: the waiting client has its own `Exchange`, and later ones ask for the request's state."""

    def _api(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """What all endpoints share: the key first, and errors in OpenAI's words."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request, await self._key(request))
            except RoostError as error:
                return _refusal(error, _fresh())
            except (asyncio.CancelledError, ConnectionError):
                raise
            except Exception:
                log.exception("unexpected error in %s", handler.__name__)
                return _refusal(RoostError("an unexpected error; the log has the details"), _fresh())

        return handle

    async def _key(self, request: web.Request) -> str:
        """Name of the caller's API key; raises `Rejected`."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Rejected("send an API key: Authorization: Bearer KEY", code="unauthenticated")
        name = await self.host.verify_key(key.strip())
        if name is None:
            raise Rejected("this API key is unknown or revoked", code="unauthenticated")
        return name

    async def _chat(self, request: web.Request, key: str) -> web.StreamResponse:
        asked = chat(await self._body(request))
        id, keep = _inbound_id(request, key)
        inbound = chat_inbound(asked, id=id, key=key)
        return await self._generate(request, asked, inbound, keep)

    async def _completion(self, request: web.Request, key: str) -> web.StreamResponse:
        asked = completion(await self._body(request))
        id, keep = _inbound_id(request, key)
        inbound = completion_inbound(asked, id=id, key=key)
        return await self._generate(request, asked, inbound, keep)

    async def _body(self, request: web.Request) -> bytes:
        if request.content_type not in ("application/json", "application/octet-stream"):  # the latter: none given
            raise Rejected("send JSON with Content-Type: application/json", code="media_type")
        return await read_body(request, self.host.config.http)

    async def _generate(
        self, request: web.Request, asked: ChatRequest | CompletionRequest, inbound: Inbound, keep: bool
    ) -> web.StreamResponse:
        """Hand the message over and answer. A client that leaves cancels it, unless it may come back (`keep`)."""
        exchange = await self._ask(request, inbound, keep)
        id = exchange.accepted.request
        try:
            if inbound.stream:
                return await self._stream(request, asked, inbound, exchange)
            outbound = exchange.accepted.reply or await exchange.answer()
            problem = reply.failure(outbound)
            if problem is not None:
                return _refusal(problem, id)
            return _json(reply.whole(inbound.kind, outbound, int(time.time()), ignored(asked)), id)
        except RoostError as error:
            return _refusal(error, id)
        except (asyncio.CancelledError, ConnectionError):
            if not keep and _gone(request):
                await _stop(exchange)
            raise
        finally:
            await exchange.aclose()

    async def _ask(self, request: web.Request, inbound: Inbound, keep: bool) -> Exchange:
        """`host.ask`; a client that leaves in the middle of it leaves no generation behind."""
        asking = asyncio.ensure_future(self.host.ask(inbound))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            with suppress(RoostError, TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT_S):
                    exchange = await asking
                if not keep and _gone(request):
                    await _stop(exchange)
                await exchange.aclose()
            raise

    async def _stream(
        self, request: web.Request, asked: ChatRequest | CompletionRequest, inbound: Inbound, exchange: Exchange
    ) -> web.StreamResponse:
        accepted = exchange.accepted
        usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
        chunks = reply.Chunks(inbound.kind, accepted.request, accepted.model, include_usage=usage)
        events = EventStream(request, {"x-request-id": accepted.request})
        limit_s = self.host.config.limits.answer_timeout_s
        problem = await relay(exchange, chunks, events, ignored(asked), limit_s)
        if isinstance(problem, ConnectionError):
            raise problem
        if problem is not None and not events.begun:
            return _refusal(problem, accepted.request)
        if problem is not None:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await events.send(reply.error_event(status_of(problem), problem, accepted.request))
        return events.response

    async def _models(self, request: web.Request, key: str) -> web.Response:
        return _json({"object": "list", "data": reply.models_of(self.host.models(), self._started)}, _fresh())

    async def _model(self, request: web.Request, key: str) -> web.Response:
        for model in reply.models_of(self.host.models(), self._started):
            if model["id"] == request.match_info["id"]:
                return _json(model, _fresh())
        raise Rejected("there is no model of this name; GET /v1/models lists them", code="unknown_model")

    async def _state(self, request: web.Request, key: str) -> web.Response:
        return _json(reply.state_body(await self._own(request.match_info["id"], key)), _fresh())

    async def _cancel(self, request: web.Request, key: str) -> web.Response:
        state = await self._own(request.match_info["id"], key)
        open = state.state in ("queued", "running")
        if open:
            await self.host.cancel(state.id)
        body = {"id": state.id, "object": "roost.request", "state": state.state, "cancelling": open}
        return _json(body, _fresh(), status=202 if open else 200)

    async def _own(self, id: str, key: str) -> RequestState:
        """The request `id` (or with the client's own Idempotency-Key) if this key made it; else as if unknown."""
        for prefix in reply.PREFIX.values():
            id = id.removeprefix(prefix)
        for known in (id, f"k:{key}:{id}"):
            state = await self.host.state(known)
            if state is not None and state.sender.partition("/")[0] == key:
                return state
        raise Rejected("there is no request of this id for this API key", code="not_found")

    async def _nothing(self, request: web.Request, key: str) -> web.Response:
        """The rest of `/v1/`: another method of a known endpoint, or an unknown one."""
        rest = request.match_info["rest"]
        first, _, more = rest.partition("/")
        allowed = METHODS.get(rest)
        if allowed is None and more and "/" not in more:
            allowed = {"models": "GET", "requests": "GET, DELETE"}.get(first)
        if allowed is None:
            raise Rejected("there is no such endpoint", code="not_found")
        response = _refusal(Rejected(f"use {allowed}", code="method_not_allowed"), _fresh())
        response.headers["Allow"] = allowed
        return response

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(body=b'{"status":"ok"}', content_type="application/json")

    async def _metrics(self, request: web.Request, key: str) -> web.Response:
        return web.Response(body=self.host.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def _fresh() -> str:
    return secrets.token_hex(16)


def _inbound_id(request: web.Request, key: str) -> tuple[str, bool]:
    """Id of the message (empty: a new one, which ingress need not look up), and if the client may come back."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return "", False
    if not given or len(given) > IDEMPOTENCY_CHARS_MAX or not (given.isascii() and given.isprintable()):
        raise Rejected(f"Idempotency-Key: expected 1 to {IDEMPOTENCY_CHARS_MAX} printable ASCII characters")
    return f"k:{key}:{given}", True


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def _stop(exchange: Exchange) -> None:
    """Ask for the end of a generation nobody waits for; best effort within its limit."""
    with suppress(RoostError, TimeoutError):
        async with asyncio.timeout(CANCEL_TIMEOUT_S):
            await asyncio.shield(exchange.cancel())


def _json(body: object, id: str, *, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=reply.encode(body), content_type="application/json", headers={"x-request-id": id}
    )


def _refusal(error: RoostError, id: str) -> web.Response:
    status = status_of(error)
    headers = {"x-request-id": id, **retry_after(error)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (409, 504):  # a word that OpenAI's clients know: they would ask a second time by themselves
        headers["x-should-retry"] = "false"
    return web.Response(
        status=status, body=reply.error_body(status, error), content_type="application/json", headers=headers
    )
