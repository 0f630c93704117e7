"""Sending a repository: little, in an order that no reader notices, over links that break, and never over another's."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest
from aiohttp import web

from bus import streams
from bus.memory import MemoryBus
from bus.memory_server import MemoryServer
from schemas.config import Config
from schemas.errors import AuthFailed, ConfigError, Disconnected, Rejected, RoostError, Untrusted
from schemas.release import Release
from tests.updater.publish.clients import Client, content, names
from tests.updater.publish.webdav import TOKEN, Server, serving
from tests.updater.publishing import Publisher, publisher
from updater.publish import keys as keeping
from updater.publish import upkeep
from updater.publish.places import Folder, Place, Store, place_of
from updater.publish.push import Pushed, push
from updater.publish.web import ATTEMPTS, Web

LONG = random.Random(21).randbytes(400_000).hex().encode()


@pytest.fixture
def house(tmp_path: Path) -> Publisher:
    made = publisher(tmp_path / "house")
    made.release("small", "1", {"a.txt": LONG})
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def web_place(server: Server, token: str = TOKEN) -> Web:
    return Web(server.url, token, pause_s=0.001, timeout_s=10)


async def seen(where: Path | str, house: Publisher, state: Path) -> dict[str, Release]:
    client = Client(where, (house.keys.folder / "roots" / "1.root.json").read_bytes(), state)
    return await asyncio.to_thread(client.releases)


def again(house: Publisher, tmp_path: Path) -> Publisher:
    """The same publisher's keys and repository, copied."""
    shutil.copytree(house.folder, tmp_path / "copy")
    copy = Publisher.__new__(Publisher)
    copy.folder = tmp_path / "copy"
    copy.keys = keeping.Keys(copy.folder / "keys")
    copy.repository = copy.folder / "repository"
    return copy


async def test_a_folder_has_all_of_it_and_a_second_time_nothing_is_sent(house: Publisher, tmp_path: Path) -> None:
    site = tmp_path / "site"
    first = await push(house.repository, Folder(site))
    assert files(site) == files(house.repository)
    assert first == Pushed(len(files(site)), sum(map(len, files(site).values())), {"small": "1"})
    assert await push(house.repository, Folder(site)) == Pushed(0, 0, {"small": "1"})
    assert names(await seen(site, house, tmp_path / "state")) == ["small 1"]


async def test_only_what_is_new_is_sent(house: Publisher, tmp_path: Path) -> None:
    site = tmp_path / "site"
    await push(house.repository, Folder(site))
    house.release("small", "2", {"a.txt": LONG, "b.txt": b"new"})
    sent = await push(house.repository, Folder(site))
    assert sent.bytes < 20_000
    assert names(await seen(site, house, tmp_path / "state")) == ["small 1", "small 2"]


async def test_a_web_server_is_asked_before_anything_is_sent_and_gets_the_timestamp_last(
    house: Publisher, tmp_path: Path
) -> None:
    async with serving(tmp_path / "site") as server:
        await push(house.repository, web_place(server))
        assert server.put[-1] == "metadata/timestamp.json"
        first = [path.partition("/")[0] for path in server.put]
        assert first == sorted(first, key=["chunks", "targets", "metadata"].index)
        assert len(server.put) == len(set(server.put))
        assert names(await seen(server.url, house, tmp_path / "state")) == ["small 1"]
        server.put.clear()
        server.count.clear()
        house.release("small", "2", {"a.txt": LONG, "b.txt": b"new"})
        sent = await push(house.repository, web_place(server))
        assert len(server.put) == sent.files == 6, "a chunk, a release, versions, targets, snapshot, timestamp"
        found = await seen(server.url, house, tmp_path / "state")
        assert content(tmp_path / "site", found["small 2"]) == {"a.txt": LONG, "b.txt": b"new"}


async def test_a_wrong_token_is_refused_and_not_shown(house: Publisher, tmp_path: Path) -> None:
    async with serving(tmp_path / "site") as server:
        with pytest.raises(AuthFailed, match="ROOST_RELEASE_TOKEN") as refused:
            await push(house.repository, web_place(server, "wrong-token"))
        assert "wrong-token" not in refused.value.message
        assert server.count["PUT"] <= 8, "not tried again"


async def test_a_server_that_is_busy_now_and_then_is_asked_again(house: Publisher, tmp_path: Path) -> None:
    rng = random.Random(31)
    async with serving(tmp_path / "site") as server:
        server.fault = lambda request: web.Response(status=503) if rng.random() < 0.2 else None
        await push(house.repository, web_place(server))
        assert files(tmp_path / "site") == files(house.repository)


async def test_a_server_that_stays_busy_is_given_up(house: Publisher, tmp_path: Path) -> None:
    async with serving(tmp_path / "site") as server:
        server.fault = lambda request: web.Response(status=503)
        with pytest.raises(RoostError, match="503; run the command again later"):
            await push(house.repository, web_place(server))
        assert server.count.total() == ATTEMPTS


@pytest.mark.parametrize("seed", range(6))
async def test_a_link_that_breaks_for_good_leaves_the_old_state_and_the_next_run_sends_the_rest(
    house: Publisher, tmp_path: Path, seed: int
) -> None:
    async with serving(tmp_path / "site") as server:
        await push(house.repository, web_place(server))
        house.release("small", "2", {"a.txt": LONG[::-1], "b.txt": b"new"})
        server.put.clear()
        last = random.Random(seed).randrange(7)

        def cut(request: web.Request) -> web.Response | None:
            if len(server.put) >= last and request.method == "PUT" and request.transport is not None:
                request.transport.close()
                return web.Response(status=500)
            return None

        server.fault = cut
        with pytest.raises(Disconnected, match="run the command again"):
            await push(house.repository, web_place(server))
        server.fault = lambda request: None
        assert names(await seen(server.url, house, tmp_path / "state")) == ["small 1"]
        before = set(server.put)
        server.put.clear()
        await push(house.repository, web_place(server))
        assert not before & set(server.put)
        assert names(await seen(server.url, house, tmp_path / "state")) == ["small 1", "small 2"]


async def test_a_server_that_takes_no_put_is_named(house: Publisher, tmp_path: Path) -> None:
    async with serving(tmp_path / "site") as server:
        server.fault = lambda request: web.Response(status=405) if request.method == "PUT" else None
        with pytest.raises(Rejected, match="answers 405 to PUT"):
            await push(house.repository, web_place(server))


async def test_the_object_store_of_a_bus_has_files_under_their_names(house: Publisher) -> None:
    bus = MemoryBus(MemoryServer(), Config(models=()))
    await streams.apply(bus, bus.config)
    sent = await push(house.repository, Store(bus))
    objects = bus.objects("RELEASES")
    assert {path: await objects.get(path) for path in await objects.list()} == files(house.repository)
    assert sent.files == len(files(house.repository))
    assert (await push(house.repository, Store(bus))).files == 0
    house.release("small", "2", {"a.txt": LONG})
    assert (await push(house.repository, Store(bus))).files == 5
    house.release("small", "3", {"b.txt": b"only here"})
    await push(house.repository, Store(bus))
    before = {path for path in await objects.list() if path.startswith("chunks/")}
    house.remove("small", "3")
    await push(house.repository, Store(bus))
    after = {path for path in await objects.list() if path.startswith("chunks/")}
    assert (after < before, len(before - after)) == (True, 1)


async def test_another_publishers_place_is_left_alone(house: Publisher, tmp_path: Path) -> None:
    site = tmp_path / "site"
    other = publisher(tmp_path / "other")
    other.release("small", "1", {"a.txt": b"theirs"})
    await push(other.repository, Folder(site))
    before = files(site)
    with pytest.raises(Rejected, match="a repository of other or newer keys"):
        await push(house.repository, Folder(site))
    assert files(site) == before


async def test_an_older_state_never_replaces_a_newer_one(house: Publisher, tmp_path: Path) -> None:
    site = tmp_path / "site"
    old = again(house, tmp_path)
    house.release("small", "2", {"a.txt": b"new"})
    await push(house.repository, Folder(site))
    before = files(site)
    with pytest.raises(Rejected, match="has a newer state of this repository"):
        await push(old.repository, Folder(site))
    assert files(site) == before


async def test_two_copies_that_went_apart_are_noticed(house: Publisher, tmp_path: Path) -> None:
    site = tmp_path / "site"
    other = again(house, tmp_path)
    house.release("small", "2", {"a.txt": b"here"})
    other.release("small", "2", {"a.txt": b"there"})
    await push(house.repository, Folder(site))
    with pytest.raises(Rejected, match=r"another .*timestamp\.json than this repository: two copies"):
        await push(other.repository, Folder(site))
    other.release("small", "3", {"a.txt": b"further"})
    before = files(site)
    with pytest.raises(Rejected, match=r"another small/2\.json than this repository"):
        await push(other.repository, Folder(site))
    assert files(site) == before


async def test_a_release_that_was_withdrawn_is_no_sign_of_another_copy(house: Publisher, tmp_path: Path) -> None:
    site = tmp_path / "site"
    house.release("small", "2", {"a.txt": b"new"})
    await push(house.repository, Folder(site))
    house.remove("small", "1")
    await push(house.repository, Folder(site))
    assert names(await seen(site, house, tmp_path / "state")) == ["small 2"]
    assert {path for path in files(site) if path.startswith("chunks/")} == {
        path for path in files(house.repository) if path.startswith("chunks/")
    }, "what only it needed is gone"


async def test_a_damaged_chunk_is_not_sent(house: Publisher, tmp_path: Path) -> None:
    path = next(path for path in (house.repository / "chunks").rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(Untrusted, match="was altered; run: roost release check"):
        await push(house.repository, Folder(tmp_path / "site"))
    assert not (tmp_path / "site" / "metadata").exists()


async def test_what_every_reader_would_refuse_is_not_sent(house: Publisher, tmp_path: Path) -> None:
    house.refresh(days=-1)
    with pytest.raises(Rejected, match="expired; run: roost release refresh"):
        await push(house.repository, Folder(tmp_path / "site"))


async def test_chunks_that_got_lost_there_are_sent_again_when_all_are_asked_for(
    house: Publisher, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    await push(house.repository, Folder(site))
    next(path for path in (site / "chunks").rglob("*") if path.is_file()).unlink()
    assert (await push(house.repository, Folder(site))).files == 0
    assert (await push(house.repository, Folder(site), everything=True)).files == 1
    assert upkeep.check(site).problems == ()


@pytest.mark.parametrize("old_keys", [True, False])
async def test_readers_follow_a_rotation_at_every_step_of_a_push(
    house: Publisher, tmp_path: Path, old_keys: bool
) -> None:
    """With the old keys at hand no reader is refused at any moment; without them, only between two files."""
    site, refused = tmp_path / "site", 0
    await push(house.repository, Folder(site))
    await seen(site, house, tmp_path / "state")
    if not old_keys:
        for path in (house.keys.folder / "online").iterdir():
            path.unlink()
    keeping.rotate(house.keys, keeping.ONLINE)
    house.release("small", "2", {"a.txt": b"new"})

    class Watched(Folder):
        async def write(self, path: str, data: bytes) -> None:
            nonlocal refused
            await super().write(path, data)
            if path.startswith("metadata/"):
                try:
                    await seen(site, house, tmp_path / "state")
                except Exception:
                    refused += 1

    await push(house.repository, Watched(site))
    assert refused == (0 if old_keys else 1)
    assert names(await seen(site, house, tmp_path / "state")) == ["small 1", "small 2"]


async def test_publishers_who_send_at_once_to_a_folder_end_with_the_newest(house: Publisher, tmp_path: Path) -> None:
    site = tmp_path / "site"
    work = [push(house.repository, Folder(site)) for _ in range(3)]
    await asyncio.gather(*work)
    assert files(site) == files(house.repository)


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("http://models.example.org/x", "not encrypted"),
        ("https://me:secret@models.example.org/x", "take user name and password out"),
        ("https://models.example.org/x?key=1", r"without \? and #"),
        ("ftp://models.example.org", "name a folder, https"),
        ("https://", "name a folder of a web server"),
    ],
)
def test_addresses_that_would_give_something_away_are_refused(to: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        place_of(to)
    assert "secret" not in refused.value.message


def test_a_path_is_a_folder_and_an_address_a_server(tmp_path: Path) -> None:
    places: list[Place] = [place_of(str(tmp_path)), place_of("https://models.example.org/roost/")]
    assert [type(place) for place in places] == [Folder, Web]
    assert places[1].where == "https://models.example.org/roost"


async def test_a_release_made_while_another_is_sent_waits_for_the_next_push(house: Publisher, tmp_path: Path) -> None:
    site = tmp_path / "site"

    class Slow(Folder):
        async def settle(self) -> None:
            await super().settle()
            if len(upkeep.releases(house.repository)) == 1:
                await asyncio.to_thread(house.release, "small", "2", {"a.txt": b"meanwhile"})

    await push(house.repository, Slow(site))
    assert names(await seen(site, house, tmp_path / "state")) == ["small 1"]
    assert upkeep.check(site).problems == ()
    await push(house.repository, Folder(site))
    assert names(await seen(site, house, tmp_path / "state")) == ["small 1", "small 2"]
