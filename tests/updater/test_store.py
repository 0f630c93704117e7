"""Old or new, whole, never neither: a slot's folder, links and record, through kills, full disks and odd operators."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from schemas.errors import ConfigError, Retryable, Untrusted
from schemas.release import Release
from schemas.update import Change
from tests.conftest import ROOT
from tests.updater.cutting import cut_release, weights
from updater.state import BLOCKED_MAX, HISTORY_MAX, SlotState, Swap
from updater.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "models" / "small")
    with made.lock():
        return made


def install(store: Store, version: str, content: bytes = b"weights") -> Release:
    files = {"model.safetensors": weights(content + version.encode()), "vae/config.json": b"{}"}
    release = cut_release(store.folder.parent / "repository", version, files)
    incoming = store.incoming(release)
    for path, data in files.items():
        (incoming / path).write_bytes(data)
    assert store.finish(release) == store.path(version)
    return release


def starter(store: Store) -> Path:
    folder = store.path("1")
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(b"the starter")
    (store.folder / "current").symlink_to("releases/1")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def disturbed(base: Path, harm: str, *before: str) -> dict:
    command = [*before, sys.executable, "-m", "tests.updater.harm", str(base), "4", harm]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_kill_at_any_event_leaves_one_whole_version_serving_and_the_next_update_comes_through() -> None:
    memory = Path("/dev/shm")  # a kill does not reach the disk's cache, and fsync is quick there
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as base:
        told = disturbed(Path(base), "kill")
    assert told["faults"] == {}
    assert set(told["ends"]) == {"killed"}
    assert told["ends"]["killed"] >= 60
    assert set(told["again"]) <= {"killed", "done"}
    assert sum(told["again"].values()) == told["ends"]["killed"], "each start after a kill is harmed too"
    assert told["ends"]["killed"] + told["again"]["killed"] >= 100


def test_a_disk_that_fills_at_any_event_harms_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    mount = ["unshare", "--user", "--map-root-user", "--mount"]
    begin = f'mount -t tmpfs -o size=2m tmpfs {tmp_path} && exec "$@"'
    if not shutil.which("unshare") or subprocess.run([*mount, "sh", "-c", begin, "-", "true"]).returncode:
        pytest.skip("a right, not a package, is missing: run this where `unshare --user --mount` may mount a tmpfs")
    told = disturbed(tmp_path, "fill", *mount, "sh", "-c", begin, "-")
    assert told["faults"] == {}
    assert set(told["ends"]) == {"full", "done"}
    assert told["ends"]["full"] >= 60


def test_an_empty_slot_has_nothing(store: Store) -> None:
    assert (store.current(), store.standby(), store.installed()) == ("", "", [])
    assert store.load() == SlotState()
    assert store.sweep(0, set()) == []
    assert Store(store.folder / "not-there").installed() == []


def test_links_are_relative_and_go_over_from_one_release_to_the_other(store: Store) -> None:
    install(store, "1")
    install(store, "2")
    store.point("current", "1")
    store.point("standby", "2")
    assert (store.current(), store.standby()) == ("1", "2")
    store.point("current", "2")
    assert os.readlink(store.folder / "current") == "releases/2"
    moved = store.folder.rename(store.folder.parent / "moved")
    assert (moved / "current" / "model.safetensors").exists()
    assert Store(moved).current() == "2"


def test_a_release_that_is_not_whole_is_not_pointed_to(store: Store) -> None:
    install(store, "1")
    install(store, "2")
    store.point("current", "1")
    (store.path("2") / "vae" / "config.json").unlink()
    for version in ("2", "3"):
        with pytest.raises(Retryable, match="not whole"):
            store.point("current", version)
    assert store.current() == "1"


def test_a_link_to_a_release_that_is_gone_counts_as_none(store: Store) -> None:
    install(store, "1")
    store.point("current", "1")
    shutil.rmtree(store.path("1"))
    assert store.current() == ""


@pytest.mark.parametrize("kind", ["file", "folder", "elsewhere", "deeper", "up"])
def test_a_current_that_is_the_operators_is_refused_with_a_remedy_and_kept(store: Store, kind: str) -> None:
    install(store, "1")
    current = store.folder / "current"
    if kind == "file":
        current.write_bytes(b"GGUF")
    elif kind == "folder":
        current.mkdir()
    else:
        target = {"elsewhere": "/usr/share", "deeper": "releases/1/vae", "up": "releases/.."}[kind]
        current.symlink_to(target)
    before = current.lstat()
    for act in (store.current, lambda: store.point("current", "1"), lambda: store.sweep(0, set())):
        with pytest.raises(ConfigError, match=r"move it|point it"):
            act()
    assert current.lstat() == before


def test_a_link_with_an_absolute_target_in_the_slot_is_good(store: Store) -> None:
    install(store, "1")
    (store.folder / "current").symlink_to(store.path("1"))
    assert store.current() == "1"


def test_the_starters_folder_is_a_version_and_is_never_changed(store: Store) -> None:
    folder = starter(store)
    install(store, "2")
    assert store.installed() == ["1", "2"]
    assert (store.current(), store.release("1")) == ("1", None)
    store.point("current", "2")
    assert store.sweep(0, set()) == []
    assert (folder / "model.gguf").read_bytes() == b"the starter"
    store.point("current", "1")
    assert store.current() == "1"


def test_finish_is_done_once_and_refuses_what_is_not_there(store: Store) -> None:
    release = install(store, "1")
    assert store.finish(release) == store.path("1")
    other = cut_release(store.folder.parent / "repository", "2", {"model.safetensors": weights(b"x")})
    incoming = store.incoming(other)
    (incoming / "model.safetensors").write_bytes(b"short")
    with pytest.raises(Untrusted, match="was not installed"):
        store.finish(other)
    assert store.installed() == ["1"]


def test_versions_are_in_the_order_of_their_sequence(store: Store) -> None:
    for version in ("9", "10", "2"):
        install(store, version)
    assert store.installed() == ["2", "9", "10"]


def test_sweep_keeps_what_is_in_use_and_the_newest(store: Store) -> None:
    for version in ("1", "2", "3", "4", "5", "6", "7"):
        install(store, version)
    store.point("current", "3")
    store.point("standby", "2")
    store.save(SlotState(pinned="1", swap=Swap(version="4", previous="3")))
    assert store.sweep(1, {"5"}) == ["6"]
    store.save(SlotState())
    assert store.sweep(1, set()) == ["1", "4", "5"]
    assert store.installed() == ["2", "3", "7"]


def test_sweep_lets_blocked_releases_go_first(store: Store) -> None:
    for version in ("1", "2", "3"):
        install(store, version)
    store.point("current", "1")
    store.save(SlotState().block("3", "it answered nothing"))
    assert store.sweep(1, set()) == ["3"]


def test_sweep_clears_what_a_kill_left_but_not_the_beginning_of_the_swap_under_way(store: Store) -> None:
    install(store, "1")
    store.point("current", "1")
    for name in (".incoming-2", ".incoming-3", ".incoming-4", ".removed-0"):
        (store.releases / name).mkdir()
        (store.releases / name / "model.safetensors").write_bytes(b"half")
    (store.releases / ".incoming-5").write_bytes(b"")
    (store.folder / ".current.new").symlink_to("releases/9")
    (store.folder / ".updates.json.new").write_bytes(b"{")
    (store.folder / "notes.txt").write_bytes(b"the operator's")
    store.save(SlotState(swap=Swap(version="3", previous="1")))
    store.sweep(0, {"4"})
    assert names(store.releases) == {"1", ".incoming-3", ".incoming-4"}
    assert names(store.folder) == {"releases", "current", "updates.json", ".lock", "notes.txt"}


def test_a_link_among_the_releases_is_not_followed_when_sweeping(store: Store, tmp_path: Path) -> None:
    install(store, "1")
    outside = tmp_path / "outside"
    shutil.copytree(store.path("1"), outside)
    store.path("0").symlink_to(outside)
    (store.releases / ".removed-9").symlink_to(outside)
    store.sweep(0, set())
    assert (outside / "model.safetensors").exists()


def test_two_updaters_at_once_are_one(store: Store) -> None:
    with store.lock():
        with (
            pytest.raises(Retryable, match=f"another updater \\(process {os.getpid()}\\)"),
            Store(store.folder).lock(),
        ):
            pytest.fail("two hold the lock")
        assert store.load() == SlotState()
    with Store(store.folder).lock():
        pass


def test_the_record_comes_back_as_it_was_saved(store: Store) -> None:
    state = SlotState(
        history=(Change(at=1.5, what="swapped", version="2", previous="1", seconds={"load": 0.5}),),
        blocked={"3": "it crashed"},
        pinned="2",
        swap=Swap(version="4", step="watching", previous="2"),
    )
    store.save(state)
    assert store.load() == state


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"history": 1}', b"\xff\xfe", b'{"swap": {"step": "fetching"}}']
)
def test_an_unreadable_record_is_set_aside_and_made_anew_from_what_is_on_the_disk(store: Store, content: bytes) -> None:
    for version in ("1", "2", "3"):
        install(store, version)
    store.point("standby", "1")
    store.point("current", "2")
    (store.folder / "updates.json").write_bytes(content)
    state = store.load()
    assert [(line.what, line.version) for line in state.history] == [
        ("fetched", "1"), ("fetched", "2"), ("fetched", "3"), ("swapped", "2"),
    ]  # fmt: skip
    assert state.history[-1].previous == "1"
    assert set(state.blocked) == {"3"}, "it may have been rolled back"
    assert (store.folder / "updates.json.unreadable").read_bytes() == content
    assert store.load() == state


def test_a_release_file_that_is_unreadable_makes_the_folder_the_operators(store: Store) -> None:
    release = install(store, "1")
    install(store, "2")
    place = store.path("1") / "RELEASE.json"
    for content in (
        b"{",
        msgspec.json.encode(replace(release, version="2")),
        msgspec.json.encode(replace(release, name="/")),
    ):
        place.write_bytes(content)
        assert store.release("1") is None
    assert store.installed() == ["1", "2"]
    store.point("current", "2")
    assert store.sweep(0, set()) == []


def test_a_folder_that_may_not_be_written_is_the_operators_to_open(tmp_path: Path) -> None:
    (tmp_path / "models").write_bytes(b"a file where the folder should be")
    with pytest.raises((ConfigError, Retryable), match="models"), Store(tmp_path / "models" / "small").lock():
        pass


def test_history_and_blocks_do_not_grow_without_end() -> None:
    state = SlotState()
    for number in range(BLOCKED_MAX + 5):
        state = state.told(Change(at=float(number), what="fetched")).block(str(number), "why")
    assert len(state.history) == HISTORY_MAX
    assert state.history[-1].at == BLOCKED_MAX + 4
    assert len(state.blocked) == BLOCKED_MAX
    assert "4" not in state.blocked
    assert state.unblock("5").blocked.keys() == state.blocked.keys() - {"5"}
