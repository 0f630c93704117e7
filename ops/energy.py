"""What the machine draws: RAPL counters, the battery, or a power meter; whichever can be read, in this order.

RAPL counts packages, and beside them the memory, which the package's figure does not hold (Intel SDM, 16.10);
cores and graphics are parts of the package and are left out, as is `psys`, which holds all of them. What always
holds: what cannot be read is absent, never zero, and a counter that was set back adds nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from ops import sysfs

GAP_S_MAX = 15.0
"""Over a longer gap (a suspended machine) power that was read at its ends says nothing."""
WATTS_MAX = 5_000.0
"""More than one zone can draw: its counter was set back, it did not wrap around."""
WINDOW_S = 60.0
METERS = ("power_meter", "fam15h_power", "zenpower")
"""hwmon drivers whose sensors may be added up: a meter of the machine, or rails beside each other."""
RAILS = ("ina2xx", "ina219", "ina226", "ina230", "ina231", "ina238", "ina260", "ina3221")
"""Drivers of boards' rails, which may feed each other: the largest counts, so that nothing counts twice."""
MICRO = 1e-6


class Energy(Struct, frozen=True):
    """What was measured up to now."""

    source: str
    watts: float
    joules: float


class Source(Protocol):
    """`used` gives the joules since it was last asked; None at first, and when they cannot be read."""

    name: str

    def used(self, at: float) -> float | None: ...


def zones(root: Path) -> list[Path]:
    """RAPL zones that together hold everything once. `intel-rapl-mmio` shows the same packages again."""
    folder = root / "class" / "powercap"
    packages: dict[str, Path] = {}
    for zone in sorted(folder.glob("intel-rapl*:*"), key=lambda path: ("mmio" in path.name, path.name)):
        name = sysfs.text(zone / "name") or ""
        place = zone.name.partition(":")[2]
        if name.startswith("package") and ":" not in place:
            packages.setdefault(name, zone)
    memory = [
        sub
        for zone in packages.values()
        for sub in sorted(folder.glob(f"{zone.name}:*"))
        if sysfs.text(sub / "name") == "dram"
    ]
    return [*packages.values(), *memory]


def counted(before: int, now: int, limit: int | None) -> int | None:
    """Microjoules between two readings of a counter that begins again after `limit`; None where they do not say."""
    if now >= before:
        return now - before
    if limit is None or before > limit:
        return None
    return limit - before + now


class Rapl:
    """The counters of all packages; also AMD's, which the kernel shows under the same names."""

    name = "rapl"

    def __init__(self, root: Path) -> None:
        self._root = root
        self._last: dict[Path, int] = {}
        self._at: float | None = None

    def used(self, at: float) -> float | None:
        now = {zone: value for zone in zones(self._root) if (value := sysfs.number(zone / "energy_uj")) is not None}
        last, since = self._last, self._at
        self._last, self._at = now, at
        if since is None or at <= since:
            return None
        found = []
        for zone, value in now.items():
            if zone in last:
                limit = sysfs.number(zone / "max_energy_range_uj")
                used = counted(last[zone], value, limit)
                if used is not None and used * MICRO / (at - since) <= WATTS_MAX:
                    found.append(used)
        return sum(found) * MICRO if found else None

    def forbidden(self) -> Path | None:
        """A counter that may not be read, where none may."""
        files = [zone / "energy_uj" for zone in zones(self._root)]
        return files[0] if files and all(sysfs.forbidden(file) for file in files) else None


class _Drawn:
    """A source that tells watts: joules are these times the seconds in between."""

    name = ""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._last: tuple[float, float] | None = None

    def watts(self) -> float | None:
        raise NotImplementedError

    def used(self, at: float) -> float | None:
        watts, last = self.watts(), self._last
        self._last = None if watts is None else (at, watts)
        if watts is None or last is None or not 0 < at - last[0] <= GAP_S_MAX:
            return None
        return (last[1] + watts) / 2 * (at - last[0])


class Battery(_Drawn):
    """What batteries give, while they do; on mains they tell nothing of the machine."""

    name = "battery"

    def watts(self) -> float | None:
        found = [
            watts
            for folder in sysfs.batteries(self._root)
            if sysfs.text(folder / "status") == "Discharging" and (watts := _of_battery(folder)) is not None
        ]
        return sum(found) if found else None


def _of_battery(folder: Path) -> float | None:
    power = sysfs.number(folder / "power_now")
    if power:
        return abs(power) * MICRO
    current, voltage = sysfs.number(folder / "current_now"), sysfs.number(folder / "voltage_now")
    if not current or not voltage:  # some drivers say 0 for what they do not know
        return None
    return abs(current) * MICRO * voltage * MICRO


class Hwmon(_Drawn):
    """A power meter of the machine, or its board's main rail."""

    name = "hwmon"

    def watts(self) -> float | None:
        chips: dict[str, list[float]] = {}
        for folder in sorted((self._root / "class" / "hwmon").glob("hwmon*")):
            name = sysfs.text(folder / "name") or ""
            if name in METERS or name in RAILS:
                chips.setdefault(name, []).extend(_of_chip(folder))
        for name in METERS:
            if chips.get(name):
                return sum(chips[name])
        rails = [watts for values in chips.values() for watts in values]
        return max(rails, default=None)


def _of_chip(folder: Path) -> list[float]:
    """Watts of each sensor of a chip, its average where it has no reading of now."""
    files = {path.name.partition("_")[0]: path for path in sorted(folder.glob("power*_average"))}
    files |= {path.name.partition("_")[0]: path for path in sorted(folder.glob("power*_input"))}
    found = [sysfs.number(path) for path in files.values()]
    return [value * MICRO for value in found if value is not None and value >= 0]


class Meter:
    """The first source that tells anything, each time it is asked."""

    def __init__(self, root: Path) -> None:
        self.rapl = Rapl(root)
        self._sources: tuple[Source, ...] = (self.rapl, Battery(root), Hwmon(root))
        self._at: float | None = None
        self._joules = 0.0

    def read(self, at: float) -> Energy | None:
        """Measure up to `at`, monotonic seconds; None while nothing can be read."""
        since, self._at = self._at, at
        used = [(source.name, joules) for source in self._sources if (joules := source.used(at)) is not None]
        if not used or since is None:
            return None
        name, joules = used[0]
        self._joules += joules
        return Energy(name, joules / (at - since), self._joules)


def gained(before: Mapping[str, int], now: Mapping[str, int]) -> int:
    """Tokens generated between two looks at the models' counters; one that was set back has begun again at 0."""
    total = 0
    for key, tokens in now.items():
        old = before.get(key, tokens)
        total += tokens - old if tokens >= old else tokens
    return total


class Yield:
    """Tokens per joule over the last minute of unbroken measurement."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, float]] = deque()
        self._counters: dict[str, int] | None = None
        self._tokens = 0

    def look(self, at: float, counters: Mapping[str, int], joules: float | None) -> float | None:
        """`counters`: tokens of each model by its row; None while there is nothing to divide."""
        self._tokens += gained(self._counters, counters) if self._counters is not None else 0
        self._counters = {**(self._counters or {}), **counters}  # a row that is not seen once begins no new count
        if joules is None:
            self._seen.clear()
            return None
        self._seen.append((at, self._tokens, joules))
        while len(self._seen) > 2 and self._seen[1][0] <= at - WINDOW_S:
            self._seen.popleft()
        _, tokens, used = self._seen[0]
        tokens, used = self._tokens - tokens, joules - used
        return tokens / used if tokens > 0 and used > 0 else None
