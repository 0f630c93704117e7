"""Sets the processor's power for a level, and puts back what was there before.

Through power-profiles-daemon where it answers, else through cpufreq in sysfs. What always holds: before a value is
changed for the first time, the one that was there is written to `data/run/power.json`, so that it is put back also
after a kill, at the next start; a value that somebody else has changed meanwhile is theirs and stays; a value that
the driver does not offer is never written.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from bus.credentials import write_private
from ops import power, sysfs
from schemas.errors import Retryable
from schemas.power import Level

BOOT = Path("/proc/sys/kernel/random/boot_id")
PROGRAM = "powerprofilesctl"
PROGRAM_S = 5.0
"""It asks over D-Bus, which may hang."""
PROFILE = "profile"
OURS = re.compile(rf"{PROFILE}|devices/system/cpu/cpufreq/policy\d+/({sysfs.GOVERNOR}|{sysfs.PREFERENCE})")
"""Settings that we write; a state file that names others is not ours."""


class Value(Struct):
    """What a setting was; and what we make of it now, after what we made of it before."""

    was: str
    ours: list[str] = []


class Before(Struct):
    """The state file. After a boot the kernel has its own values again, and nothing is put back."""

    boot: str
    root: str
    by: str
    values: dict[str, Value] = {}


class Way(Protocol):
    """One way to the processor's settings, each a name and a value."""

    name: str

    def now(self, setting: str) -> str | None:
        """The value as it is, None when it is not there; raises `Retryable` when nobody says."""
        ...

    def write(self, setting: str, value: str) -> str:
        """Returns why it failed, or nothing."""
        ...

    def wanted(self, level: Level, kind: str) -> list[tuple[str, str | None]]:
        """Settings of one kind and their values for `level`; None: what was there before."""
        ...

    kinds: tuple[str, ...]
    """In the order in which they must be written."""


class Cpufreq:
    """Governor first: while it is `performance`, drivers offer no other preference and refuse what is written."""

    name = "sysfs"
    kinds: tuple[str, ...] = (sysfs.GOVERNOR, sysfs.PREFERENCE)

    def __init__(self, root: Path) -> None:
        self._root = root

    def now(self, setting: str) -> str | None:
        return sysfs.text(self._root / setting)

    def write(self, setting: str, value: str) -> str:
        return sysfs.write(self._root / setting, value)

    def wanted(self, level: Level, kind: str) -> list[tuple[str, str | None]]:
        found: list[tuple[str, str | None]] = []
        for clock in sysfs.clocks(self._root):
            setting = str((clock.folder / kind).relative_to(self._root))
            if kind == sysfs.GOVERNOR and clock.governors:
                found.append((setting, power.governor(level, clock.driver, clock.governors)))
            elif kind == sysfs.PREFERENCE and clock.preferences:
                found.append((setting, power.preference(level, clock.preferences)))
        return found


class Daemon:
    """power-profiles-daemon through its own program."""

    name = "power-profiles-daemon"
    kinds: tuple[str, ...] = (PROFILE,)

    def __init__(self, program: str, limit_s: float) -> None:
        self._program = program
        self._limit_s = limit_s
        self._offered: tuple[str, ...] = ()

    def answers(self) -> bool:
        done, _ = self._run("list")
        self._offered = tuple(re.findall(r"^[* ] ([a-z-]+):$", done, re.MULTILINE))
        return bool(self._offered)

    def now(self, setting: str) -> str | None:
        done, reason = self._run("get")
        if reason:
            raise Retryable(reason)
        return done.strip()

    def write(self, setting: str, value: str) -> str:
        return self._run("set", value)[1]

    def wanted(self, level: Level, kind: str) -> list[tuple[str, str | None]]:
        return [(kind, power.profile(level, self._offered))]

    def _run(self, *arguments: str) -> tuple[str, str]:
        """What it printed, and why it failed, if so."""
        try:
            done = subprocess.run(
                [self._program, *arguments], capture_output=True, text=True, errors="replace", timeout=self._limit_s,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "", f"{PROGRAM} {arguments[0]}: no answer within {self._limit_s:g} s"
        except OSError as error:
            return "", f"{self._program}: {error.strerror}"
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return (done.stdout, "") if done.returncode == 0 else ("", f"{PROGRAM} {arguments[0]}: {last}")


class Restored(Struct, frozen=True):
    """How many settings were put back, and why others were not."""

    count: int
    failed: list[str]


class Processor:
    """The processor of this machine. Every method blocks, for as long as the kernel or the daemon takes."""

    def __init__(self, data: Path, root: Path, *, limit_s: float = PROGRAM_S) -> None:
        self._file = data / "run" / "power.json"
        self._root = root
        self._limit_s = limit_s
        self._way: Way | None = None
        self._before: Before | None = None

    @property
    def sets(self) -> str:
        """By what the processor is set; nothing where there is no way."""
        return self._way.name if self._way is not None else ""

    def open(self) -> None:
        """Look for a way. Call `restore` before, for what a killed process left."""
        program = shutil.which(PROGRAM)
        daemon = Daemon(program, self._limit_s) if program else None
        if daemon is not None and daemon.answers():
            self._way = daemon
        elif any(clock.governors or clock.preferences for clock in sysfs.clocks(self._root)):
            self._way = Cpufreq(self._root)

    def apply(self, level: Level) -> list[str]:
        """Set everything for `level`; returns what failed. The rest is set nevertheless."""
        if self._way is None:
            return []
        failed: list[str] = []
        for kind in self._way.kinds:
            try:
                changes = list(self._changes(self._way, level, kind))
                self._remember(self._way.name, changes)
            except Retryable as error:
                return [*failed, error.message]
            except OSError as error:  # what could not be put back is not changed
                return [*failed, f"{self._file}: {error.strerror}"]
            failed += [reason for name, _, value in changes if (reason := self._way.write(name, value))]
        return failed

    def _changes(self, way: Way, level: Level, kind: str) -> Iterator[tuple[str, str, str]]:
        """Setting, its value now, its value to be."""
        for name, wanted in way.wanted(level, kind):
            now = way.now(name)
            known = self._before.values.get(name) if self._before is not None else None
            value = wanted or (known.was if known is not None else now)
            if now is not None and value is not None and now != value:
                yield name, now, value

    def _remember(self, by: str, changes: list[tuple[str, str, str]]) -> None:
        if not changes:
            return
        before = self._before
        if before is None or before.by != by:
            before = Before(boot=boot(), root=str(self._root), by=by)
        for name, now, value in changes:
            known = before.values.setdefault(name, Value(was=now))
            known.ours = [*known.ours[-1:], value]
        self._keep(before)
        self._before = before

    def _keep(self, before: Before) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._file, msgspec.json.encode(before))

    def restore(self) -> Restored:
        """Put back what was there before, also by a process that was killed. What fails stays noted."""
        before = self._before or self._read()
        if before is None:
            return Restored(0, [])
        way = Daemon(PROGRAM, self._limit_s) if before.by == Daemon.name else Cpufreq(self._root)
        try:
            ours = [name for name, value in before.values.items() if way.now(name) in value.ours]
        except Retryable as error:
            return Restored(0, [error.message])
        ours.sort(key=lambda name: way.kinds.index(name.rpartition("/")[2]))
        reasons = {name: way.write(name, before.values[name].was) for name in ours}
        failed = [reason for reason in reasons.values() if reason]
        before.values = {name: value for name, value in before.values.items() if reasons.get(name)}
        try:
            if before.values:
                self._keep(before)
            else:
                self._file.unlink(missing_ok=True)
        except OSError as error:
            failed.append(f"{self._file}: {error.strerror}")
        self._before = before if before.values else None
        return Restored(len(ours) - sum(map(bool, reasons.values())), failed)

    def _read(self) -> Before | None:
        """What a killed process has left, if it is of this boot and this tree."""
        try:
            before = msgspec.json.decode(self._file.read_bytes(), type=Before)
        except (OSError, msgspec.MsgspecError):
            return None
        kinds: tuple[str, ...] = Daemon.kinds if before.by == Daemon.name else Cpufreq.kinds
        known = all(OURS.fullmatch(name) and name.rpartition("/")[2] in kinds for name in before.values)
        return before if known and before.boot == boot() and before.root == str(self._root) else None


def boot() -> str:
    """Names this boot of the machine; empty where the system does not tell."""
    return sysfs.text(BOOT) or ""
