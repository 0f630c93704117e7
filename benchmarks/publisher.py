"""A publisher with keys and a repository of its own, and a web server that counts what is fetched.

Releases are prepared before a measurement and shown one after the other during it. What always holds: what the
timestamp does not lead to is not published, so showing a release costs the measured machine one small file.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from benchmarks.models import ROOT
from schemas.release import Golden, Release
from updater.publish import create, keys

PLACE = ROOT / "build"
"""Here are the large files: a copy of one on the same disk costs nothing."""
TIMESTAMP = "metadata/timestamp.json"


class Publisher:
    """Publishes versions of `name`; `root` is what those who install are given."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.repository = folder / "repository"
        self._keys = keys.create(folder / "keys", passphrase=None)
        self.root = folder / "keys" / "root.json"
        self._timestamps: dict[str, bytes] = {}
        readme = folder / "readme.txt"
        readme.write_text("A repository that has no model yet.\n")
        create.create(self.repository, "nothing", "1", [readme], keys=self._keys)
        self._none = self._shown = self._newest = self._timestamp.read_bytes()

    @property
    def _timestamp(self) -> Path:
        return self.repository / TIMESTAMP

    async def prepare(
        self, version: str, file: Path, *, type: str = "llama", goldens: Sequence[Golden] = ()
    ) -> Release:
        """Sign a release of a file or folder that nobody sees yet; they are shown in the order of their making."""
        self._put(self._newest)
        try:
            release = await asyncio.to_thread(
                create.create, self.repository, self.name, version, [file], keys=self._keys, type=type, goldens=goldens
            )
            self._newest = self._timestamps[version] = self._timestamp.read_bytes()
        finally:
            self._put(self._shown)
        return release

    def show(self, version: str) -> None:
        """From now on everybody sees this version, and those prepared before it."""
        self._shown = self._timestamps[version]
        self._put(self._shown)

    def hide(self) -> None:
        """Nothing is published yet; for a machine that has never looked, since others know better."""
        self._shown = self._none
        self._put(self._shown)

    def _put(self, timestamp: bytes) -> None:
        new = self._timestamp.with_name(".timestamp.new")
        new.write_bytes(timestamp)
        new.replace(self._timestamp)


@contextmanager
def publisher(name: str) -> Iterator[Publisher]:
    """One for a benchmark; all of it is gone afterwards."""
    PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-release-", dir=PLACE) as folder:
        yield Publisher(Path(folder), name)


class Sent(Struct):
    """What the web server has handed out."""

    chunks: int = 0
    chunk_bytes: int = 0
    other_bytes: int = 0
    last_at: float = 0.0
    """Unix seconds: when the last byte of the last chunk had gone out."""

    @property
    def bytes(self) -> int:
        return self.chunk_bytes + self.other_bytes


@asynccontextmanager
async def served(repository: Path) -> AsyncIterator[tuple[str, Sent]]:
    """The repository on a web server of this machine: its address, and what it has sent."""
    sent = Sent()

    async def give(request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        file = repository / path
        if not file.is_file():
            raise web.HTTPNotFound
        response = web.FileResponse(file)
        await response.prepare(request)
        size = file.stat().st_size
        if path.startswith("chunks/"):
            sent.chunks, sent.chunk_bytes, sent.last_at = sent.chunks + 1, sent.chunk_bytes + size, time.time()
        else:
            sent.other_bytes += size
        return response

    app = web.Application()
    app.router.add_get("/{path:.+}", give)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", sent
    finally:
        await runner.cleanup()
