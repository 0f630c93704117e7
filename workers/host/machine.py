"""What this machine has, and what this process may use of it. `python -m workers.host.machine --json` prints it.

Read, not judged; no backend is loaded. What always holds: looking takes milliseconds and never fails; what a system
does not tell is empty.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from schemas.machine import Cpu, Gpu, Machine, Memory
from workers.host import cpu, gpu, limits

ASK_S = 5.0


def look(proc: Path = Path("/proc"), system: Path = Path("/sys"), dev: Path = Path("/dev")) -> Machine:
    """Look at this machine; the folders are others in tests."""
    if sys.platform == "darwin":
        return of_mac(_sysctl)
    return Machine(
        cpu=cpu.read(proc, system, os.sched_getaffinity(0), limits.quota(proc, system), platform.machine()),
        memory=limits.memory(proc, system) or _memory(),
        gpus=gpu.read(proc, system, dev),
    )


def of_mac(sysctl: Callable[[], str]) -> Machine:
    """A Mac, from what `sysctl hw machdep.cpu` prints. Its graphics shares the machine's memory."""
    told = dict(re.findall(r"^([\w.]+): (.*)$", sysctl(), re.MULTILINE))

    def number(key: str) -> int:
        value = told.get(key, "")
        return int(value) if value.isdigit() else 0

    memory = _memory()
    fast, slow = number("hw.perflevel0.physicalcpu"), number("hw.perflevel1.physicalcpu")
    physical = number("hw.physicalcpu") or fast + slow
    arm = platform.machine() == "arm64" or "hw.optional.arm64" in told
    sets = {"FEAT_DotProd": "DOTPROD", "FEAT_I8MM": "MATMUL_INT8", "FEAT_SME": "SME"}
    features = (("NEON",) if arm else ()) + tuple(n for k, n in sets.items() if number(f"hw.optional.arm.{k}"))
    return Machine(
        cpu=Cpu(
            model=told.get("machdep.cpu.brand_string", ""),
            architecture="arm64" if arm else "x86_64",
            features=features,
            logical=number("hw.logicalcpu"),
            physical=physical,
            performance=fast if slow else 0,
            efficiency=slow,
            allowed=number("hw.logicalcpu"),
            cores=tuple((n,) for n in range(physical)),
            fast=fast or physical,
        ),
        memory=Memory(
            total=number("hw.memsize") or memory.total,
            available=memory.available,
            swap_total=memory.swap_total,
            swap_free=memory.swap_free,
        ),
        gpus=(Gpu(vendor="apple", name=told.get("machdep.cpu.brand_string", "Apple"), place="", driver=True),)
        if arm
        else (),
    )


def _sysctl() -> str:
    try:
        done = subprocess.run(["/usr/sbin/sysctl", "hw", "machdep.cpu"], capture_output=True, text=True, timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _memory() -> Memory:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return Memory(total=memory.total, available=memory.available, swap_total=swap.total, swap_free=swap.free)


def told(machine: Machine) -> dict[str, object]:
    """The machine as plain data, with what follows from it."""
    plain: dict[str, object] = msgspec.to_builtins(machine)
    memory = {**msgspec.to_builtins(machine.memory), "whole": machine.memory.whole, "free": machine.memory.free}
    return {**plain, "memory": memory, "threads": machine.cpu.threads}


def main() -> int:
    """Print the machine: as JSON with `--json`, else one value a line."""
    found = told(look())
    if "--json" in sys.argv[1:]:
        print(msgspec.json.encode(found).decode())
        return 0
    for section, value in found.items():
        for key, inner in value.items() if isinstance(value, dict) else [("", value)]:
            print(f"{section}{'.' if key else ''}{key}: {inner}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
