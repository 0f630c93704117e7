"""What an updater believes: real repositories, over each kind of source, and everything that may be wrong with them."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import random
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from bus.client import Bus
from schemas.errors import ConfigError, Disconnected, Retryable, Untrusted
from schemas.release import Chunk, Release, ReleaseFile, Versions
from schemas.update import UpdatesConfig
from tests.bus.conftest import bus, real, servers  # noqa: F401  fixtures
from tests.bus.real import soon
from tests.conftest import ROOT
from tests.updater.evil import altered, copied, newest, published, put_back, resigned, target
from tests.updater.publishing import Publisher, publisher
from tests.updater.source.servers import raw, response, serving
from tests.updater.source.test_patient import Hasty
from updater import kept, seen
from updater.publish.keys import Keys
from updater.source import Missing, Source, source_of
from updater.source.folder import FolderSource
from updater.source.http import HttpSource
from updater.source.patient import Patient
from updater.trusted import Catalogue, Trusted

MODEL = {"model.txt": b"first"}
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """A publisher with one release, to be copied: making keys takes longer."""
    made = publisher(tmp_path_factory.mktemp("original") / "house")
    made.release("small", "1", MODEL)
    return made


@pytest.fixture
def house(original: Publisher, tmp_path: Path) -> Publisher:
    """A publisher with one release."""
    made = copy.copy(original)
    made.folder = shutil.copytree(original.folder, tmp_path / "house")
    made.keys = Keys(made.folder / "keys")
    made.repository = made.folder / "repository"
    return made


class Site:
    """An installation: its root file, given once, and what it keeps."""

    def __init__(self, house: Publisher, folder: Path, source: Source | None = None) -> None:
        folder.mkdir()
        self.root = folder / "root.json"
        shutil.copyfile(house.root, self.root)
        self.kept = folder / "trusted"
        self.source = source or FolderSource(house.repository, connections=2)

    def trusted(self, **more: object) -> Trusted:
        """As a process has it that begins anew."""
        return Trusted(self.source, self.root, self.kept, **more)

    async def refresh(self) -> Catalogue:
        return await self.trusted().refresh()

    @property
    def place(self) -> Path:
        (found,) = self.kept.iterdir()
        return found


@pytest.fixture
def site(house: Publisher, tmp_path: Path) -> Site:
    return Site(house, tmp_path / "site")


async def refused(site: Site, code: str) -> str:
    """Refresh twice: it is refused each time, for the same cause. Returns the sentence."""
    for _ in range(2):
        with pytest.raises(Untrusted) as raised:
            await site.refresh()
        assert raised.value.code == code, raised.value.message
    assert site.source.where in raised.value.message
    return raised.value.message


# -- a good repository ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def over(kind: str, house: Publisher, connection: Bus) -> AsyncIterator[Source]:
    """The repository of `house` behind a source of some kind."""
    async with contextlib.AsyncExitStack() as stack:
        where = str(house.repository) if kind == "folder" else "bus"
        if kind == "bus":
            for path in house.repository.rglob("*"):
                if path.is_file():
                    await connection.objects("RELEASES").put(str(path.relative_to(house.repository)), path.read_bytes())
        if kind == "http":
            where = await stack.enter_async_context(web_of(house.repository))
        source = source_of(UpdatesConfig(source=where, root=str(house.root), timeout_s=10.0), connection)
        stack.push_async_callback(source.close)
        yield source


@contextlib.asynccontextmanager
async def web_of(folder: Path) -> AsyncIterator[str]:
    async def handler(request: web.Request) -> web.StreamResponse:
        path = folder / request.match_info["path"]
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    async with serving(handler) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize("kind", ["folder", "http", "bus"])
async def test_a_release_is_found_over_every_kind_of_source(
    kind: str,
    house: Publisher,
    tmp_path: Path,
    bus: Bus,  # noqa: F811
) -> None:
    made = house.release("small", "2", {"model.txt": b"second", "tokenizer.json": b"{}"})
    async with over(kind, house, bus) as source:
        catalogue = await Site(house, tmp_path / "site", source).refresh()
        assert await catalogue.versions("small") == ("1", "2")
        assert await catalogue.release("small", "2") == made
        with pytest.raises(Missing):
            await catalogue.versions("large")
        with pytest.raises(Missing):
            await catalogue.release("small", "3")


async def test_what_is_kept_is_for_this_user_only_and_serves_the_next_refresh(house: Publisher, site: Site) -> None:
    site.root.chmod(0o644)
    await site.refresh()
    for folder in (site.kept, site.place):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    house.release("small", "2", {"model.txt": b"second"})
    assert await (await site.refresh()).versions("small") == ("1", "2")
    house.remove("small", "2")
    assert await (await site.refresh()).versions("small") == ("1",)


async def test_another_root_file_begins_with_nothing(house: Publisher, site: Site, tmp_path: Path) -> None:
    await site.refresh()
    other = publisher(tmp_path / "other")
    other.release("small", "7", MODEL)
    shutil.copyfile(other.root, site.root)
    with pytest.raises(Untrusted) as raised:
        await site.refresh()
    assert raised.value.code == "signature"
    site.source = FolderSource(other.repository, connections=1)
    assert await (await site.refresh()).versions("small") == ("7",)


# -- the operator's root ----------------------------------------------------------------------------------------


def no_file(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unsigned(path: Path) -> None:
    altered(path)


def of_another_kind(path: Path) -> None:
    shutil.copyfile(path.parent.parent / "house" / "repository" / "metadata" / "timestamp.json", path)


@pytest.mark.parametrize("harm", [no_file, a_folder, unsigned, of_another_kind])
async def test_a_root_file_that_is_none_is_the_operators_mistake(site: Site, harm: Callable[[Path], None]) -> None:
    harm(site.root)
    with pytest.raises(ConfigError, match=r"updates\.root: .*ask the publisher for the root\.json"):
        await site.refresh()
    assert not site.kept.exists()


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\x00\xff" * 50,
    b"[" * 5_000,
    b'{"a":' * 2_000,
    b'{"signed": {}, "signatures": []}',
]


async def test_garbage_as_root_file_is_the_operators_mistake(site: Site) -> None:
    for garbage in GARBAGE:
        site.root.write_bytes(garbage)
        with pytest.raises(ConfigError, match="no root of a repository"):
            await site.refresh()


# -- attacks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("known", [False, True], ids=["first", "later"])
async def test_altered_metadata_is_refused(house: Publisher, site: Site, role: str, known: bool) -> None:
    if known:
        await site.refresh()
        house.release("small", "2", MODEL)
    altered(newest(house, role))
    await refused(site, "signature" if role == "timestamp" else "mixed")


async def test_metadata_signed_by_a_stranger_is_refused(house: Publisher, site: Site, tmp_path: Path) -> None:
    await site.refresh()
    stranger = publisher(tmp_path / "stranger")
    stranger.release("small", "1", {"model.txt": b"evil"})
    stranger.release("small", "2", {"model.txt": b"evil"})
    root = house.repository / "metadata" / "1.root.json"
    genuine = root.read_bytes()
    put_back(house, stranger.repository)
    assert "another publisher" in await refused(site, "signature")
    root.write_bytes(genuine)
    await refused(site, "signature")


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "metadata lost"])
async def test_an_older_repository_is_refused(house: Publisher, site: Site, lost: bool) -> None:
    before = copied(house, "before")
    house.release("small", "2", MODEL)
    after = copied(house, "after")
    await site.refresh()
    put_back(house, before)
    for _ in range(2):
        if lost:
            kept.forget(site.place)
        assert "taken back" in await refused(site, "older")
    put_back(house, after)
    assert await (await site.refresh()).versions("small") == ("1", "2")


async def test_a_newer_timestamp_that_names_an_older_snapshot_is_refused(house: Publisher, site: Site) -> None:
    before = resigned(newest(house, "timestamp"), lambda signed: None, house)
    house.release("small", "2", MODEL)
    await site.refresh()
    newest(house, "timestamp").write_bytes(before)
    resigned(newest(house, "timestamp"), lambda signed: setattr(signed, "version", 99), house)
    await refused(site, "older")


async def test_a_newer_snapshot_that_names_older_targets_is_refused(house: Publisher, site: Site) -> None:
    house.release("small", "2", MODEL)
    await site.refresh()
    first = house.repository / "metadata" / "1.snapshot.json"
    third = house.repository / "metadata" / "3.snapshot.json"
    resigned(first, lambda signed: setattr(signed, "version", 3), house, third)

    def name_third(signed: object) -> None:
        signed.version = 3
        signed.snapshot_meta.version, signed.snapshot_meta.length, signed.snapshot_meta.hashes = 3, None, None

    resigned(newest(house, "timestamp"), name_third, house)
    await refused(site, "older")


@pytest.mark.parametrize("hashes", [True, False], ids=["hashes", "numbers"])
@pytest.mark.parametrize("role", ["snapshot", "targets"])
async def test_files_of_different_states_are_not_mixed(house: Publisher, site: Site, role: str, hashes: bool) -> None:
    house.release("small", "2", MODEL)
    if not hashes:

        def nameless(signed: object) -> None:
            meta = signed.snapshot_meta if role == "snapshot" else signed.meta["targets.json"]
            meta.length = meta.hashes = None

        resigned(newest(house, "timestamp" if role == "snapshot" else "snapshot"), nameless, house)
        if role == "targets":

            def unbound(signed: object) -> None:
                signed.snapshot_meta.length = signed.snapshot_meta.hashes = None

            resigned(newest(house, "timestamp"), unbound, house)
    shutil.copyfile(house.repository / "metadata" / f"1.{role}.json", newest(house, role))
    await refused(site, "mixed")


async def test_a_repository_frozen_at_an_old_state_is_refused_when_its_time_is_over(
    house: Publisher, site: Site
) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    resigned(newest(house, "timestamp"), lambda signed: setattr(signed, "expires", soon), house)
    await site.refresh()
    await asyncio.sleep((soon - datetime.now(UTC)).total_seconds() + 0.01)  # the attack is to let time pass
    await refused(site, "expired")
    house.refresh()
    await site.refresh()


async def test_what_expired_is_named_with_the_time_the_clock_and_the_remedy(house: Publisher, site: Site) -> None:
    house.refresh(days=-3)
    sentence = await refused(site, "expired")
    ended = datetime.now(UTC) - 3 * DAY
    assert f"its timestamp expired at {ended:%Y-%m-%d}" in sentence
    assert f"clock says {datetime.now(UTC):%Y-%m-%d}" in sentence
    assert "Check the clock, or ask the publisher to run `roost release refresh`" in sentence
    house.refresh()
    await site.refresh()


@pytest.mark.parametrize("role", ["snapshot", "targets"])
async def test_every_role_may_expire(house: Publisher, site: Site, role: str) -> None:
    resigned(newest(house, role), lambda signed: setattr(signed, "expires", datetime.now(UTC) - DAY), house)

    def unbound(signed: object) -> None:
        metas = [signed.snapshot_meta] if signed.type == "timestamp" else list(signed.meta.values())
        for meta in metas:
            meta.length = meta.hashes = None

    if role == "targets":
        resigned(newest(house, "snapshot"), unbound, house)
    resigned(newest(house, "timestamp"), unbound, house)
    assert f"its {role} expired" in await refused(site, "expired")


async def test_an_expired_root_asks_for_a_new_root(tmp_path: Path) -> None:
    from updater.publish import keys as keeping

    house = publisher(tmp_path / "house")
    keeping.renew(house.keys, days=-1)
    house.release("small", "1", MODEL)
    site = Site(house, tmp_path / "site")
    sentence = await refused(site, "expired")
    assert "its root expired" in sentence
    assert "roost release keys renew" in sentence
    keeping.renew(house.keys)
    house.refresh()
    await site.refresh()


@pytest.mark.parametrize(("days", "works"), [(29, True), (31, True), (2, True), (-1, False)])
async def test_a_clock_that_is_wrong_by_a_day_harms_only_where_less_than_a_day_is_left(
    house: Publisher, site: Site, days: int, works: bool
) -> None:
    """A clock that is a day ahead sees what is good for n days as good for n - 1; one that is behind, for n + 1."""
    await site.refresh()
    house.refresh(days=days)
    if works:
        assert await (await site.refresh()).versions("small") == ("1",)
    else:
        assert "Check the clock" in await refused(site, "expired")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root"])
async def test_garbage_in_the_place_of_metadata_is_refused(house: Publisher, site: Site, role: str) -> None:
    path = house.repository / "metadata" / "2.root.json" if role == "root" else newest(house, role)
    bound = role in ("snapshot", "targets")  # by length and hash
    limit = path.stat().st_size if bound else 16_384
    for garbage in GARBAGE:
        path.write_bytes(garbage)
        await refused(site, "too_large" if len(garbage) > limit else "mixed" if bound else "garbage")


@pytest.mark.parametrize(("role", "limit"), [("timestamp", 16_384), ("root", 512_000)])
async def test_metadata_above_its_limit_is_refused(house: Publisher, site: Site, role: str, limit: int) -> None:
    path = house.repository / "metadata" / ("timestamp.json" if role == "timestamp" else "2.root.json")
    path.write_bytes(b" " * (limit + 1))
    await refused(site, "too_large")


async def test_metadata_that_is_longer_than_was_signed_is_refused(house: Publisher, site: Site) -> None:
    path = newest(house, "targets")
    path.write_bytes(path.read_bytes() + b" ")
    await refused(site, "too_large")


async def test_a_signed_number_of_a_thousand_digits_is_no_file_name(house: Publisher, site: Site) -> None:
    resigned(newest(house, "timestamp"), lambda signed: setattr(signed.snapshot_meta, "version", 10**1_000), house)
    with pytest.raises(Untrusted) as raised:
        await site.refresh()
    assert raised.value.code == "path"


async def test_a_signed_length_beyond_all_measure_is_not_believed(house: Publisher, site: Site) -> None:
    def boundless(signed: object) -> None:
        signed.snapshot_meta.length, signed.snapshot_meta.hashes = 10**15, None

    resigned(newest(house, "timestamp"), boundless, house)
    with newest(house, "snapshot").open("wb") as file:
        file.truncate(20_000_000)
    await refused(site, "too_large")


# -- keys change ------------------------------------------------------------------------------------------------


async def test_new_keys_are_accepted_when_the_old_root_vouches_for_them(house: Publisher, site: Site) -> None:
    await site.refresh()
    for number, role in enumerate(("timestamp", "snapshot", "targets", "timestamp"), 2):
        house.rotate(role)
        house.release("small", str(number), MODEL)
        assert (await (await site.refresh()).versions("small"))[-1] == str(number)


async def test_a_root_signed_by_strangers_is_refused(house: Publisher, site: Site, tmp_path: Path) -> None:
    await site.refresh()
    stranger = publisher(tmp_path / "stranger")
    stranger.rotate("timestamp")
    stranger.release("small", "9", MODEL)
    shutil.copyfile(stranger.repository / "metadata" / "2.root.json", house.repository / "metadata" / "2.root.json")
    await refused(site, "signature")
    (house.repository / "metadata" / "2.root.json").unlink()
    await site.refresh()


async def test_an_old_root_under_a_new_number_is_refused(house: Publisher, site: Site) -> None:
    metadata = house.repository / "metadata"
    shutil.copyfile(metadata / "1.root.json", metadata / "2.root.json")
    await refused(site, "mixed")


async def test_roots_that_vanish_do_not_bring_old_keys_back(house: Publisher, site: Site) -> None:
    before = copied(house, "before")
    house.rotate("timestamp")
    house.refresh()
    await site.refresh()
    put_back(house, before)
    kept.forget(site.place)
    assert "root" in await refused(site, "older")


async def test_a_huge_number_signed_with_a_stolen_key_ends_with_that_key(house: Publisher, site: Site) -> None:
    """The fast-forward attack, and how TUF recovers from it."""
    genuine = copied(house, "genuine")
    resigned(newest(house, "timestamp"), lambda signed: setattr(signed, "version", 2**31), house)
    await site.refresh()
    put_back(house, genuine)
    house.refresh()
    await refused(site, "older")
    house.rotate("timestamp")
    for old in sorted((house.keys.folder / "online").glob("timestamp-*"), key=lambda path: path.stat().st_mtime)[:-1]:
        old.unlink()
    house.release("small", "2", MODEL)
    for lost in (False, True):
        if lost:
            kept.forget(site.place)
        assert await (await site.refresh()).versions("small") == ("1", "2")


# -- targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda data: data.replace(b'"1"', b'"6"'), "hash"),
        (lambda data: data[:-1], "hash"),
        (lambda data: b"", "hash"),
        (lambda data: data + b" ", "too_large"),
    ],
)
async def test_a_target_whose_bytes_differ_is_refused(
    house: Publisher, site: Site, harm: Callable[[bytes], bytes], code: str
) -> None:
    catalogue = await site.refresh()
    for path in ("small/versions.json", "small/1.json"):
        file = target(house, path)
        file.write_bytes(harm(file.read_bytes()))
    for read in (catalogue.versions, lambda name: catalogue.release(name, "1")):
        with pytest.raises(Untrusted) as raised:
            await read("small")
        assert raised.value.code == code


FILE = ReleaseFile(path="model.txt", size=5, sha256="a" * 64, chunks=(Chunk("b" * 64, 5),))
GOOD = Release(name="small", version="2", files=(FILE,), created_at=1.0)


def with_(**changes: object) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(GOOD, **changes))


def file_with(**changes: object) -> bytes:
    return with_(files=(msgspec.structs.replace(FILE, **changes),))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (with_(name="large"), "release"),
        (with_(version="3"), "release"),
        (with_(v=2), "format"),
        (file_with(path="../model.txt"), "release"),
        (file_with(path="model.pkl"), "executable"),
        (file_with(size=6), "release"),
        (file_with(sha256="x"), "release"),
        (with_(files=()), "release"),
        (b"", "release"),
        (b"[" * 100_000, "release"),
        (b'{"name": "small"}', "release"),
        (msgspec.json.encode(GOOD).replace(b'"size":5', b'"size":"5"'), "release"),
    ],
)
async def test_a_signed_release_that_cannot_be_is_refused(house: Publisher, site: Site, data: bytes, code: str) -> None:
    published(house, "small/2.json", data)
    catalogue = await site.refresh()
    with pytest.raises(Untrusted) as raised:
        await catalogue.release("small", "2")
    assert raised.value.code == code, raised.value.message


@pytest.mark.parametrize(
    "versions",
    [
        Versions(name="large", versions=("1",)),
        Versions(name="small", versions=("1", "../2")),
        Versions(name="small", versions=("1", "1")),
        Versions(name="small", versions=("",)),
    ],
)
async def test_a_signed_list_of_versions_that_cannot_be_is_refused(
    house: Publisher, site: Site, versions: Versions
) -> None:
    published(house, "small/versions.json", msgspec.json.encode(versions))
    catalogue = await site.refresh()
    with pytest.raises(Untrusted) as raised:
        await catalogue.versions("small")
    assert raised.value.code == "release"


async def test_a_description_above_its_limit_is_not_even_read(house: Publisher, site: Site) -> None:
    published(house, "small/versions.json", b" " * 1_048_577)
    catalogue = await site.refresh()
    with pytest.raises(Untrusted) as raised:
        await catalogue.versions("small")
    assert raised.value.code == "too_large"


# -- what is kept on the disk -----------------------------------------------------------------------------------

KEPT = [
    "root.json", "root_history/1.root.json", "root_history/2.root.json", "timestamp.json", "snapshot.json",
    "targets.json", "seen.json", "seen-again.json",
]  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("harm", ["half", "gone", "folder"])
async def test_harm_to_one_kept_file_costs_nothing_and_forgets_nothing(
    house: Publisher, site: Site, name: str, harm: str
) -> None:
    old = copied(house, "old")
    house.rotate("timestamp")
    house.release("small", "2", MODEL)
    new = copied(house, "new")
    await site.refresh()

    def do_harm() -> None:
        path = site.place / name
        if path.is_dir():
            return
        data = path.read_bytes() if path.exists() else b""
        path.unlink(missing_ok=True)
        if harm == "folder":
            path.mkdir()
            (path / "something").write_bytes(b"x")
        elif harm != "gone":
            path.write_bytes(data[: len(data) // 2])

    do_harm()
    put_back(house, old)
    for _ in range(2):
        with pytest.raises(Untrusted) as raised:
            await site.refresh()
        assert raised.value.code in ("older", "signature"), "the keys of the old state count no more, where known"
    put_back(house, new)
    do_harm()
    assert await (await site.refresh()).versions("small") == ("1", "2")
    first, second = ((site.place / copy).read_bytes() for copy in seen.COPIES)
    assert first == second


async def test_everything_but_the_numbers_may_be_lost_at_once(house: Publisher, site: Site) -> None:
    await site.refresh()
    house.release("small", "2", MODEL)
    rng = random.Random(5)
    for path in site.place.rglob("*"):
        if path.is_file() and path.name not in (*seen.COPIES, kept.LOCK):
            path.write_bytes(rng.randbytes(300))
    (site.place / "tmpx7k2").write_bytes(b"half")
    assert await (await site.refresh()).versions("small") == ("1", "2")
    assert not list(site.place.glob("tmp*"))


async def test_numbers_that_cannot_be_read_are_not_taken_for_none(house: Publisher, site: Site) -> None:
    await site.refresh()
    for name in seen.COPIES:
        (site.place / name).write_bytes(b"{")
    with pytest.raises(Untrusted, match="remove the folder") as raised:
        await site.refresh()
    assert raised.value.code == "state"
    shutil.rmtree(site.place)
    await site.refresh()


KILLED = """
import asyncio, sys
from pathlib import Path
from updater.source.folder import FolderSource
from updater.trusted import Trusted

async def main():
    source = FolderSource(Path(sys.argv[1]), connections=1)
    print("ready", flush=True)
    while True:
        await Trusted(source, Path(sys.argv[2]), Path(sys.argv[3])).refresh()

asyncio.run(main())
"""


async def test_a_kill_at_any_moment_leaves_a_folder_that_works_and_forgets_nothing(
    house: Publisher, site: Site
) -> None:
    rng = random.Random(11)
    for number in range(2, 7):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(house.repository), str(site.root), str(site.kept)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert child.stdout is not None
        assert await asyncio.to_thread(child.stdout.readline) == b"ready\n"
        house.refresh()
        await asyncio.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.wait()
        child.stdout.close()
        before = seen.load(site.place) if site.kept.exists() and any(site.kept.iterdir()) else None
        house.release("small", str(number), MODEL)
        assert (await (await site.refresh()).versions("small"))[-1] == str(number)
        now = seen.load(site.place)
        assert now is not None
        assert before is None or not seen.older(now, before)
        assert sorted(path.name for path in site.place.iterdir()) == sorted(
            [*seen.COPIES, ".lock", "root.json", "root_history", "snapshot.json", "targets.json", "timestamp.json"]
        )


# -- two at once, threads and time ------------------------------------------------------------------------------


async def test_many_updaters_at_once_take_turns(house: Publisher, tmp_path: Path) -> None:
    async with web_of(house.repository) as address:
        http = HttpSource(address.replace("127.0.0.1", "localhost"), connections=4, timeout_s=10.0)
        site = Site(house, tmp_path / "site", http)
        one = site.trusted()
        everybody = [site.trusted() for _ in range(30)] + [one] * 10
        async with asyncio.timeout(60):
            catalogues = await asyncio.gather(*(each.refresh() for each in everybody))
            assert await asyncio.gather(*(each.versions("small") for each in catalogues)) == [("1",)] * 40
        await http.close()


async def test_who_finds_the_folder_taken_gives_up_in_time(house: Publisher, site: Site) -> None:
    await site.refresh()
    with kept.locked(site.place, lambda: False), pytest.raises(Retryable, match="another updater") as raised:
        await site.trusted(lock_wait_s=0.05).refresh()
    assert raised.value.code == "locked"
    await site.refresh()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tuf")]


async def test_cancelling_a_refresh_ends_its_thread_and_spoils_nothing(house: Publisher, tmp_path: Path) -> None:
    asked = asyncio.Event()
    silent = True

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.set()
        if silent:
            await asyncio.Event().wait()
        path = house.repository / request.match_info["path"]
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    async with serving(handler) as port:
        http = HttpSource(f"http://127.0.0.1:{port}/", connections=1, timeout_s=60.0)
        site = Site(house, tmp_path / "site", http)
        trusted = site.trusted()
        refreshing = asyncio.create_task(trusted.refresh())
        await asked.wait()
        assert threads()
        refreshing.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(20):
                await refreshing
        await gone()
        silent = False
        assert await (await trusted.refresh()).versions("small") == ("1",)
        await http.close()
    await gone()


async def gone() -> None:
    await soon(lambda: not threads(), "the end of the thread")


async def test_cancelling_while_the_folder_is_taken_ends_the_wait(house: Publisher, site: Site) -> None:
    await site.refresh()
    await gone()
    with kept.locked(site.place, lambda: False):
        refreshing = asyncio.create_task(site.refresh())
        await soon(threads, "the thread that waits")
        refreshing.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(20):
                await refreshing
        await gone()


async def test_a_source_that_never_ends_a_read_does_not_hold_a_refresh_for_ever(
    house: Publisher, tmp_path: Path
) -> None:
    class Silent:
        where = "a silent place"

        async def read(self, path: str, limit: int) -> bytes:
            await asyncio.Event().wait()
            return b""

        async def close(self) -> None:
            return

    site = Site(house, tmp_path / "site", Silent())
    with pytest.raises(Retryable, match="a silent place") as raised:
        await site.trusted(wait_s=0.05).refresh()
    assert raised.value.code == "slow"
    await gone()


@pytest.mark.parametrize("seed", range(12))
async def test_a_network_cut_at_any_byte_delays_and_never_deceives(seed: int, house: Publisher, tmp_path: Path) -> None:
    rng = random.Random(seed)
    left = rng.randrange(1, 12)

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        path = house.repository / head.split()[1].decode().lstrip("/")
        whole = response(path.read_bytes()) if path.is_file() else response(b"", status="404 Not Found")
        cut = left > 0 and rng.random() < 0.7
        left -= cut
        writer.write(whole[: rng.randrange(len(whole))] if cut else whole)

    async with raw(talk) as port:
        http = HttpSource(f"http://127.0.0.1:{port}/", connections=1, timeout_s=5.0)
        site = Site(house, tmp_path / "site", Patient(http, connections=1, timeout_s=5.0, rng=Hasty()))
        for _ in range(12):
            try:
                catalogue = await site.refresh()
                assert await catalogue.versions("small") == ("1",)
                assert (await catalogue.release("small", "1")).size == 5
                break
            except Missing:
                pytest.fail(f"seed {seed}: what is there was said to be missing")
            except Retryable:
                continue
        else:
            pytest.fail(f"seed {seed}: never")
        await http.close()


async def test_no_repository_where_the_source_points_is_said_with_the_remedy(house: Publisher, site: Site) -> None:
    shutil.rmtree(house.repository / "metadata")
    with pytest.raises(Retryable, match=r"has no metadata/timestamp\.json; is metadata/ in the folder") as raised:
        await site.refresh()
    assert raised.value.code == "missing"


async def test_a_link_that_is_down_is_retryable_and_the_catalogue_stays_good(house: Publisher, tmp_path: Path) -> None:
    async with web_of(house.repository) as address:
        http = HttpSource(address, connections=1, timeout_s=5.0)
        site = Site(house, tmp_path / "site", http)
        catalogue = await site.refresh()
    for read in (site.refresh, lambda: catalogue.versions("small")):
        with pytest.raises(Retryable) as raised:
            await read()
        assert not isinstance(raised.value, Disconnected)
    await http.close()


async def test_a_full_disk_is_said_as_such(house: Publisher, site: Site) -> None:
    await site.refresh()
    assert json.loads((site.place / "seen.json").read_bytes())["timestamp"] == 1
    house.refresh()
    (site.place / ".seen.json.new").symlink_to("/dev/full")
    with pytest.raises(Retryable) as raised:
        await site.refresh()
    assert raised.value.code == "disk_full"
