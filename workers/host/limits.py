"""What this process may use of the machine: memory and processor time, by cgroup (v1, v2) and by rlimit.

Reads made or real `/proc` and `/sys`. What always holds: of nested limits the tightest counts; a limit above what the
machine has is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.machine import Limit, Memory
from workers.host.cpu import text

RLIMITS: Final = {"Max address space": ("RLIMIT_AS", "VmSize"), "Max data size": ("RLIMIT_DATA", "VmData")}
V1_NONE: Final = 1 << 60
"""cgroup v1 says "no limit" with a number near 2^63."""


def memory(proc: Path, sys: Path) -> Memory | None:
    """Memory and limits; None where there is no `/proc/meminfo`."""
    told = {key: int(kb) * 1024 for key, kb in re.findall(r"^(\w+):\s+(\d+) kB", text(proc / "meminfo"), re.MULTILINE)}
    if "MemTotal" not in told:
        return None
    total = told["MemTotal"]
    found = [limit for limit in (*_rlimits(proc), *_cgroups(proc, sys)) if limit.bytes < total]
    return Memory(
        total=total,
        available=told.get("MemAvailable", told.get("MemFree", 0)),
        swap_total=told.get("SwapTotal", 0),
        swap_free=told.get("SwapFree", 0),
        limits=tuple(found),
    )


def quota(proc: Path, sys: Path) -> float:
    """Processors' worth of time that the tightest cgroup allows; 0 without a limit."""
    found = []
    for folder, v2 in _folders(proc, sys, "cpu"):
        if v2:
            most, _, period = text(folder / "cpu.max").partition(" ")
        else:
            most, period = text(folder / "cpu.cfs_quota_us"), text(folder / "cpu.cfs_period_us")
        if most.isdigit() and period.isdigit() and int(period):
            found.append(int(most) / int(period))
    return min((n for n in found if n > 0), default=0.0)


def _rlimits(proc: Path) -> Iterator[Limit]:
    limits, status = text(proc / "self/limits"), text(proc / "self/status")
    for said, (name, counted) in RLIMITS.items():
        soft = re.search(rf"^{said}\s+(\d+)\s", limits, re.MULTILINE)
        used = re.search(rf"^{counted}:\s+(\d+) kB", status, re.MULTILINE)
        if soft:
            yield Limit(name, int(soft[1]), int(used[1]) * 1024 if used else 0)


def _cgroups(proc: Path, sys: Path) -> Iterator[Limit]:
    """Page cache can be dropped and read again, mapped weights too: it does not count as used."""
    for folder, v2 in _folders(proc, sys, "memory"):
        most = text(folder / ("memory.max" if v2 else "memory.limit_in_bytes"))
        if not most.isdigit() or int(most) >= V1_NONE:
            continue
        used = text(folder / ("memory.current" if v2 else "memory.usage_in_bytes"))
        prefix = "" if v2 else "total_"
        kinds = rf"^{prefix}(?:in)?active_file (\d+)$"
        cached = sum(map(int, re.findall(kinds, text(folder / "memory.stat"), re.MULTILINE)))
        count = int(used) - cached if used.isdigit() else 0
        yield Limit(f"cgroup {folder.name if v2 else folder.relative_to(sys / 'fs/cgroup')}", int(most), max(count, 0))


def _folders(proc: Path, sys: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of this process's cgroup of a controller and of all above it, and whether they are of v2.

    In a container its own cgroup may be mounted at the root, and the path that the kernel tells does not exist.
    """
    root = sys / "fs/cgroup"
    for line in text(proc / "self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        v2 = number == "0" and not controllers
        if not v2 and controller not in controllers.split(","):
            continue
        bases = (root, root / "unified") if v2 else (root / controllers, root / controller)
        base = next((b for b in bases if b.is_dir()), root)
        folder = base.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
        while True:
            yield folder, v2
            if folder == base:
                break
            folder = folder.parent
