"""Watts and joules, on made trees: several packages, wrap-around, batteries, meters, and what cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ops.energy import Battery, Hwmon, Meter, Rapl, Yield, counted, gained, zones
from tests.ops.trees import MAX_RANGE, board, container, laptop, server


def test_packages_and_their_memory_count_once(tmp_path: Path) -> None:
    assert [zone.name for zone in zones(laptop(tmp_path / "laptop").root)] == ["intel-rapl:0"]
    found = [zone.name for zone in zones(server(tmp_path / "server").root)]
    assert found == ["intel-rapl:0", "intel-rapl:1", "intel-rapl:0:1"]
    assert zones(board(tmp_path / "board").root) == []


def test_a_machine_that_shows_its_package_over_mmio_alone_is_measured(tmp_path: Path) -> None:
    tree = laptop(tmp_path)
    for zone in tmp_path.glob("class/powercap/intel-rapl:*"):
        shutil.rmtree(zone)
    tree.put("class/powercap/intel-rapl-mmio:0", energy_uj=1_000_000)
    assert [zone.name for zone in zones(tmp_path)] == ["intel-rapl-mmio:0"]


def test_rapl_adds_all_packages_up(tmp_path: Path) -> None:
    tree = server(tmp_path)
    rapl = Rapl(tmp_path)
    assert rapl.used(100.0) is None, "one reading says nothing"
    tree.put("class/powercap/intel-rapl:0", energy_uj=25_000_000)
    tree.put("class/powercap/intel-rapl:0:0", energy_uj=22_000_000)
    tree.put("class/powercap/intel-rapl:0:1", energy_uj=3_400_000)
    tree.put("class/powercap/intel-rapl:1", energy_uj=8_000_000)
    assert rapl.used(102.0) == pytest.approx(20 + 3 + 1)
    assert rapl.used(104.0) == 0.0


@pytest.mark.parametrize(
    ("before", "now", "limit", "used"),
    [
        (5, 9, 10, 4),
        (9, 9, 10, 0),
        (9, 2, 10, 3),
        (10, 0, 10, 0),
        (9, 2, None, None),
        (12, 2, 10, None),
    ],
)
def test_a_counter_that_begins_again(before: int, now: int, limit: int | None, used: int | None) -> None:
    assert counted(before, now, limit) == used


def test_a_counter_that_wraps_around_goes_on(tmp_path: Path) -> None:
    tree = laptop(tmp_path)
    tree.zone("intel-rapl:0", "package-0", MAX_RANGE - 4_000_000)
    rapl = Rapl(tmp_path)
    rapl.used(0.0)
    tree.zone("intel-rapl:0", "package-0", 6_000_000)
    assert rapl.used(2.0) == pytest.approx(10.0)


def test_a_counter_that_was_set_back_adds_nothing(tmp_path: Path) -> None:
    tree = laptop(tmp_path)
    tree.zone("intel-rapl:0", "package-0", 90_000_000_000)
    rapl = Rapl(tmp_path)
    rapl.used(0.0)
    tree.zone("intel-rapl:0", "package-0", 0)  # after a suspend; as a wrap-around it would be 172 kJ in 2 s
    assert rapl.used(2.0) is None
    tree.zone("intel-rapl:0", "package-0", 30_000_000)
    assert rapl.used(4.0) == pytest.approx(30.0)


def test_a_zone_that_vanishes_or_turns_to_rubbish_is_left_out_and_comes_back(tmp_path: Path) -> None:
    tree = server(tmp_path)
    rapl = Rapl(tmp_path)
    rapl.used(0.0)
    shutil.rmtree(tmp_path / "class/powercap/intel-rapl:1")
    tree.put("class/powercap/intel-rapl:0:1", energy_uj=b"\xff\x00rubbish")
    tree.put("class/powercap/intel-rapl:0", energy_uj=9_000_000)
    assert rapl.used(1.0) == pytest.approx(4.0)
    tree.zone("intel-rapl:1", "package-1", 50_000_000)
    assert rapl.used(2.0) == 0.0, "what it counted meanwhile is unknown"
    tree.zone("intel-rapl:1", "package-1", 51_000_000)
    assert rapl.used(3.0) == pytest.approx(1.0)
    shutil.rmtree(tmp_path / "class/powercap")
    assert rapl.used(4.0) is None


def test_a_battery_tells_watts_while_it_gives_them(tmp_path: Path) -> None:
    tree = laptop(tmp_path)
    battery = Battery(tmp_path)
    tree.put("class/power_supply/BAT0", power_now=9_000_000)
    assert battery.watts() is None, "on mains it is charged: that is not what the machine draws"
    tree.plug(False)
    assert battery.watts() == pytest.approx(9.0)
    tree.put("class/power_supply/BAT1", type="Battery", status="Discharging", current_now=-500_000,
             voltage_now=12_000_000)  # fmt: skip
    assert battery.watts() == pytest.approx(9.0 + 6.0)
    tree.put("class/power_supply/BAT0", power_now=b"rubbish", current_now="")
    assert battery.watts() == pytest.approx(6.0)
    tree.put("class/power_supply/BAT1", current_now=0)
    assert battery.watts() is None, "0 is what some drivers say for what they do not know"


def test_a_meter_counts_before_rails_and_of_rails_the_largest(tmp_path: Path) -> None:
    assert Hwmon(server(tmp_path / "server").root).watts() == pytest.approx(211.0)
    tree = board(tmp_path / "board")
    assert Hwmon(tree.root).watts() == pytest.approx(6.25)
    assert Hwmon(laptop(tmp_path / "laptop").root).watts() is None, "a battery's sensor is no meter"
    tree.put("class/hwmon/hwmon1", power1_input="rubbish")
    assert Hwmon(tree.root).watts() == pytest.approx(2.5)


def test_the_first_source_that_can_be_read_counts_and_joules_add_up(tmp_path: Path) -> None:
    tree = laptop(tmp_path)
    tree.put("class/power_supply/BAT0", power_now=12_000_000)
    meter = Meter(tmp_path)
    assert meter.read(0.0) is None
    tree.put("class/powercap/intel-rapl:0", energy_uj=21_000_000)
    first = meter.read(2.0)
    assert first is not None
    assert (first.source, first.watts, first.joules) == ("rapl", pytest.approx(10.0), pytest.approx(20.0))
    shutil.rmtree(tmp_path / "class/powercap")
    assert meter.read(4.0) is None, "nothing to be read: absent, not zero"
    tree.plug(False)
    assert meter.read(6.0) is None
    later = meter.read(8.0)
    assert later is not None
    assert (later.source, later.watts, later.joules) == ("battery", pytest.approx(12.0), pytest.approx(44.0))


def test_a_suspended_machine_adds_nothing(tmp_path: Path) -> None:
    tree = laptop(tmp_path)
    tree.plug(False)
    tree.put("class/power_supply/BAT0", power_now=12_000_000)
    battery = Battery(tmp_path)
    battery.used(0.0)
    assert battery.used(3600.0) is None
    assert battery.used(3602.0) == pytest.approx(24.0)


def test_a_machine_that_tells_nothing_has_no_energy(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    assert [meter.read(float(at)) for at in range(4)] == [None] * 4
    assert meter.rapl.forbidden() is None
    assert Meter(container(tmp_path / "c").root).read(0.0) is None


def test_tokens_gained_between_two_looks() -> None:
    assert gained({"a": 10, "b": 5}, {"a": 25, "b": 5}) == 15
    assert gained({"a": 10}, {"a": 4}) == 4, "its worker was started anew"
    assert gained({}, {"a": 1000}) == 0, "generated before anybody looked"
    assert gained({"a": 10}, {}) == 0


def test_tokens_per_joule_are_those_of_the_last_minute() -> None:
    yields = Yield()
    assert yields.look(0, {"a": 100}, 50.0) is None
    assert yields.look(10, {"a": 100}, 60.0) is None, "nothing was generated"
    assert yields.look(20, {"a": 160}, 80.0) == pytest.approx(60 / 30)
    assert yields.look(75, {"a": 160}, 110.0) == pytest.approx(60 / 50)
    assert yields.look(140, {"a": 160}, 120.0) is None, "more than a minute ago"
    assert yields.look(150, {"a": 170}, 122.0) == pytest.approx(10 / 12)
    assert yields.look(160, {"a": 180}, None) is None
    assert yields.look(170, {"a": 190}, 130.0) is None, "measured anew from here on"
    assert yields.look(180, {"a": 200}, 140.0) == pytest.approx(1.0)


def test_a_row_that_is_not_seen_once_loses_no_tokens() -> None:
    yields = Yield()
    yields.look(0.0, {"a": 10}, 100.0)
    yields.look(1.0, {}, 110.0)
    assert yields.look(2.0, {"a": 40}, 115.0) == 30 / 15
