"""The processor's settings on made trees, and through a program that speaks as `powerprofilesctl` does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ops.processor import PROGRAM, Processor
from schemas.power import Level
from tests.ops.trees import CPUFREQ, Tree, board, laptop, server

STATE = Path("run") / "power.json"


@pytest.fixture(autouse=True)
def _no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine's own power-profiles-daemon is none of the tests' business."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def opened(tmp_path: Path, tree: Tree) -> Processor:
    processor = Processor(tmp_path / "data", tree.root)
    assert processor.restore().failed == []
    processor.open()
    return processor


@pytest.mark.parametrize(
    ("level", "governor", "preference"),
    [
        ("full", "performance", "performance"),
        ("normal", "powersave", "balance_performance"),
        ("low", "powersave", "power"),
    ],
)
def test_each_level_on_a_laptop(tmp_path: Path, level: Level, governor: str, preference: str) -> None:
    tree = laptop(tmp_path / "sys")
    processor = opened(tmp_path, tree)
    assert processor.sets == "sysfs"
    assert processor.apply(level) == []
    assert (tree.governors(), tree.preferences()) == ({governor}, {preference})
    assert processor.restore().failed == []
    assert (tree.governors(), tree.preferences()) == ({"powersave"}, {"balance_power"})
    assert not (tmp_path / "data" / STATE).exists()


def test_each_level_on_a_server(tmp_path: Path) -> None:
    tree = server(tmp_path / "sys")
    processor = opened(tmp_path, tree)
    seen = []
    for level in ("full", "normal", "low"):
        assert processor.apply(level) == []
        seen.append(tree.governors())
    assert seen == [{"performance"}, {"schedutil"}, {"conservative"}]
    processor.restore()
    assert tree.governors() == {"ondemand"}


def test_a_driver_that_offers_nothing_that_fits_goes_back_to_what_was_there(tmp_path: Path) -> None:
    """The board's large cluster offers only the highest and the lowest clock."""
    tree = board(tmp_path / "sys")
    tree.put(f"{CPUFREQ}/policy4", scaling_governor="powersave")
    processor = opened(tmp_path, tree)
    processor.apply("full")
    assert tree.governors() == {"performance"}
    processor.apply("low")
    assert tree.get(f"{CPUFREQ}/policy4/scaling_governor") == "powersave"
    assert tree.get(f"{CPUFREQ}/policy0/scaling_governor") == "conservative"


def test_preferences_are_read_anew_after_the_governor(tmp_path: Path) -> None:
    """amd-pstate offers `performance` alone while that is the governor."""
    tree = Tree(tmp_path / "sys")
    tree.clocks(1, "amd-pstate-epp", "performance powersave", "performance", "performance", "performance")
    os.remove(tree.root / CPUFREQ / "policy0/energy_performance_available_preferences")
    everything = "performance balance_performance power"
    processor = opened(tmp_path, tree)
    tree.put(f"{CPUFREQ}/policy0", energy_performance_available_preferences=everything)
    processor.apply("low")
    assert (tree.governors(), tree.preferences()) == ({"powersave"}, {"power"})


def test_nothing_is_written_that_is_so_already(tmp_path: Path) -> None:
    tree = server(tmp_path / "sys")
    for file in (tree.root / CPUFREQ).glob("*/scaling_governor"):
        file.write_text("schedutil\n")
    before = {file: file.stat().st_mtime_ns for file in tree.root.rglob("*")}
    opened(tmp_path, tree).apply("normal")
    assert {file: file.stat().st_mtime_ns for file in tree.root.rglob("*")} == before
    assert not (tmp_path / "data" / STATE).exists()


def test_what_a_killed_process_left_is_put_back_at_the_next_start(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "sys")
    killed = opened(tmp_path, tree)
    killed.apply("full")
    killed.apply("low")
    assert tree.preferences() == {"power"}
    again = Processor(tmp_path / "data", tree.root).restore()
    assert (again.count, again.failed) == (8, [])
    assert Processor(tmp_path / "data", tree.root).restore().count == 0, "once"
    assert (tree.governors(), tree.preferences()) == ({"powersave"}, {"balance_power"})


def test_killed_between_note_and_write_the_old_value_stays(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "sys")
    opened(tmp_path, tree).apply("full")
    for name in ("scaling_governor", "energy_performance_preference"):
        (tree.root / CPUFREQ / "policy2" / name).write_text("balance_power\n" if "energy" in name else "powersave\n")
    opened(tmp_path, tree)
    assert (tree.governors(), tree.preferences()) == ({"powersave"}, {"balance_power"})


def test_what_somebody_else_has_set_meanwhile_stays_theirs(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "sys")
    processor = opened(tmp_path, tree)
    processor.apply("full")
    tree.put(f"{CPUFREQ}/policy1", energy_performance_preference="default")
    processor.restore()
    assert tree.get(f"{CPUFREQ}/policy1/energy_performance_preference") == "default"
    assert tree.get(f"{CPUFREQ}/policy0/energy_performance_preference") == "balance_power"


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff\x00rubbish",
        b'{"boot": 5}',
        b'{"boot": "another", "root": "ROOT", "by": "sysfs", "values": {"FILE": {"was": "powersave", "ours": ["x"]}}}',
        b'{"boot": "BOOT", "root": "/elsewhere", "by": "sysfs", "values": {"FILE": {"was": "y", "ours": ["x"]}}}',
        b'{"boot": "BOOT", "root": "ROOT", "by": "sysfs", "values": {"../victim": {"was": "y", "ours": ["x"]}}}',
        b'{"boot": "BOOT", "root": "ROOT", "by": "sysfs", "values": {"other/file": {"was": "y", "ours": ["x"]}}}',
    ],
)
def test_a_note_of_another_boot_another_tree_or_no_note_at_all_is_not_gone_by(tmp_path: Path, note: bytes) -> None:
    tree = laptop(tmp_path / "sys")
    setting = f"{CPUFREQ}/policy0/scaling_governor"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    tree.put(f"{CPUFREQ}/policy0", scaling_governor="x")
    tree.put("other", file="x")
    (tmp_path / "victim").write_text("x\n")
    file = tmp_path / "data" / STATE
    file.parent.mkdir(parents=True)
    text = note.replace(b"BOOT", boot.encode()).replace(b"ROOT", str(tree.root).encode())
    file.write_bytes(text.replace(b"FILE", setting.encode()))
    opened(tmp_path, tree)
    assert (tree.get(setting), tree.get("other/file"), (tmp_path / "victim").read_text()) == ("x", "x", "x\n")


def test_a_note_of_this_boot_and_tree_is_gone_by(tmp_path: Path) -> None:
    """So that the test above cannot pass for another reason."""
    tree = laptop(tmp_path / "sys")
    opened(tmp_path, tree).apply("full")
    note = json.loads((tmp_path / "data" / STATE).read_bytes())
    assert note["root"] == str(tree.root)
    assert note["values"][f"{CPUFREQ}/policy0/scaling_governor"] == {"was": "powersave", "ours": ["performance"]}


def test_processors_that_go_away_meanwhile_are_told_and_the_others_set(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "sys")
    processor = opened(tmp_path, tree)
    processor.apply("full")
    shutil.rmtree(tree.root / CPUFREQ / "policy3")
    os.remove(tree.root / CPUFREQ / "policy2/energy_performance_preference")
    os.mkdir(tree.root / CPUFREQ / "policy2/energy_performance_preference")
    assert processor.apply("low") == []
    assert tree.get(f"{CPUFREQ}/policy0/energy_performance_preference") == "power"
    assert processor.restore().failed == []
    assert tree.governors() == {"powersave"}


def test_what_could_not_be_put_back_is_not_changed(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "sys")
    (tmp_path / "data").write_text("a file where the data folder should be")
    processor = Processor(tmp_path / "data", tree.root)
    processor.open()
    failed = processor.apply("full")
    assert len(failed) == 1
    assert "power.json" in failed[0]
    assert tree.governors() == {"powersave"}


def test_a_machine_without_cpufreq_has_nothing_to_set(tmp_path: Path) -> None:
    processor = opened(tmp_path, Tree(tmp_path / "sys"))
    assert processor.sets == ""
    assert processor.apply("full") == []


# -- power-profiles-daemon ---------------------------------------------------------------------------------------

CONTROL = """#!/bin/sh
# Speaks as powerprofilesctl 0.21 does; the profile is in a file, and another says what is wrong.
cd "$(/usr/bin/dirname "$0")"
case "$(/bin/cat trouble 2>/dev/null)" in
  hang) exec /bin/sleep 60 ;;
  away) echo "Failed to communicate with power-profiles-daemon: g-dbus-error-quark" >&2; exit 1 ;;
  refuse) [ "$1" = set ] && { echo "Failed to communicate with power-profiles-daemon: Not Authorized" >&2; exit 1; } ;;
esac
case "$1" in
  get) /bin/cat profile ;;
  set) echo "$2" > profile ;;
  list) printf '  performance:\\n    CpuDriver:\\tintel_pstate\\n    Degraded:   no\\n\\n'
        printf '* balanced:\\n    PlatformDriver:\\tplaceholder\\n\\n  power-saver:\\n' ;;
esac
"""


@pytest.fixture
def control(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / PROGRAM
    program.write_text(CONTROL)
    program.chmod(0o755)
    (folder / "profile").write_text("balanced\n")
    return folder


def test_the_daemon_comes_before_sysfs(tmp_path: Path, control: Path) -> None:
    tree = laptop(tmp_path / "sys")
    processor = opened(tmp_path, tree)
    assert processor.sets == "power-profiles-daemon"
    seen = []
    for level in ("full", "low", "normal", "full"):
        assert processor.apply(level) == []
        seen.append((control / "profile").read_text().strip())
    assert seen == ["performance", "power-saver", "balanced", "performance"]
    assert (tree.governors(), tree.preferences()) == ({"powersave"}, {"balance_power"}), "sysfs is the daemon's"
    assert Processor(tmp_path / "data", tree.root).restore().count == 1, "after a kill"
    assert (control / "profile").read_text() == "balanced\n"


def test_a_profile_that_a_person_has_chosen_meanwhile_stays(tmp_path: Path, control: Path) -> None:
    processor = opened(tmp_path, laptop(tmp_path / "sys"))
    processor.apply("full")
    (control / "profile").write_text("power-saver\n")
    processor.restore()
    assert (control / "profile").read_text() == "power-saver\n"


def test_a_daemon_that_does_not_answer_leaves_sysfs(tmp_path: Path, control: Path) -> None:
    (control / "trouble").write_text("away")
    tree = laptop(tmp_path / "sys")
    processor = opened(tmp_path, tree)
    assert processor.sets == "sysfs"
    assert processor.apply("full") == []
    assert tree.governors() == {"performance"}


def test_a_daemon_that_refuses_is_told_with_its_reason(tmp_path: Path, control: Path) -> None:
    processor = opened(tmp_path, laptop(tmp_path / "sys"))
    (control / "trouble").write_text("refuse")
    assert processor.apply("full") == [
        f"{PROGRAM} set: Failed to communicate with power-profiles-daemon: Not Authorized"
    ]
    assert (control / "profile").read_text() == "balanced\n"


def test_a_daemon_that_hangs_is_left_within_the_limit_and_what_is_to_be_put_back_stays_noted(
    tmp_path: Path, control: Path
) -> None:
    processor = Processor(tmp_path / "data", laptop(tmp_path / "sys").root, limit_s=0.5)
    processor.open()
    processor.apply("full")
    (control / "trouble").write_text("hang")
    assert processor.apply("low") == [f"{PROGRAM} get: no answer within 0.5 s"]
    assert processor.restore().failed == [f"{PROGRAM} get: no answer within 0.5 s"]
    (control / "trouble").unlink()
    assert Processor(tmp_path / "data", tmp_path / "sys").restore().count == 1
    assert (control / "profile").read_text() == "balanced\n"
