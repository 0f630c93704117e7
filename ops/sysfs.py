"""Reads and writes single values under /sys, on any root: processor, batteries, and the names of files.

What always holds: nothing here raises for what a file says or whether it is there; a value that cannot be read is
None, and one that cannot be written is told by the error's own words.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

ROOT = "ROOST_SYSFS_ROOT"
BYTES_MAX = 4096
"""A page: what a sysfs file may hold."""
DIGITS_MAX = 20
"""A 64-bit counter has no more."""
GOVERNOR, PREFERENCE = "scaling_governor", "energy_performance_preference"


def root() -> Path:
    """The tree that is read: /sys, or what ROOST_SYSFS_ROOT names."""
    return Path(os.environ.get(ROOT) or "/sys")


def text(path: Path) -> str | None:
    """One value; None when it is not there, may not be read or is no text."""
    try:
        with path.open("rb", buffering=0) as file:
            return (file.read(BYTES_MAX) or b"").decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def number(path: Path) -> int | None:
    """One whole number, or None."""
    value = text(path) or ""
    digits = value.removeprefix("-")
    return int(value) if digits.isascii() and digits.isdigit() and len(digits) <= DIGITS_MAX else None


def words(path: Path) -> tuple[str, ...]:
    """Values separated by spaces; none when they cannot be read."""
    return tuple((text(path) or "").split())


def write(path: Path, value: str) -> str:
    """Write one value as the kernel wants it, in one piece; returns why that failed, or nothing.

    A file is never made: on a tree without it that is a failure.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(handle, value.encode())
        finally:
            os.close(handle)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def forbidden(path: Path) -> bool:
    """It is there and may not be read."""
    return path.exists() and not os.access(path, os.R_OK)


class Clock(Struct, frozen=True):
    """One cpufreq policy: processors that share a clock, and what their driver offers."""

    folder: Path
    driver: str
    governors: tuple[str, ...]
    preferences: tuple[str, ...]


def clocks(root: Path) -> list[Clock]:
    """Every cpufreq policy; none in most virtual machines."""
    found = (root / "devices" / "system" / "cpu" / "cpufreq").glob("policy*")
    return [
        Clock(
            folder,
            text(folder / "scaling_driver") or "",
            words(folder / "scaling_available_governors"),
            words(folder / "energy_performance_available_preferences"),
        )
        for folder in sorted(found)
    ]


def batteries(root: Path) -> list[Path]:
    """Batteries that the machine itself runs on; those of mice and telephones have the scope `Device`."""
    return [
        folder
        for folder in sorted((root / "class" / "power_supply").glob("*"))
        if text(folder / "type") in ("Battery", "UPS")
        and text(folder / "scope") != "Device"
        and text(folder / "present") != "0"
    ]


def on_battery(root: Path) -> bool | None:
    """True without mains; None on a machine without a battery, or where the files do not say."""
    stores = batteries(root)
    if not stores:
        return None
    mains = [
        number(folder / "online")
        for folder in sorted((root / "class" / "power_supply").glob("*"))
        if text(folder / "type") in ("Mains", "USB")
    ]
    if 1 in mains:
        return False
    states = [text(folder / "status") for folder in stores]
    if "Discharging" in states:
        return True
    if 0 in mains:  # what offers no mains is not charged either, whatever an old battery says
        return not any(state in ("Charging", "Full") for state in states)
    return False if any(states) else None
