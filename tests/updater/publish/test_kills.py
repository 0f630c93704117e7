"""`kill -9` at every step that a publisher takes on the disk: readers see the old state or the new one, and the next
run succeeds."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.updater.publish.clients import Client, content, names
from tests.updater.publish.dying import DEAD, WORK
from tests.updater.publishing import publisher
from updater.publish import keys as keeping
from updater.publish import upkeep

OLD, NEW = b"old and both", random.Random(11).randbytes(100_000).hex().encode()
EXPECTED: dict[str, list[list[str]]] = {
    "release": [["small 1"], ["small 1", "small 2"]],
    "refresh": [["small 1"]],
    "rotate": [["small 1"]],
    "remove": [["small 1"], []],
    "send": [["small 0"], ["small 0", "small 1"]],
}
"""States that a reader may see, the last one being what the work leads to."""
ONCE = ("release", "remove")
"""Cannot be done again when it is done."""


def base_of(work: str, folder: Path) -> Path:
    """What a child begins with: a repository with one release, and where it is sent to, an older state of it."""
    house = publisher(folder)
    if work == "send":
        house.release("small", "0", {"a.txt": OLD})
        WORK["send"](folder)
        keeping.rotate(house.keys, ["timestamp"])
    house.release("small", "1", {"a.txt": OLD, "b.txt": NEW[:100_000]})
    (folder / "new").mkdir()
    (folder / "new" / "a.txt").write_bytes(OLD)
    (folder / "new" / "c.txt").write_bytes(NEW)
    return folder


def killed(work: str, base: Path, out: Path) -> list[int]:
    """The steps at which children died."""
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.updater.publish.dying", work, str(base), str(out), str(seed)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes = dict(map(int, line.split()) for line in done.stdout.splitlines())
    assert codes.pop(0) == 0, done.stderr
    assert set(codes.values()) == {DEAD}, done.stderr
    return list(codes)


@pytest.mark.parametrize("work", sorted(WORK))
def test_a_publisher_killed_at_any_step(work: str, tmp_path: Path) -> None:
    base = base_of(work, tmp_path / "base")
    root = (base / "keys" / "roots" / "1.root.json").read_bytes()
    steps = killed(work, base, tmp_path / "out")
    seen = []
    for step in steps:
        folder = tmp_path / "out" / str(step)
        place = folder / ("site" if work == "send" else "repository")
        client = Client(place, root, tmp_path / "state" / str(step))
        found = client.releases()
        assert names(found) in EXPECTED[work], f"step {step}"
        seen.append(names(found))
        for release in found.values():
            assert content(place, release)["a.txt"] == OLD, f"step {step}"
        if work not in ONCE or seen[-1] == EXPECTED[work][0]:
            WORK[work](folder)
        assert names(client.releases()) == EXPECTED[work][-1], f"step {step}: the next run succeeds"
        assert upkeep.check(place, root).problems == (), f"step {step}"
        hidden = [path for path in folder.rglob(".*.tmp") if work in ("refresh", "rotate")]
        assert [path for path in hidden if "repository" in path.parts] == [], f"step {step}: leavings are swept"
    assert {tuple(state) for state in seen} == {tuple(state) for state in EXPECTED[work]}, "kills before and after"


def test_the_first_release_of_all_is_begun_anew_after_a_kill(tmp_path: Path) -> None:
    base = tmp_path / "base"
    house = publisher(base)
    (base / "new").mkdir()
    (base / "new" / "a.txt").write_bytes(OLD)
    for step in killed("release", base, tmp_path / "out"):
        folder = tmp_path / "out" / str(step)
        client = Client(folder / "repository", house.root.read_bytes(), tmp_path / "state" / str(step))
        begun = (folder / "repository" / "metadata" / "timestamp.json").exists()
        if not begun:
            WORK["release"](folder)
        assert names(client.releases()) == ["small 2"], f"step {step}"
        assert upkeep.check(folder / "repository").problems == ()
