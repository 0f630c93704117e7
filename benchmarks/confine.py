"""A limit of memory for the processes that a benchmark starts: a cgroup below our own, or an rlimit.

The rlimit is for where no group may be made. Linux only. The group is gone when the benchmark is.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
EMPTY_S = 10.0


class Confined:
    """`enter` is called in a child before it runs; `killed` says how many processes the kernel has ended for the limit.

    An rlimit ends none: it refuses memory, and a process that cannot do without ends itself, which its parent sees.
    """

    def __init__(self, name: str, enter: Callable[[], None], killed: Callable[[], int]) -> None:
        self.name = name
        self.enter = enter
        self.killed = killed


@contextmanager
def memory(limit_bytes: int) -> Iterator[Confined]:
    """Processes that call `enter` may have `limit_bytes` together (cgroup) or each (rlimit)."""
    try:
        folder, v2 = _make(limit_bytes)
    except OSError:
        yield _rlimit(limit_bytes)
        return
    try:
        events = folder / ("memory.events" if v2 else "memory.oom_control")

        def killed() -> int:
            found = re.search(r"^oom_kill (\d+)$", events.read_text(), re.MULTILINE)
            return int(found[1]) if found else 0

        def enter() -> None:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

        yield Confined(f"cgroup v{2 if v2 else 1}", enter, killed)
    finally:
        _remove(folder)


def _make(limit_bytes: int) -> tuple[Path, bool]:
    """A new group below ours, with the limit; OSError where that is not allowed."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        v2 = number == "0"
        if v2 or "memory" in controllers.split(","):
            base = (ROOT if v2 else ROOT / "memory") / path.lstrip("/")
            limit = "memory.max" if v2 else "memory.limit_in_bytes"
            folder = base / f"roost-bench-{os.getpid()}"
            try:
                folder.mkdir()
            except OSError:
                continue
            try:
                (folder / limit).write_text(str(limit_bytes))
            except OSError:
                folder.rmdir()
                continue
            return folder, v2
    raise OSError("no cgroup with a memory controller can be made here")


def _remove(folder: Path) -> None:
    """The last process may take a moment to be gone."""
    end = time.monotonic() + EMPTY_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.1)


def _rlimit(limit_bytes: int) -> Confined:
    def enter() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    return Confined("RLIMIT_DATA", enter, lambda: 0)
