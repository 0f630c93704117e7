"""API keys: verified in constant time, stored hashed, revoked for good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus import keys, streams
from bus.client import Bus
from bus.embedded import Embedded
from schemas.config import BusConfig, Config, ModelConfig, SessionConfig
from schemas.errors import Rejected


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    config = Config(
        models=(ModelConfig(name="talk", type="echo"),),
        bus=BusConfig(listen="127.0.0.1:0"),
        sessions=SessionConfig(listen="127.0.0.1:0"),
    )
    async with Embedded(config, tmp_path) as endpoints:
        bus = await Bus.connect(endpoints, config, name="test")
        await streams.apply(bus, config)
        yield bus
        await bus.close()


def test_a_key_matches_its_own_row_only() -> None:
    key, row = keys.make("laptop", 1.0)
    other, _ = keys.make("laptop", 1.0)
    assert keys.matches(key, row)
    for wrong in (other, key[:-1], key + "0", key.upper(), "", "rk-", key.replace("rk-", "sk-"), "é" + key):
        assert not keys.matches(wrong, row)
    assert key.rpartition("-")[2] not in repr(row)


async def test_a_key_is_verified_until_it_is_revoked(bus: Bus) -> None:
    key = await keys.create(bus, "laptop")
    ring = keys.KeyRing(bus)
    await ring.start()
    assert await ring.verify(key) == "laptop"
    assert await ring.verify(key[:-1] + ("0" if key[-1] != "0" else "1")) is None
    assert await ring.verify("rk-000000000000-" + "0" * 48) is None
    assert await keys.revoke(bus, "laptop")
    assert not await keys.revoke(bus, "laptop")
    assert await keys.KeyRing(bus).verify(key) is None


async def test_a_key_made_later_works_at_once(bus: Bus) -> None:
    ring = keys.KeyRing(bus)
    await ring.start()
    assert await ring.verify(await keys.create(bus, "phone")) == "phone"


async def test_names_of_keys_are_plain_and_unique(bus: Bus) -> None:
    await keys.create(bus, "laptop")
    for name in ("laptop", "My Laptop", "", "a" * 49):
        with pytest.raises(Rejected):
            await keys.create(bus, name)
    assert [row.name for row in await keys.list_keys(bus)] == ["laptop"]


async def test_who_was_let_in_stays_in_while_the_bus_is_away(bus: Bus) -> None:
    key = await keys.create(bus, "laptop")
    ring = keys.KeyRing(bus)
    await ring.start()
    await bus.close()
    assert await ring.verify(key) == "laptop"
