"""Blobs on a real server: what the one in memory does not show."""

from __future__ import annotations

import asyncio

from tests.bus.real import Real, config_of, soon


async def test_a_blob_is_gone_after_its_age_and_may_come_back(real: Real) -> None:
    bus = await real.fresh(config_of(blob_age_s=1))
    sha256 = await bus.blobs.put(b"a picture")
    assert await bus.blobs.get(sha256) == b"a picture"

    async def empty() -> bool:
        return [message async for message in bus.read("OBJ_BLOBS", "$O.BLOBS.>")] == []

    await soon(empty, "pieces and description of a blob of one second's age have gone")
    assert await bus.blobs.get(sha256) is None
    assert await bus.blobs.put(b"a picture") == sha256
    assert await bus.blobs.get(sha256) == b"a picture"


async def test_a_blob_whose_pieces_are_gone_before_its_description_is_gone_and_may_come_back(real: Real) -> None:
    bus = await real.fresh(config_of())
    data = b"a picture" * 100_000
    sha256 = await bus.blobs.put(data)
    await bus.purge("OBJ_BLOBS", "$O.BLOBS.C.>")
    async with asyncio.timeout(5):
        assert await bus.blobs.get(sha256) is None
        assert await bus.blobs.put(data) == sha256
        assert await bus.blobs.get(sha256) == data


async def test_a_blob_of_no_bytes_has_no_pieces_and_is_there(real: Real) -> None:
    bus = await real.fresh(config_of())
    assert await bus.blobs.get(await bus.blobs.put(b"")) == b""
