"""What every source promises: one suite over a folder, a web server and the bus's object store."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from bus import streams
from bus.memory import MemoryBus, MemoryServer
from schemas.errors import ConfigError, Untrusted
from schemas.update import UpdatesConfig
from tests.bus.real import config_of
from tests.updater.source.servers import serving
from updater.source import Missing, Source, source_of

FILES = {
    "metadata/timestamp.json": b'{"signed": {}}',
    "metadata/1.root.json": b"root",
    "targets/starter/0a.1.0.json": b"release",
    "chunks/ab/abcd": random.Random(7).randbytes(300_000),
    "chunks/00/0000": b"",
    "metadata/odd%20name+ü.json": b"odd",
}

Opened = Callable[[dict[str, bytes]], Awaitable[Source]]


def filled(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture(params=["folder", "http", "bus"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    """Opens a source that has these files."""
    bus = MemoryBus(MemoryServer(), config_of())
    await streams.apply(bus, bus.config)
    async with contextlib.AsyncExitStack() as stack:

        async def open_(files: dict[str, bytes]) -> Source:
            if request.param == "bus":
                for path, data in files.items():
                    await bus.objects("RELEASES").put(path, data)
                where = "bus"
            else:
                where = str(filled(tmp_path / "repository", files))
            if request.param == "http":

                async def handler(request: web.Request) -> web.StreamResponse:
                    data = files.get(request.match_info["path"].removeprefix("here/"))
                    return web.Response(status=404) if data is None else web.Response(body=data)

                where = f"http://127.0.0.1:{await stack.enter_async_context(serving(handler))}/here/"
            source = source_of(UpdatesConfig(source=where, root="root.json", timeout_s=10.0), bus)
            stack.push_async_callback(source.close)
            return source

        yield open_
    await bus.close()


async def test_a_source_gives_whole_objects_several_at_once(opened: Opened) -> None:
    source = await opened(FILES)
    got = await asyncio.gather(*(source.read(path, len(data)) for path, data in FILES.items() for _ in range(5)))
    assert got == [data for data in FILES.values() for _ in range(5)]


async def test_what_is_not_there_is_missing_and_the_error_names_the_place(opened: Opened) -> None:
    source = await opened(FILES)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for path in ("metadata/2.root.json", "none", "chunks/ab/abcd/e"):
        with pytest.raises(Missing) as raised:
            await source.read(path, 10)
        assert source.where in raised.value.message
        assert path in raised.value.message
        assert raised.value.code == "missing"
    assert loop.time() - begun < 1.0, "it is not tried again"


async def test_an_object_above_the_limit_is_untrusted(opened: Opened) -> None:
    source = await opened(FILES)
    with pytest.raises(Untrusted, match="bytes; 299999 are allowed") as raised:
        await source.read("chunks/ab/abcd", 299_999)
    assert raised.value.code == "too_large"
    assert len(await source.read("chunks/ab/abcd", 300_000)) == 300_000


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../secret", "a/../../b", "a//b", "./a", "a\\b", "a\nb", "a/..", "x" * 256, "x/" * 300 + "x"],
)
async def test_a_path_that_leads_elsewhere_is_untrusted(opened: Opened, path: str) -> None:
    source = await opened({"a/b": b"x"})
    with pytest.raises(Untrusted) as raised:
        await source.read(path, 10_000)
    assert raised.value.code == "path"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "a folder"),
        ("ftp://example.org/x", "a folder, https"),
        ("file:///srv", "a folder, https"),
        ("https://", "a folder, https"),
        ("http://example.org/x", "not encrypted"),
        ("http://192.168.1.5/x", "not encrypted"),
        ("https://example.org/x?sig=geheim", "without"),
        ("https://example.org/x#y", "without"),
        ("https://example.org:port/", "no address"),
    ],
)
async def test_an_address_that_may_not_be_is_the_operators_mistake(source: str, says: str) -> None:
    bus = MemoryBus(MemoryServer(), config_of())
    with pytest.raises(ConfigError, match=says) as raised:
        source_of(UpdatesConfig(source=source, root="root.json"), bus)
    assert "updates.source" in raised.value.message
    assert "geheim" not in raised.value.message


async def test_a_password_in_the_address_is_refused_with_the_remedy_and_not_repeated() -> None:
    bus = MemoryBus(MemoryServer(), config_of())
    with pytest.raises(ConfigError, match="ROOST_UPDATES_TOKEN") as raised:
        source_of(UpdatesConfig(source="https://ada:geheim@example.org/models", root="root.json"), bus)
    assert "geheim" not in raised.value.message
    assert "ada" not in raised.value.message
