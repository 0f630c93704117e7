"""A release comes whole, verified, and with no byte that this machine has; whatever ends it early, it goes on."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from schemas.errors import ConfigError, Disconnected, Rejected, Retryable, Untrusted
from schemas.release import Chunking, Release
from schemas.update import UpdatesConfig
from tests.updater.counting import CountingSource
from tests.updater.cutting import cut_release, noise, weights
from updater.fetch import Fetched, fetch
from updater.pace import Meter, Pace, Progress
from updater.places import WRONG_MAX
from updater.source.folder import FolderSource
from updater.store import Store
from updater.window import TRIES

CONFIG = UpdatesConfig(source="here", root="root.json", free_bytes_min="0")
OLD = {"model.safetensors": weights(noise(1, 300_000))}
EMBEDDED = noise(2, 40_000)
NEW = {
    "model.safetensors": weights(noise(1, 150_000) + EMBEDDED + noise(1, 300_000)[150_000:]),
    "vae/adapter.safetensors": weights(noise(3, 70_000)),
    "vae/config.json": b'{"layers": [1, 2]}',
    "LICENSE.txt": b"",
}


class Home:
    """A slot and a repository."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.store = Store(folder / "models" / "small")
        self.told: list[Progress] = []

    def cut(self, version: str, files: dict[str, bytes], chunking: Chunking | None = None) -> Release:
        made = cut_release(self.repository, version, files)
        return cut_release(self.repository, version, files, chunking) if chunking else made

    def source(self, **faults: Callable[..., object]) -> CountingSource:
        return CountingSource(self.repository, **faults)  # type: ignore[arg-type]

    async def fetch(self, release: Release, source: CountingSource | None = None, **config: object) -> Fetched:
        with self.store.lock():
            return await fetch(
                release, source or self.source(), self.store, replace(CONFIG, **config), self.told.append
            )

    def incoming(self, release: Release) -> Path:
        return self.store.releases / f".incoming-{release.version}"

    def holds(self, version: str, files: dict[str, bytes]) -> None:
        folder = self.store.path(version)
        found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        assert set(found) == {*files, "RELEASE.json"}
        for path, content in files.items():
            assert hashlib.sha256(found[path].read_bytes()).digest() == hashlib.sha256(content).digest()
        assert not list(self.store.releases.glob(".incoming-*"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def paths(release: Release) -> set[str]:
    return {chunk.path for file in release.files for chunk in file.chunks}


async def test_a_release_of_several_files_is_installed_as_published(home: Home) -> None:
    release = home.cut("1", NEW)
    source = home.source()
    fetched = await home.fetch(release, source)
    home.holds("1", NEW)
    assert home.store.release("1") == release
    assert set(source.reads) == paths(release)
    assert set(source.reads.values()) == {1}
    assert fetched.bytes == release.size
    assert {"resume", "find", "fetch", "verify", "install", "last_byte_to_done"} <= set(fetched.seconds)


async def test_the_folder_source_serves_as_well_and_an_installed_release_is_not_fetched_again(home: Home) -> None:
    release = home.cut("1", NEW)
    source = FolderSource(home.repository, connections=2)
    with home.store.lock():
        await fetch(release, source, home.store, CONFIG, home.told.append)
    await source.close()
    shutil.rmtree(home.repository)
    assert await home.fetch(release) == Fetched(bytes=0, seconds={})
    home.holds("1", NEW)


async def test_only_what_changed_is_fetched(tmp_path: Path) -> None:
    home = Home(tmp_path)
    size, changed, chunking = 24 << 20, 3 << 20, Chunking()
    before = noise(7, size)
    after = noise(8, 1_024) + before[: size // 3] + noise(9, changed) + before[size // 3 + changed :]
    first = cut_release(home.repository, "1", {"model.safetensors": weights(before)}, chunking)
    second = cut_release(home.repository, "2", {"model.safetensors": weights(after)}, chunking)
    await home.fetch(first)
    fetched = await home.fetch(second)
    assert changed < fetched.bytes <= changed + 1_024 + 4 * chunking.most
    assert (home.store.path("2") / "model.safetensors").read_bytes() == weights(after)


async def test_chunks_of_files_without_a_list_are_found_by_cutting_them_alike(home: Home) -> None:
    mine = home.store.path("mine")
    mine.mkdir(parents=True)
    (mine / "any-name.safetensors").write_bytes(OLD["model.safetensors"])
    release = home.cut("1", {"model.safetensors": NEW["model.safetensors"]})
    fetched = await home.fetch(release)
    assert len(EMBEDDED) < fetched.bytes < len(EMBEDDED) + 3 * release.chunking.most
    home.holds("1", {"model.safetensors": NEW["model.safetensors"]})


async def test_a_chunk_that_occurs_often_is_fetched_once(home: Home) -> None:
    page = noise(5, 60_000)
    files = {"a.safetensors": weights(page * 6), "b.safetensors": weights(page)}
    release = home.cut("1", files)
    source = home.source()
    fetched = await home.fetch(release, source)
    home.holds("1", files)
    assert set(source.reads.values()) == {1}
    assert fetched.bytes == sum(
        size for _, size in {(chunk.blake3, chunk.size) for file in release.files for chunk in file.chunks}
    )
    assert fetched.bytes < release.size / 3


async def test_a_chunk_that_was_hurt_on_the_disk_is_fetched_instead(home: Home) -> None:
    await home.fetch(home.cut("1", OLD))
    hurt = home.store.path("1") / "model.safetensors"
    content = bytearray(hurt.read_bytes())
    content[1_000] ^= 1
    hurt.write_bytes(content)
    release = home.cut("2", OLD)
    source = home.source()
    await home.fetch(release, source)
    home.holds("2", OLD)
    assert list(source.reads) == [release.files[0].chunks[0].path]


async def test_a_file_that_was_replaced_is_not_believed_for_long(home: Home) -> None:
    await home.fetch(home.cut("1", OLD))
    replaced = home.store.path("1") / "model.safetensors"
    replaced.write_bytes(noise(99, replaced.stat().st_size))
    release = home.cut("2", OLD)
    source = home.source()
    await home.fetch(release, source)
    home.holds("2", OLD)
    assert source.reads.keys() == paths(release)
    assert set(source.reads.values()) == {1}
    assert len(release.files[0].chunks) > 2 * WRONG_MAX
    assert source.at_once_most == CONFIG.connections, "the rest comes without looking at the file chunk by chunk"


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("seed", range(4))
async def test_a_fetch_that_is_cut_off_goes_on_where_it_was(home: Home, seed: int, connections: int) -> None:
    release = home.cut("1", NEW)
    stop = random.Random(seed).randint(1, len(paths(release)))
    hangs = asyncio.Event()

    class Hanging(CountingSource):
        async def read(self, path: str, limit: int) -> bytes:
            if sum(self.reads.values()) + 1 >= stop:
                hangs.set()
                await asyncio.Event().wait()
            return await super().read(path, limit)

    first = Hanging(home.repository)
    running = asyncio.create_task(home.fetch(release, first, connections=connections))
    await hangs.wait()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    kept = {chunk.path for chunk in whole_chunks(home, release)}
    second = home.source()
    await home.fetch(release, second)
    home.holds("1", NEW)
    assert not kept & set(second.reads), f"seed {seed}"
    again = set(first.reads) & set(second.reads)
    assert len(again) <= 2 * connections, f"seed {seed}: only what was not written yet comes again"


def whole_chunks(home: Home, release: Release) -> list:
    found = []
    for file in release.files:
        path = home.incoming(release) / file.path
        size = path.stat().st_size if path.exists() else 0
        for chunk in file.chunks:
            size -= chunk.size
            if size >= 0:
                found.append(chunk)
    return found


async def test_a_torn_or_spoiled_beginning_is_cut_at_the_first_wrong_chunk(home: Home) -> None:
    release = home.cut("1", {"model.safetensors": NEW["model.safetensors"]})
    chunks = release.files[0].chunks
    growing = home.incoming(release) / "model.safetensors"
    growing.parent.mkdir(parents=True)
    good = sum(chunk.size for chunk in chunks[:5])
    content = bytearray(NEW["model.safetensors"][: good + chunks[5].size + 100])
    content[good + 7] ^= 255
    growing.write_bytes(content)
    source = home.source()
    await home.fetch(release, source)
    home.holds("1", {"model.safetensors": NEW["model.safetensors"]})
    assert set(source.reads) == {chunk.path for chunk in chunks[5:]}


async def test_beginnings_of_another_release_of_that_version_and_strangers_are_cleared_away(home: Home) -> None:
    release = home.cut("1", NEW)
    incoming = home.incoming(release)
    (incoming / "vae" / "old").mkdir(parents=True)
    (incoming / "vae" / "old" / "weights.bin").write_bytes(b"x")
    (incoming / "LICENSE.txt").symlink_to("/etc/passwd")
    (incoming / "model.safetensors").mkdir()
    (incoming / "vae" / "config.json").write_bytes(b"longer than it will be, and other bytes")
    await home.fetch(release)
    home.holds("1", NEW)


PLACES = pytest.mark.parametrize(
    ("file", "number"),
    [
        pytest.param("model.safetensors", 0, id="first"),
        pytest.param("model.safetensors", -1, id="last"),
        pytest.param("vae/adapter.safetensors", 3, id="of-the-second-file"),
        pytest.param("vae/config.json", -1, id="last-of-all"),
    ],
)
"""Where the wrong chunk is."""


def chunk_at(release: Release, file: str, number: int) -> str:
    return next(found for found in release.files if found.path == file).chunks[number].path


@PLACES
async def test_a_wrong_chunk_is_asked_for_again(home: Home, file: str, number: int) -> None:
    release = home.cut("1", NEW)
    bad = chunk_at(release, file, number)
    source = home.source(spoil=lambda path, data: data[::-1] if (path, source.reads[path]) == (bad, 1) else data)
    await home.fetch(release, source)
    home.holds("1", NEW)
    assert source.reads[bad] == 2


@PLACES
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: data[::-1], id="turned"),
        pytest.param(lambda data: data[:-1], id="short"),
        pytest.param(lambda data: b"", id="empty"),
    ],
)
async def test_a_chunk_that_stays_wrong_ends_the_fetch_and_names_itself(
    home: Home, file: str, number: int, spoil: Callable[[bytes], bytes]
) -> None:
    release = home.cut("1", NEW)
    bad = chunk_at(release, file, number)
    source = home.source(spoil=lambda path, data: spoil(data) if path == bad else data)
    with pytest.raises(Untrusted, match=bad) as told:
        await home.fetch(release, source)
    assert source.where in told.value.message
    assert source.reads[bad] == TRIES
    assert home.store.installed() == []
    await home.fetch(release)
    home.holds("1", NEW)


async def test_a_file_whose_hash_is_not_the_releases_is_never_installed(home: Home) -> None:
    release = home.cut("1", NEW)
    lying = replace(release, files=(replace(release.files[0], sha256="0" * 64), *release.files[1:]))
    with pytest.raises(Untrusted, match=r"model\.safetensors has SHA-256"):
        await home.fetch(lying)
    assert home.store.installed() == []


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"model.safetensors": b"\x80\x04\x95" + noise(1, 5_000)}, "executable"),
        ({"model.safetensors": weights(noise(1, 5_000))[:-1]}, "format"),
        ({"model.gguf": b"GGUF" + noise(1, 5_000)}, "format"),
        ({"config.json": b"{"}, "format"),
    ],
)
async def test_a_file_of_a_wrong_format_is_never_installed(home: Home, files: dict[str, bytes], code: str) -> None:
    with pytest.raises(Untrusted) as told:
        await home.fetch(home.cut("1", files))
    assert told.value.code == code
    assert home.store.installed() == []


async def test_what_the_source_says_comes_through_as_it_is(home: Home) -> None:
    release = home.cut("1", NEW)

    def cut_off(number: int, path: str) -> None:
        if number == 9:
            raise Disconnected(f"{path}: the line is dead")

    with pytest.raises(Disconnected, match="the line is dead"):
        await home.fetch(release, home.source(before=cut_off))
    (home.repository / release.files[0].chunks[-1].path).unlink()
    with pytest.raises(Retryable, match="has no chunks/"):
        await home.fetch(release)


async def test_what_is_too_large_or_has_no_room_is_refused_before_a_byte_is_fetched(home: Home) -> None:
    release = home.cut("1", NEW)
    source = home.source()
    with pytest.raises(Rejected, match="release_bytes_max"):
        await home.fetch(release, source, release_bytes_max="100 kB")
    with pytest.raises(Retryable, match="free_bytes_min") as told:
        await home.fetch(release, source, free_bytes_min="100%")
    assert told.value.code == "disk_full"
    with pytest.raises(ConfigError, match=r"updates\.rate"):
        await home.fetch(release, source, rate="50%")
    assert not source.reads


async def test_a_version_that_is_there_with_other_files_is_refused(home: Home) -> None:
    await home.fetch(home.cut("1", OLD))
    with pytest.raises(Untrusted, match="a version never changes"):
        await home.fetch(home.cut("1", NEW))
    home.holds("1", OLD)
    mine = home.store.path("2")
    mine.mkdir()
    (mine / "model.gguf").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="rename it"):
        await home.fetch(home.cut("2", NEW))
    assert (mine / "model.gguf").read_bytes() == b"mine"


@pytest.mark.parametrize("connections", [1, 3])
async def test_no_more_connections_than_configured_are_used(home: Home, connections: int) -> None:
    source = home.source()
    await home.fetch(home.cut("1", NEW), source, connections=connections)
    assert source.at_once_most == connections


async def test_little_is_held_in_memory_when_one_chunk_is_slow(home: Home) -> None:
    release = home.cut("1", NEW)
    slow, enough = release.files[0].chunks[2].path, asyncio.Event()

    class Slow(CountingSource):
        async def read(self, path: str, limit: int) -> bytes:
            data = await super().read(path, limit)
            if path == slow:
                await enough.wait()
            return data

    source = Slow(home.repository)
    running = asyncio.create_task(home.fetch(release, source))
    seen = -1
    while seen != sum(source.reads.values()):
        seen = sum(source.reads.values())
        await asyncio.sleep(0.05)
    assert 3 <= seen <= 2 + 2 * CONFIG.connections
    enough.set()
    await running
    home.holds("1", NEW)


async def test_the_rate_is_shared_by_all_connections(home: Home) -> None:
    release = home.cut("1", OLD)
    clock = asyncio.get_running_loop().time
    passed: list[tuple[float, str]] = []
    source = home.source(before=lambda number, path: passed.append((clock(), path)))
    await home.fetch(release, source, rate="1 MB", connections=4)
    sizes = {chunk.path: chunk.size for chunk in release.files[0].chunks}
    begin, count = passed[0][0], 0
    for at, path in passed:
        assert count <= (at - begin) * 1e6 + 1
        count += sizes[path]
    assert count == release.size


def test_pace_lets_the_first_chunk_pass_and_spaces_the_others() -> None:
    pace = Pace(100.0)
    assert [pace.wait_s(now, 50) for now in (10.0, 10.0, 10.0, 20.0)] == [0.0, 0.5, 1.0, 0.0]
    assert Pace(None).wait_s(0.0, 1 << 40) == 0.0


def test_the_meter_tells_the_rate_of_the_last_seconds_and_not_too_often() -> None:
    now, told = [100.0], list[Progress]()
    meter = Meter(1_000, lambda: now[0], told.append)
    for _ in range(100):
        now[0] += 0.125
        meter.add(done=20, fetched=10)
    assert len(told) == 50
    assert told[-1].per_s == pytest.approx(80.0)
    now[0] += 60.0
    meter.add()
    now[0] += 6.0
    meter.add()
    assert told[-1].per_s < 1.0


async def test_progress_grows_to_the_whole_and_ends_there(home: Home) -> None:
    await home.fetch(home.cut("1", OLD))
    home.told.clear()
    release = home.cut("2", NEW)
    fetched = await home.fetch(release, rate="200 kB")
    done = [progress.done for progress in home.told]
    assert done == sorted(done)
    assert len(done) >= 3
    last = home.told[-1]
    assert (last.done, last.size, last.fetched) == (release.size, release.size, fetched.bytes)
    assert 0 < max(progress.per_s for progress in home.told[1:]) < 400_000
