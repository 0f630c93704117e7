"""The OpenAI-compatible HTTP API.

It speaks HTTP and OpenAI's JSON; `request.py` and `reply.py` translate, the gateway does the rest. What always holds:
every endpoint but `/health` wants an API key (a picture's file opens by a signed link, too), an accepted request has
its id in `x-request-id`, and a key sees only the requests that it made itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from aiohttp import web

from connectors import Capabilities, Connector, ConnectorSettings, Exchange, Host
from connectors.host.http import status_of
from connectors.host.metrics import CONTENT_TYPE
from connectors.openai import reply
from connectors.openai.chunks import Chunks, Script
from connectors.openai.embedding import embedding, embedding_inbound
from connectors.openai.files import Pictures
from connectors.openai.image import edit, image, image_inbound
from connectors.openai.image import ignored as ignored_of_image
from connectors.openai.image_events import ImageScript
from connectors.openai.incoming import gone, inbound_id, read_json, wants_usage
from connectors.openai.links import PATH
from connectors.openai.pictures import Shown
from connectors.openai.request import chat, chat_inbound, completion, completion_inbound, ignored
from connectors.openai.responses import answered, fresh, refusal
from connectors.openai.stream import EventStream, Show, relay
from connectors.openai.stream import Script as Telling
from connectors.openai.upload import picture_of, read_form
from schemas.errors import Rejected, RoostError
from schemas.message import Inbound, Outbound, RequestState

log = logging.getLogger("roost.openai")

Handler = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
Door = Callable[[web.Request], Awaitable[str]]
CANCEL_TIMEOUT_S = 5.0
METHODS = {
    "chat/completions": "POST", "completions": "POST", "embeddings": "POST", "models": "GET",
    "images/generations": "POST", "images/edits": "POST",
}  # fmt: skip


class OpenAIConnector(Connector):
    """`/v1/*`, `/health` and `/metrics` on the shared web server."""

    capabilities = Capabilities(authenticates=True, repeatable=True)

    def __init__(self, name: str, settings: ConnectorSettings, host: Host) -> None:
        super().__init__(name, settings, host)
        self._started = int(time.time())
        self._pictures = Pictures(host)

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return (
            web.post("/v1/chat/completions", self._api(self._chat)),
            web.post("/v1/completions", self._api(self._completion)),
            web.post("/v1/embeddings", self._api(self._embedding)),
            web.post("/v1/images/generations", self._api(self._image)),
            web.post("/v1/images/edits", self._api(self._edit)),
            web.get(PATH + "{name}", self._api(self._pictures.file, self._may_open)),
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

    def _api(
        self, handler: Handler, door: Door | None = None
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """What all endpoints share: the key first (or what `door` wants), and errors in OpenAI's words."""
        let_in = door or self._key

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request, await let_in(request))
            except RoostError as error:
                return refusal(error, fresh())
            except (asyncio.CancelledError, ConnectionError):
                raise
            except Exception:
                log.exception("unexpected error in %s", handler.__name__)
                return refusal(RoostError("an unexpected error; the log has the details"), fresh())

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
        asked = chat(await read_json(request, self.host.config.http))
        id, keep = inbound_id(request, key)
        inbound = chat_inbound(asked, id=id, key=key)
        return await self._generate(request, inbound, keep, ignored(asked), usage=wants_usage(asked.stream_options))

    async def _completion(self, request: web.Request, key: str) -> web.StreamResponse:
        asked = completion(await read_json(request, self.host.config.http))
        id, keep = inbound_id(request, key)
        inbound = completion_inbound(asked, id=id, key=key)
        return await self._generate(request, inbound, keep, ignored(asked), usage=wants_usage(asked.stream_options))

    async def _embedding(self, request: web.Request, key: str) -> web.StreamResponse:
        asked = embedding(await read_json(request, self.host.config.http))
        id, keep = inbound_id(request, key)
        return await self._generate(request, embedding_inbound(asked, id=id, key=key), keep)

    async def _may_open(self, request: web.Request) -> str:
        """A picture's file opens by its signed link, or by any API key for whoever knows its hash."""
        if "Authorization" in request.headers:
            return await self._key(request)
        self._pictures.check(request)
        return ""

    async def _image(self, request: web.Request, key: str) -> web.StreamResponse:
        asked = image(await read_json(request, self.host.config.http))
        id, keep = inbound_id(request, key)
        return await self._generate(request, image_inbound(asked, id=id, key=key), keep, ignored_of_image(asked))

    async def _edit(self, request: web.Request, key: str) -> web.StreamResponse:
        form = await read_form(request, self.host.config.http)
        asked = edit(form.fields)
        file, media_type = picture_of(form)
        id, keep = inbound_id(request, key)
        start = await self.host.store(file.data, media_type, file.name)
        inbound = image_inbound(asked, id=id, key=key, start=start)
        return await self._generate(request, inbound, keep, ignored_of_image(asked))

    async def _generate(
        self, request: web.Request, inbound: Inbound, keep: bool, notes: tuple[str, ...] = (), *, usage: bool = False
    ) -> web.StreamResponse:
        """Hand the message over and answer. A client that leaves cancels it, unless it may come back (`keep`).

        `notes` are told beside the answer, `usage` in a stream.
        """
        exchange = await self._ask(request, inbound, keep)
        id = exchange.accepted.request
        show = self._pictures.show(request, inbound.reply)
        try:
            if inbound.stream:
                shape = reply.shape_of(inbound.reply)
                if shape == "image":
                    return await self._stream(request, ImageScript(inbound.reply), exchange, notes, show)
                chunks = Chunks(shape, id, exchange.accepted.model, include_usage=usage)
                return await self._stream(request, Script(chunks), exchange, notes, show)
            outbound = exchange.accepted.reply or await exchange.answer()
            problem = reply.failure(outbound)
            if problem is not None:
                return refusal(problem, id)
            body = reply.whole(inbound.reply, outbound, int(time.time()), notes, await show(outbound))
            return answered(body, id)
        except RoostError as error:
            return refusal(error, id)
        except (asyncio.CancelledError, ConnectionError):
            if not keep and gone(request):
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
                if not keep and gone(request):
                    await _stop(exchange)
                await exchange.aclose()
            raise

    async def _stream(
        self, request: web.Request, script: Telling, exchange: Exchange, notes: tuple[str, ...], show: Show
    ) -> web.StreamResponse:
        accepted = exchange.accepted
        events = EventStream(request, {"x-request-id": accepted.request})
        limit_s = self.host.config.limits.answer_timeout_s
        problem = await relay(exchange, script, events, notes, limit_s, show)
        if isinstance(problem, ConnectionError):
            raise problem
        if problem is not None and not events.begun:
            return refusal(problem, accepted.request)
        if problem is not None:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await events.send(reply.error_event(status_of(problem), problem, accepted.request))
        return events.response

    async def _models(self, request: web.Request, key: str) -> web.Response:
        return answered({"object": "list", "data": reply.models_of(self.host.models(), self._started)}, fresh())

    async def _model(self, request: web.Request, key: str) -> web.Response:
        for model in reply.models_of(self.host.models(), self._started):
            if model["id"] == request.match_info["id"]:
                return answered(model, fresh())
        raise Rejected("there is no model of this name; GET /v1/models lists them", code="unknown_model")

    async def _state(self, request: web.Request, key: str) -> web.Response:
        state = await self._own(request.match_info["id"], key)
        pictures: Sequence[Shown] = ()
        if state.reply is not None:
            with suppress(Rejected):  # aged out: the rest of the answer is still good
                pictures = await self._pictures.show(request, state.reply.reply)(state.reply)
        return answered(reply.state_body(state, pictures), fresh())

    async def _cancel(self, request: web.Request, key: str) -> web.Response:
        state = await self._own(request.match_info["id"], key)
        open = state.state in ("queued", "running")
        if open:
            await self.host.cancel(state.id)
        body = {"id": state.id, "object": "roost.request", "state": state.state, "cancelling": open}
        return answered(body, fresh(), status=202 if open else 200)

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
        if allowed is None and rest.startswith("images/files/"):
            allowed = "GET"
        if allowed is None:
            raise Rejected("there is no such endpoint", code="not_found")
        response = refusal(Rejected(f"use {allowed}", code="method_not_allowed"), fresh())
        response.headers["Allow"] = allowed
        return response

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(body=b'{"status":"ok"}', content_type="application/json")

    async def _metrics(self, request: web.Request, key: str) -> web.Response:
        return web.Response(body=self.host.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


async def _stop(exchange: Exchange) -> None:
    """Ask for the end of a generation nobody waits for; best effort within its limit."""
    with suppress(RoostError, TimeoutError):
        async with asyncio.timeout(CANCEL_TIMEOUT_S):
            await asyncio.shield(exchange.cancel())
