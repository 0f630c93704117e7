"""A small reverse proxy before one llama-server, and the ways in which people give that a new file today.

Requests are passed on to whatever is in front at the moment at which they come, answers as they come. What always
holds: no llama-server is left running.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from benchmarks.llama_server import server
from benchmarks.load import Endpoint, session

DRAIN_S = 600.0


class Upstream:
    """One running llama-server and how many requests it has in hand."""

    def __init__(self, url: str, held: ExitStack) -> None:
        self.url = url
        self.requests = 0
        self._held = held

    @classmethod
    async def start(cls, model: Path, *options: str) -> Upstream:
        """Returns when its `/health` says that it is ready."""
        held = ExitStack()
        return cls(await asyncio.to_thread(held.enter_context, server(model, *options)), held)

    async def stop(self, *, drained: bool = False) -> None:
        """End it; `drained`: when its last answer has been given."""
        try:
            async with asyncio.timeout(DRAIN_S):
                while drained and self.requests:
                    await asyncio.sleep(0.02)
        finally:
            await asyncio.to_thread(self._held.close)


class Proxy:
    """`front` answers; while it is None, clients get 503."""

    def __init__(self, options: tuple[str, ...]) -> None:
        self.front: Upstream | None = None
        self._options = options

    async def restart(self, model: Path) -> None:
        """Stop the old one, start the new one."""
        old, self.front = self.front, None
        if old is not None:
            await old.stop()
        self.front = await Upstream.start(model, *self._options)

    async def beside(self, model: Path, *, drained: bool = False) -> None:
        """Start the new one beside the old, pass requests to it when it is ready, then stop the old one."""
        new = await Upstream.start(model, *self._options)
        old, self.front = self.front, new
        if old is not None:
            await old.stop(drained=drained)

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        front = self.front
        if front is None:
            return web.json_response({"error": {"message": "no server is running"}}, status=503)
        front.requests += 1
        response: web.StreamResponse | None = None
        try:
            async with (
                session(Endpoint(front.url, "")) as http,
                http.post(f"{front.url}/{request.match_info['path']}", data=await request.read(),
                          headers={"Content-Type": "application/json"}) as answer,
            ):  # fmt: skip
                response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response
        except aiohttp.ClientError as error:
            if response is None:
                return web.json_response({"error": {"message": str(error)}}, status=502)
            if request.transport is not None:
                request.transport.abort()  # as the server did
            return response
        finally:
            front.requests -= 1


@asynccontextmanager
async def proxy(model: Path, *options: str) -> AsyncIterator[tuple[Endpoint, Proxy]]:
    """A llama-server with `options` behind a proxy: where clients ask, and what changes the model."""
    passing = Proxy(options)
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/{path:.+}", passing.pass_on)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await passing.restart(model)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "chat"), passing
    finally:
        await runner.cleanup()
        if passing.front is not None:
            await passing.front.stop()
