"""What this machine is: read, not judged. Every field is None where the system does not tell."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

import psutil
from msgspec import Struct

SYS = Path("/sys")


class Machine(Struct, frozen=True, kw_only=True):
    """Processor, memory, disk and network of this machine."""

    processor: str
    cores: int
    """Physical cores."""
    ghz: float | None
    memory_bytes: int
    memory_free_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    rotational: bool | None
    """True for a disk with moving parts; virtual disks often claim it falsely."""
    virtual_disk: bool = False
    nvme: bool = False
    network_mbit: int | None = None


def look(folder: Path) -> Machine:
    """Look at this machine; the disk is the one that holds `folder` (or the nearest parent that exists)."""
    while not folder.exists():
        folder = folder.parent
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(folder)
    device = _block_device(folder)
    rotational = _read(device / "queue" / "rotational") if device else None
    name = device.name if device else ""
    return Machine(
        processor=_processor(),
        cores=psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        ghz=_ghz(),
        memory_bytes=memory.total,
        memory_free_bytes=memory.available,
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        rotational=None if rotational is None else rotational == "1",
        virtual_disk=name.startswith(("vd", "xvd")),
        nvme=name.startswith("nvme"),
        network_mbit=_network_mbit(),
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _cpuinfo(field: str) -> str | None:
    text = _read(Path("/proc/cpuinfo")) or ""
    match = re.search(rf"^{field}\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _ghz() -> float | None:
    """The highest clock that the system tells of."""
    try:
        clock = psutil.cpu_freq()
    except (OSError, NotImplementedError):
        clock = None
    mhz = max(clock.max, clock.current) if clock else 0.0
    return round(mhz / 1000, 2) if mhz else None


def _block_device(folder: Path) -> Path | None:
    """The folder in /sys of the disk (not the partition) that holds `folder`."""
    number = folder.stat().st_dev
    link = SYS / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    if not link.exists():
        return None
    device = link.resolve()
    return device.parent if (device / "partition").exists() else device


def _network_mbit() -> int | None:
    """Speed of the fastest link that is up; virtual machines tell none."""
    speeds = []
    for link in (SYS / "class" / "net").glob("*"):
        value = _read(link / "speed") if _read(link / "operstate") == "up" else None
        if value and value.lstrip("-").isdigit() and int(value) > 0:
            speeds.append(int(value))
    return max(speeds, default=None)
