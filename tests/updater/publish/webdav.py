"""A web server that takes PUT, as nginx with its DAV module does: for pushing to, with faults."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

TOKEN = "let-me-in"
Fault = Callable[[web.Request], web.StreamResponse | None]


class Server:
    """Serves `folder`. `fault` may answer a request in its place; `count` has all that were made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.token = TOKEN
        self.fault: Fault = lambda request: None
        self.count: Counter[str] = Counter()
        self.put: list[str] = []
        """Paths in the order in which they were put."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.count[request.method] += 1
        if (wrong := self.fault(request)) is not None:
            return wrong
        path = self.folder / request.match_info["path"]
        if request.method == "PUT":
            if request.headers.get("Authorization") != f"Bearer {self.token}":
                return web.Response(status=401)
            data = await request.read()
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.part")
            draft.write_bytes(data)
            os.replace(draft, path)
            self.put.append(request.match_info["path"])
            return web.Response(status=201)
        if not path.is_file():
            return web.Response(status=404)
        return web.FileResponse(path)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    server = Server(folder)
    app = web.Application(client_max_size=4_000_000)
    app.router.add_route("*", "/models/{path:.+}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"http://127.0.0.1:{port}/models"
    try:
        yield server
    finally:
        await runner.cleanup()
