"""Objects by name: over the bus in memory and a real server, and together with NATS' own client."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from bus import contract
from bus.client import Bus
from bus.objects import NAME_CHARS_MAX, OBJECT_BYTES_MAX, PIECE_BYTES, ObjectInfo, Objects
from schemas.errors import Rejected, Retryable, Untrusted
from tests.bus.conftest import Connect

NAME = "chunks/ab/ab12"


async def descriptions(bus: contract.Bus) -> list[contract.StoredMessage]:
    return [message async for message in bus.read("OBJ_RELEASES", "$O.RELEASES.M.>")]


async def pieces(bus: contract.Bus) -> int:
    return len([message async for message in bus.read("OBJ_RELEASES", "$O.RELEASES.C.>")])


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 17])
async def test_an_object_comes_back_as_it_was_put(connect: Connect, size: int) -> None:
    bus = await connect()
    objects = bus.objects("RELEASES")
    data = random.Random(size).randbytes(size)
    await objects.put(NAME, data)
    assert await objects.get(NAME) == data
    assert await objects.get(NAME, limit=size) == data
    assert await objects.has(NAME)
    assert await objects.list() == {NAME: size}
    assert await pieces(bus) == -(-size // PIECE_BYTES)


async def test_pieces_are_as_small_as_the_server_wants_them(connect: Connect) -> None:
    bus = await connect()
    small = Objects(bus, "RELEASES", piece_bytes=10)
    await small.put(NAME, bytes(95))
    assert await pieces(bus) == 10
    assert await bus.objects("RELEASES").get(NAME) == bytes(95)


async def test_what_is_not_there_is_none(connect: Connect) -> None:
    objects = (await connect()).objects("RELEASES")
    assert await objects.get(NAME) is None
    assert not await objects.has(NAME)
    assert not await objects.delete(NAME)
    assert await objects.list() == {}


async def test_an_object_put_again_is_replaced_and_leaves_no_piece_behind(connect: Connect) -> None:
    bus = await connect()
    objects = bus.objects("RELEASES")
    await objects.put(NAME, bytes(2 * PIECE_BYTES))
    await objects.put("other", b"stays")
    await objects.put(NAME, b"new")
    assert await objects.get(NAME) == b"new"
    assert await objects.get("other") == b"stays"
    assert await pieces(bus) == 2


async def test_a_deleted_object_is_gone_with_its_pieces_and_may_come_back(connect: Connect) -> None:
    bus = await connect()
    objects = bus.objects("RELEASES")
    await objects.put(NAME, b"old")
    assert await objects.delete(NAME)
    assert await objects.get(NAME) is None
    assert not await objects.has(NAME)
    assert not await objects.delete(NAME)
    assert await objects.list() == {}
    assert await pieces(bus) == 0
    await objects.put(NAME, b"again")
    assert await objects.get(NAME) == b"again"


async def test_many_objects_are_put_and_read_at_once(connect: Connect) -> None:
    objects = (await connect()).objects("RELEASES")
    there = {f"chunks/{i}": random.Random(i).randbytes(PIECE_BYTES + i) for i in range(12)}
    await asyncio.gather(*(objects.put(name, data) for name, data in there.items()))
    assert await asyncio.gather(*(objects.get(name) for name in there)) == list(there.values())


async def test_an_object_above_the_readers_limit_is_refused_before_it_is_read(connect: Connect) -> None:
    bus = await connect()
    objects = bus.objects("RELEASES")
    await objects.put(NAME, bytes(1_000))
    await bus.purge("OBJ_RELEASES", "$O.RELEASES.C.>")
    with pytest.raises(Untrusted, match="1000 bytes; 999 are allowed") as raised:
        await objects.get(NAME, limit=999)
    assert raised.value.code == "too_large"


@pytest.mark.parametrize("name", ["", "x" * (NAME_CHARS_MAX + 1), "x" * 10_000, "a\nb"])
async def test_a_name_that_cannot_be_is_rejected(connect: Connect, name: str) -> None:
    objects = (await connect()).objects("RELEASES")
    with pytest.raises(Rejected, match="name"):
        await objects.put(name, b"x")
    assert await objects.get(name) is None
    assert not await objects.has(name)


async def test_an_object_that_is_too_large_is_rejected_before_anything_is_stored(connect: Connect) -> None:
    bus = await connect()
    with pytest.raises(Rejected) as raised:
        await bus.objects("RELEASES").put(NAME, bytes(OBJECT_BYTES_MAX + 1))
    assert raised.value.code == "too_large"
    assert await pieces(bus) == 0


async def test_an_object_whose_bytes_were_altered_is_untrusted(connect: Connect) -> None:
    bus = await connect()
    objects = bus.objects("RELEASES")
    await objects.put(NAME, b"right")
    (described,) = await descriptions(bus)
    info = msgspec.json.decode(described.data, type=ObjectInfo)
    await bus.purge("OBJ_RELEASES", f"$O.RELEASES.C.{info.nuid}")
    await bus.publish(f"$O.RELEASES.C.{info.nuid}", b"wrong")
    with pytest.raises(Untrusted, match="digest"):
        await objects.get(NAME)


async def test_an_object_that_lost_a_piece_may_be_tried_again(connect: Connect) -> None:
    bus = await connect()
    objects = bus.objects("RELEASES")
    await objects.put(NAME, bytes(2 * PIECE_BYTES))
    lost = [message.seq async for message in bus.read("OBJ_RELEASES", "$O.RELEASES.C.>")][-1]
    await bus.delete("OBJ_RELEASES", lost)
    with pytest.raises(Retryable, match="lost a piece"):
        await objects.get(NAME)


@pytest.mark.parametrize(
    "change", [{"size": -1}, {"chunks": 10**12}, {"chunks": 0}, {"size": 10**12}, {"digest": ""}, {"nuid": "other"}]
)
async def test_a_description_that_lies_is_refused(connect: Connect, change: dict[str, object]) -> None:
    bus = await connect()
    objects = bus.objects("RELEASES")
    await objects.put(NAME, b"right")
    (described,) = await descriptions(bus)
    lie = msgspec.json.encode({**msgspec.json.decode(described.data), **change})
    await bus.publish(described.subject, lie, headers={"Nats-Rollup": "sub"})
    with pytest.raises((Untrusted, Retryable)):
        await objects.get(NAME)


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"\xff\xfe", b'{"name": 1}'])
async def test_a_description_that_is_garbage_is_untrusted(connect: Connect, garbage: bytes) -> None:
    bus = await connect()
    objects = bus.objects("RELEASES")
    await objects.put(NAME, b"right")
    (described,) = await descriptions(bus)
    await bus.publish(described.subject, garbage, headers={"Nats-Rollup": "sub"})
    with pytest.raises(Untrusted, match="no readable description"):
        await objects.get(NAME)


async def test_a_full_bucket_refuses_and_keeps_the_old_object(connect: Connect) -> None:
    bus = await connect()
    objects = bus.objects("RELEASES")
    await objects.put(NAME, b"old")
    await bus.ensure_stream("OBJ_RELEASES", {"max_bytes": 3 * PIECE_BYTES})
    with pytest.raises(Retryable):
        await objects.put(NAME, bytes(4 * PIECE_BYTES))
    assert await objects.get(NAME) == b"old"
    assert await pieces(bus) == 1


async def test_a_bucket_that_is_not_declared_is_no_hang(bus: Bus) -> None:
    with pytest.raises(Retryable):
        await Objects(bus, "NONE").get(NAME)


@pytest.mark.parametrize("size", [0, 5, 2 * PIECE_BYTES + 5])
async def test_natss_own_client_and_ours_read_each_others_objects(bus: Bus, size: int) -> None:
    data = random.Random(size).randbytes(size)
    theirs, ours = await bus.js.object_store("RELEASES"), bus.objects("RELEASES")
    await theirs.put("theirs", data)
    await ours.put("ours", data)
    assert await ours.get("theirs") == data
    result = await theirs.get("ours")
    assert bytes(result.data or b"") == data
    assert {info.name: info.size for info in await theirs.list()} == {"theirs": size, "ours": size}
    await theirs.delete("ours")
    assert await ours.get("ours") is None
    assert await ours.delete("theirs")
    assert await ours.list() == {}
    await theirs.put("theirs", b"again")
    assert await ours.get("theirs") == b"again"
