"""A repository as python-tuf's own client sees it: over the years, through rotations, and when it was tampered with."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata

from schemas.errors import ConfigError, Retryable, Untrusted
from tests.updater.publish.clients import Client, content, names
from tests.updater.publishing import Publisher, publisher
from updater.publish import disk, upkeep
from updater.publish import keys as keeping
from updater.publish.keys import Keys
from updater.publish.repository import Repository
from updater.publish.sign import METADATA_KEPT, begin, commit, targets_of

TEXT = {"a.txt": b"one"}


@pytest.fixture
def house(tmp_path: Path) -> Publisher:
    made = publisher(tmp_path / "house")
    made.release("small", "1", TEXT)
    return made


@pytest.fixture
def client(house: Publisher, tmp_path: Path) -> Client:
    """It was given the first root, and keeps what it has seen."""
    return Client(house.repository, house.root.read_bytes(), tmp_path / "state")


def test_a_client_reads_every_release_and_its_bytes(house: Publisher, client: Client) -> None:
    house.release("small", "2", {"b/c.txt": b"two", "b/d.json": b"{}"})
    found = client.releases()
    assert names(found) == ["small 1", "small 2"]
    assert content(house.repository, found["small 1"]) == TEXT
    assert content(house.repository, found["small 2"]) == {"b/c.txt": b"two", "b/d.json": b"{}"}
    assert [found[name].sequence for name in names(found)] == [1, 2]


def test_metadata_that_has_expired_is_refused_until_it_is_refreshed(house: Publisher, client: Client) -> None:
    house.refresh(days=-1)
    with pytest.raises(ExpiredMetadataError):
        client.releases()
    assert any("timestamp expired" in problem for problem in upkeep.check(house.repository).problems)
    house.refresh()
    assert names(client.releases()) == ["small 1"]
    assert upkeep.check(house.repository).problems == ()


def test_a_refresh_signs_only_what_would_end_first(house: Publisher) -> None:
    before = Repository(house.repository).metas()
    house.refresh(days=10)
    after = Repository(house.repository).metas()
    assert after.timestamp.signed.version == before.timestamp.signed.version + 1
    assert (after.snapshot, after.targets) == (before.snapshot, before.targets)
    house.refresh(days=100)
    later = Repository(house.repository).metas()
    assert later.snapshot.signed.version == before.snapshot.signed.version + 1
    assert later.targets == before.targets
    assert later.snapshot.signed.expires > later.timestamp.signed.expires


def test_the_timestamp_key_alone_refreshes(house: Publisher, client: Client) -> None:
    for path in house.keys.folder.rglob("*.pem"):
        if not path.name.startswith("timestamp-"):
            path.unlink()
    house.refresh()
    assert names(client.releases()) == ["small 1"]
    with pytest.raises(ConfigError, match=r"the key that signs the targets is not here: targets-[0-9a-f]+\.pem"):
        house.release("small", "2", TEXT)
    assert names(client.releases()) == ["small 1"]


@pytest.mark.parametrize("roles", [["timestamp"], ["snapshot"], ["targets"], list(keeping.ONLINE)])
def test_online_keys_are_rotated_under_clients_old_and_new(
    house: Publisher, client: Client, tmp_path: Path, roles: list[str]
) -> None:
    client.releases()
    keeping.rotate(house.keys, roles)
    assert names(client.releases()) == ["small 1"], "before the repository is signed anew"
    house.release("small", "2", {"a.txt": b"two"})
    assert names(client.releases()) == ["small 1", "small 2"]
    fresh = Client(house.repository, house.root.read_bytes(), tmp_path / "fresh")
    assert names(fresh.releases()) == ["small 1", "small 2"]
    for path in (house.keys.folder / "online").iterdir():
        if path.stem.rpartition("-")[2] not in {key[:12] for key in house.keys.newest.signed.keys}:
            path.unlink()
    house.release("small", "3", {"a.txt": b"three"})
    assert len(client.releases()) == 3, "the old keys are not needed"


def test_a_rotation_signs_once_with_both_keys_so_that_no_client_is_refused_between(house: Publisher) -> None:
    house.rotate("timestamp")
    house.refresh()
    timestamp = Repository(house.repository).metas().timestamp
    assert len(timestamp.signatures) == 2
    house.refresh()
    assert len(Repository(house.repository).metas().timestamp.signatures) == 1


def test_stolen_keys_that_were_lost_here_are_rotated_out(house: Publisher, client: Client) -> None:
    client.releases()
    for path in (house.keys.folder / "online").iterdir():
        path.unlink()
    keeping.rotate(house.keys, keeping.ONLINE)
    house.release("small", "2", {"a.txt": b"two"})
    assert names(client.releases()) == ["small 1", "small 2"]


def test_a_root_key_is_replaced_and_first_installations_follow(house: Publisher, client: Client) -> None:
    old = house.keys.newest.signed.roles["root"].keyids[0]
    keeping.rotate(house.keys, ["root"], old=old)
    keeping.renew(house.keys, days=500)
    house.refresh()
    assert names(client.releases()) == ["small 1"], "from root 1 to root 3"
    assert upkeep.check(house.repository, house.root.read_bytes()).problems == ()


def test_a_withdrawn_release_is_gone_with_the_chunks_that_only_it_needed(house: Publisher, client: Client) -> None:
    first = client.releases()["small 1"]
    both = house.release("small", "2", {**TEXT, "b.txt": b"only here"})
    house.remove("small", "2")
    assert names(client.releases()) == ["small 1"]
    assert content(house.repository, first) == TEXT
    (only,) = [file.chunks[0] for file in both.files if file.path == "b.txt"]
    assert not (house.repository / only.path).exists()
    house.remove("small", "1")
    assert client.releases() == {}
    assert not [path for path in (house.repository / "chunks").rglob("*") if path.is_file()]


def test_sequence_grows_past_withdrawn_releases(house: Publisher) -> None:
    house.release("small", "2", TEXT)
    house.remove("small", "2")
    assert house.release("small", "3", TEXT).sequence == 3


def test_a_release_that_is_not_there_cannot_be_withdrawn(house: Publisher) -> None:
    with pytest.raises(ConfigError, match=r"no release small 9; see: roost release list"):
        house.remove("small", "9")


def test_old_metadata_and_leavings_are_swept(house: Publisher) -> None:
    for _ in range(METADATA_KEPT + 5):
        house.refresh(days=200)
        house.refresh(days=100)
    leaving = house.repository / "metadata" / ".timestamp.json.tmp"
    orphan = house.repository / "chunks" / "ab" / ("ab" * 32)
    orphan.parent.mkdir(parents=True)
    for path in (leaving, orphan):
        path.write_bytes(b"x")
    house.refresh()
    assert not leaving.exists()
    assert not orphan.exists()
    kept = len(list((house.repository / "metadata").glob("*.snapshot.json")))
    assert kept <= METADATA_KEPT + 1
    assert upkeep.check(house.repository).problems == ()


def test_another_publishers_repository_is_left_alone(house: Publisher, tmp_path: Path) -> None:
    stranger = keeping.create(tmp_path / "stranger", passphrase=None)
    before = {path: path.read_bytes() for path in house.repository.rglob("*") if path.is_file()}
    with pytest.raises(Untrusted, match="belongs to other keys"):
        upkeep.refresh(house.repository, stranger)
    with pytest.raises(Untrusted, match="belongs to other keys"):
        upkeep.check(house.repository, stranger.roots[0])
    assert {path: path.read_bytes() for path in house.repository.rglob("*") if path.is_file()} == before


def test_an_old_copy_of_the_keys_says_so(house: Publisher, tmp_path: Path) -> None:
    shutil.copytree(house.keys.folder, tmp_path / "copy")
    house.rotate("targets")
    house.refresh()
    with pytest.raises(ConfigError, match="these keys are an old copy"):
        upkeep.refresh(house.repository, Keys(tmp_path / "copy"))


def test_a_folder_of_other_things_is_no_repository(house: Publisher, tmp_path: Path) -> None:
    house.repository = tmp_path / "home"
    house.repository.mkdir()
    (house.repository / "thesis.odt").write_bytes(b"dear")
    with pytest.raises(ConfigError, match="not empty"):
        house.release("small", "1", TEXT)
    with pytest.raises(ConfigError, match="is no repository"):
        upkeep.releases(house.repository)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("pattern", ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.root.json"])
def test_altered_metadata_is_refused_here_and_by_clients(house: Publisher, client: Client, pattern: str) -> None:
    flip(house.repository / "metadata" / pattern)
    with pytest.raises(Untrusted):
        upkeep.check(house.repository)
    with pytest.raises(Untrusted):
        house.release("small", "2", TEXT)
    if pattern != "1.root.json":  # the client has its own
        with pytest.raises(RepositoryError):
            client.releases()


def test_metadata_signed_by_nobody_we_know_is_refused(house: Publisher, tmp_path: Path) -> None:
    other = publisher(tmp_path / "other")
    other.release("small", "1", TEXT)
    other.refresh()
    for path in ("timestamp.json", "2.snapshot.json"):
        if (other.repository / "metadata" / path).exists():
            shutil.copy(other.repository / "metadata" / path, house.repository / "metadata" / path)
    with pytest.raises(Untrusted, match=r"timestamp\.json is not signed by enough"):
        upkeep.check(house.repository)


def test_every_damaged_chunk_and_release_is_found(house: Publisher) -> None:
    first = house.release("small", "2", {"b.txt": b"two", "c.txt": b"three"})
    one, other = (house.repository / file.chunks[0].path for file in first.files)
    flip(one)
    other.unlink()
    (target,) = (house.repository / "targets" / "small").glob("*.1.json")
    flip(target)
    problems = "\n".join(upkeep.check(house.repository).problems)
    assert f"{one} was altered" in problems
    assert f"{other} cannot be read" in problems
    assert f"{target} was altered" in problems


def test_a_release_mends_damaged_chunks_that_it_has_too(house: Publisher) -> None:
    (path,) = [path for path in (house.repository / "chunks").rglob("*") if path.is_file()]
    flip(path)
    house.release("small", "2", TEXT)
    assert upkeep.check(house.repository).problems == ()


def test_the_second_publisher_waits_for_the_first_and_not_for_ever(house: Publisher) -> None:
    with disk.locked(house.repository):
        with pytest.raises(Retryable, match="another publisher is at work"), disk.locked(house.repository, wait_s=0.1):
            pass
        late = threading.Thread(target=house.release, args=("small", "2", TEXT))
        late.start()
        late.join(0.2)
        assert late.is_alive()
    late.join(30)
    assert [made.version for made in upkeep.releases(house.repository)] == ["1", "2"]


def test_publishers_at_once_lose_nothing_of_each_other(house: Publisher, client: Client) -> None:
    work = [
        threading.Thread(target=house.release, args=("small", f"1.{number}", {"a.txt": bytes([65 + number])}))
        for number in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(60)
    found = client.releases()
    assert names(found) == ["small 1", *(f"small 1.{number}" for number in range(4))]
    assert sorted(release.sequence for release in found.values()) == [1, 2, 3, 4, 5]


def test_state_that_nobody_was_told_of_is_signed_over(house: Publisher, client: Client) -> None:
    """A writer was killed between the targets and the timestamp."""
    place = begin(house.repository, house.keys)
    timestamp = (house.repository / "metadata" / "timestamp.json").read_bytes()
    commit(place, house.keys, targets_of(place))
    (house.repository / "metadata" / "timestamp.json").write_bytes(timestamp)
    house.release("small", "2", TEXT)
    assert names(client.releases()) == ["small 1", "small 2"]
    assert json.loads((house.repository / "metadata" / "timestamp.json").read_bytes())["signed"]["version"] == 2


def test_metadata_says_what_a_reader_needs_and_no_paths_of_this_machine(house: Publisher) -> None:
    for path in (house.repository / "metadata").iterdir():
        assert str(house.folder) not in path.read_text()
        assert Metadata.from_bytes(path.read_bytes()).signed.spec_version.startswith("1.0")
