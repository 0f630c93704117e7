"""Blobs that age, are lost, and are stored anew while somebody reads them."""

from __future__ import annotations

import asyncio

from bus.blobs import BUCKET
from bus.objects import PIECE_BYTES
from tests.bus.conftest import Connect
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


async def test_a_blob_that_is_stored_anew_while_it_is_read_is_read_whole(connect: Connect) -> None:
    bus = await connect()
    data = bytes(range(256)) * (4 * PIECE_BYTES // 256)
    sha256 = await bus.blobs.put(data)
    again = asyncio.ensure_future(bus.objects(BUCKET).put(sha256, data))
    read = 0
    while not again.done():  # some of these begin with the old pieces and end when they are gone
        found = await asyncio.gather(*(bus.blobs.get(sha256) for _ in range(4)))
        assert found == [data] * 4
        read += 4
    await again
    assert read > 4


async def test_a_fresh_blob_is_stored_once(connect: Connect) -> None:
    bus = await connect()
    for _ in range(3):
        await bus.blobs.put(b"a picture")
    assert len([message async for message in bus.read("OBJ_BLOBS", "$O.BLOBS.C.>")]) == 1
