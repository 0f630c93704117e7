"""Values under /sys, on made trees; files that are absent, closed, garbage or just gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import sysfs
from tests.ops.trees import board, container, laptop, server


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"42\n", 42),
        (b"-7", -7),
        (b"", None),
        (b"\n", None),
        (b"4 2", None),
        (b"0x10", None),
        (b"\xff\xfe\x00", None),
        (b"nan", None),
        (b"--1", None),
        ("٣".encode(), None),
        (b"9" * 21, None),
        (b"1" * 100_000, None),
    ],
)
def test_a_number_is_a_number_or_nothing(tmp_path: Path, content: bytes, value: int | None) -> None:
    (tmp_path / "file").write_bytes(content)
    assert sysfs.number(tmp_path / "file") == value


def test_what_is_no_file_is_nothing(tmp_path: Path) -> None:
    assert sysfs.text(tmp_path) is None
    assert sysfs.number(tmp_path / "absent") is None
    assert sysfs.words(tmp_path / "absent") == ()


def test_a_write_that_fails_says_where_and_why_and_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "scaling_governor"
    assert sysfs.write(file, "powersave") == f"{file}: No such file or directory"
    assert not file.exists()
    file.write_text("performance\n")
    assert sysfs.write(file, "powersave") == ""
    assert sysfs.text(file) == "powersave"


def test_the_root_is_what_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(sysfs.ROOT, raising=False)
    assert sysfs.root() == Path("/sys")
    monkeypatch.setenv(sysfs.ROOT, str(tmp_path))
    assert sysfs.root() == tmp_path


def test_the_clocks_of_each_machine(tmp_path: Path) -> None:
    assert [clock.driver for clock in sysfs.clocks(laptop(tmp_path / "laptop").root)] == ["intel_pstate"] * 4
    assert all(clock.preferences == () for clock in sysfs.clocks(server(tmp_path / "server").root))
    assert [clock.folder.name for clock in sysfs.clocks(board(tmp_path / "board").root)] == ["policy0", "policy4"]
    assert sysfs.clocks(tmp_path / "nothing") == []


def test_mains_and_battery(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "laptop")
    assert sysfs.on_battery(tree.root) is False
    tree.plug(False)
    assert sysfs.on_battery(tree.root) is True
    tree.put("class/power_supply/usb", type="USB", online=1)
    assert sysfs.on_battery(tree.root) is False, "charged over USB"


@pytest.mark.parametrize(
    ("online", "status", "answer"),
    [
        (None, "Discharging", True),
        (None, "Full", False),
        (None, "", None),
        (0, "Unknown", True),
        (0, "Full", False),
        (1, "Not charging", False),
        ("rubbish", "Charging", False),
        ("rubbish", "Discharging", True),
    ],
)
def test_what_a_battery_says_counts_where_mains_say_nothing(
    tmp_path: Path, online: object, status: str, answer: bool | None
) -> None:
    tree = laptop(tmp_path)
    if online is None:
        for file in (tmp_path / "class/power_supply/AC").iterdir():
            file.unlink()
    else:
        tree.put("class/power_supply/AC", online=online)
    tree.put("class/power_supply/BAT0", status=status)
    assert sysfs.on_battery(tmp_path) is answer


def test_a_machine_without_a_battery_is_on_neither(tmp_path: Path) -> None:
    assert sysfs.on_battery(server(tmp_path / "server").root) is None
    assert sysfs.on_battery(container(tmp_path / "container").root) is None
    tree = laptop(tmp_path / "bay")
    tree.plug(False)
    tree.put("class/power_supply/BAT0", present=0)
    assert sysfs.on_battery(tree.root) is None, "an empty bay"
