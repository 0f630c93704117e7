"""The policy: every transition, and that it does not flap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.power import HOLD_S, PLUG_S, Seen, Stand, begin, governor, preference, profile, step, under_load
from schemas.config import PowerConfig
from schemas.power import LEVELS, Level

BALANCED = PowerConfig(profile="balanced", idle_after_s=30.0)
ACTIVE = ("performance", "powersave")
FREE = ("conservative", "ondemand", "userspace", "powersave", "performance", "schedutil")
PREFERENCES = ("default", "performance", "balance_performance", "balance_power", "power")


def seen(at: float, *, working: bool = False, on_battery: bool | None = None) -> Seen:
    return Seen(at=at, working=working, on_battery=on_battery)


def after(*looks: Seen, config: PowerConfig = BALANCED) -> Stand:
    """Where these looks, in turn, lead."""
    stand = begin(config, looks[0])
    for look in looks[1:]:
        stand = step(config, stand, look)
    return stand


@pytest.mark.parametrize(("name", "level"), [("performance", "full"), ("saver", "low")])
def test_a_fixed_profile_stays_where_it_is(name: str, level: Level) -> None:
    config = PowerConfig(profile=name)
    looks = [
        seen(at, working=working, on_battery=on_battery)
        for at, working, on_battery in [(0, False, None), (1, True, False), (90, False, False), (200, False, True)]
    ]
    for count in range(1, len(looks) + 1):
        assert after(*looks[:count], config=config).level == level
    assert under_load(config, True) == under_load(config, False) == level


def test_balanced_begins_in_the_middle_and_is_low_when_nothing_comes() -> None:
    assert after(seen(0)).level == "normal"
    assert after(seen(0), seen(29.9)).level == "normal"
    assert after(seen(0), seen(30)).level == "low"


def test_work_raises_at_once() -> None:
    assert after(seen(0, working=True)).level == "full"
    assert after(seen(0), seen(60), seen(60.1, working=True)).level == "full"


def test_after_work_it_falls_step_by_step() -> None:
    worked = [seen(0), seen(100, working=True)]
    assert after(*worked, seen(100 + HOLD_S - 0.1)).level == "full"
    assert after(*worked, seen(100 + HOLD_S)).level == "normal"
    assert after(*worked, seen(129.9)).level == "normal"
    assert after(*worked, seen(130)).level == "low"


def test_a_rest_that_is_shorter_than_the_hold_is_kept_to() -> None:
    config = PowerConfig(idle_after_s=1.0)
    assert after(seen(0, working=True), seen(0.9), config=config).level == "full"
    assert after(seen(0, working=True), seen(1.0), config=config).level == "low"


def test_nothing_but_work_raises() -> None:
    low = [seen(0, on_battery=True), seen(60, on_battery=True)]
    plugged_in = [*low, seen(61, on_battery=False), seen(61 + PLUG_S, on_battery=False)]
    assert after(*plugged_in).on_battery is False
    assert after(*plugged_in).level == "low"


def test_on_battery_work_raises_to_normal_and_rest_lowers_soon() -> None:
    assert after(seen(0, on_battery=True), seen(1, working=True, on_battery=True)).level == "normal"
    worked = [seen(0, working=True, on_battery=True)]
    assert after(*worked, seen(HOLD_S - 0.1, on_battery=True)).level == "normal"
    assert after(*worked, seen(HOLD_S, on_battery=True)).level == "low"
    assert under_load(BALANCED, True) == "normal"
    assert under_load(BALANCED, False) == under_load(BALANCED, None) == "full"


def test_pulling_the_plug_under_load_lowers_once_it_has_stayed_out() -> None:
    mains = [seen(0, working=True, on_battery=False), seen(10, working=True, on_battery=True)]
    assert after(*mains).level == "full"
    assert after(*mains, seen(10 + PLUG_S - 0.1, working=True, on_battery=True)).level == "full"
    assert after(*mains, seen(10 + PLUG_S, working=True, on_battery=True)).level == "normal"


def test_a_plug_that_wavers_changes_nothing() -> None:
    looks = [seen(0, working=True, on_battery=False)]
    looks += [seen(at * 2.0, working=True, on_battery=at % 2 == 1) for at in range(1, 100)]
    levels = {after(*looks[:count]).level for count in range(1, len(looks) + 1)}
    assert levels == {"full"}


@given(st.lists(st.tuples(st.floats(0.01, 20), st.booleans()), min_size=1, max_size=60))
def test_it_never_changes_more_often_than_work_comes_and_goes(steps: list[tuple[float, bool]]) -> None:
    """Between two pieces of work it only falls, never below the next step without its rest, and work is always full."""
    stand, at, worked_at = begin(BALANCED, seen(0)), 0.0, 0.0
    for wait, working in steps:
        at += wait
        old, stand = stand, step(BALANCED, stand, seen(at, working=working))
        if working:
            worked_at = at
            assert stand.level == "full"
        else:
            assert LEVELS.index(stand.level) <= LEVELS.index(old.level)
            if stand.level == "low" != old.level:
                assert at - worked_at >= BALANCED.idle_after_s
            if at - worked_at < HOLD_S:
                assert stand.level == old.level


@pytest.mark.parametrize(
    ("driver", "offered", "names"),
    [
        ("intel_pstate", ACTIVE, ("powersave", "powersave", "performance")),
        ("amd-pstate-epp", ACTIVE, ("powersave", "powersave", "performance")),
        ("acpi-cpufreq", FREE, ("conservative", "schedutil", "performance")),
        ("intel_cpufreq", ("performance", "schedutil"), ("schedutil", "schedutil", "performance")),
        ("cpufreq-dt", ("ondemand", "userspace"), ("ondemand", "ondemand", "ondemand")),
        ("cpufreq-dt", ACTIVE, (None, None, "performance")),
        ("", (), (None, None, None)),
    ],
)
def test_only_a_governor_that_the_driver_offers_is_chosen_and_none_that_pins_the_clock(
    driver: str, offered: tuple[str, ...], names: tuple[str | None, ...]
) -> None:
    assert tuple(governor(level, driver, offered) for level in LEVELS) == names


@pytest.mark.parametrize(
    ("offered", "names"),
    [
        (PREFERENCES, ("power", "balance_performance", "performance")),
        (("default", "balance_power"), ("balance_power", "default", None)),
        (("performance",), (None, None, "performance")),
        ((), (None, None, None)),
    ],
)
def test_only_a_preference_that_the_driver_offers_is_chosen(
    offered: tuple[str, ...], names: tuple[str | None, ...]
) -> None:
    assert tuple(preference(level, offered) for level in LEVELS) == names


def test_the_daemons_profiles() -> None:
    three = ("performance", "balanced", "power-saver")
    assert [profile(level, three) for level in LEVELS] == ["power-saver", "balanced", "performance"]
    assert [profile(level, three[1:]) for level in LEVELS] == ["power-saver", "balanced", "balanced"]
