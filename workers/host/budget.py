"""What memory there is: the machine's, its control group's, and this process's own limits. Reads, decides nothing.

What always holds: a limit that cannot be read is no limit, and the tightest of those that can be counts (`limits`).
"""

from __future__ import annotations

import re
from pathlib import Path

import psutil
from msgspec import Struct

from schemas.config import WorkerConfig
from schemas.strict import Size, bytes_of
from workers.host import limits
from workers.host.cpu import text
from workers.host.memory import Budget

RLIMITS = {name for name, _ in limits.RLIMITS.values()}


class Memory(Struct, frozen=True, kw_only=True):
    """Bytes: of the machine (or of the control group that we are in), and what is left of them now."""

    whole: int
    free: int
    address: int | None = None
    private: int | None = None

    def budget(self, config: WorkerConfig) -> Budget:
        return Budget(
            whole=self.share(config.memory),
            free=self.free,
            address=self.address,
            private=self.private,
            overcommit=config.overcommit,
        )

    def share(self, size: Size) -> int:
        return bytes_of(size, self.whole)


def measure(root: Path = Path("/")) -> Memory:
    """As it is now. `root`: where `proc` and `sys` are, for tests."""
    found = limits.memory(root / "proc", root / "sys")
    if found is None:
        machine = psutil.virtual_memory()
        return Memory(whole=int(machine.total), free=int(machine.available))
    left = {limit.name: max(0, limit.bytes - limit.used) for limit in found.limits}
    groups = [limit for limit in found.limits if limit.name not in RLIMITS]
    return Memory(
        whole=min([found.total, *(group.bytes for group in groups)]),
        free=min([found.available, *(left[group.name] for group in groups)]),
        address=left.get("RLIMIT_AS"),
        private=left.get("RLIMIT_DATA"),
    )


def taken() -> int:
    """Bytes of this process in memory that are not pages of files, which the system may drop; else all of them."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", text(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else int(psutil.Process().memory_info().rss)
