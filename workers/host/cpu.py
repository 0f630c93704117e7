"""The processor, read from made or real `/proc` and `/sys`: cores and their kinds, NUMA nodes, instruction sets.

No judgement and no import of a backend. What always holds: what the system does not tell is empty or 0, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from schemas.machine import Cpu, Node

FEATURES: Final[Mapping[str, str]] = {
    "avx": "AVX", "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "bmi2": "BMI2", "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512", "avx512vbmi": "AVX512_VBMI", "avx512_vnni": "AVX512_VNNI", "avx512_bf16": "AVX512_BF16",
    "amx_tile": "AMX_TILE", "amx_int8": "AMX_INT8", "asimd": "NEON", "neon": "NEON", "asimdhp": "FP16_VA",
    "asimddp": "DOTPROD", "i8mm": "MATMUL_INT8", "sve": "SVE", "sve2": "SVE2", "sme": "SME",
}  # fmt: skip
"""Linux's names of the instruction sets that matter to ggml, and ggml's own names of them."""
CAPACITY_LITTLE: Final = 0.75
"""A core with less than this share of the largest one's capacity is an efficiency core (ARM's `cpu_capacity`)."""


def read(proc: Path, sys: Path, allowed: Collection[int], quota: float, machine: str) -> Cpu:
    """Look at the processor. `allowed`: this process's affinity; `machine`: the architecture's name."""
    info = text(proc / "cpuinfo")
    online = listed(text(sys / "devices/system/cpu/online")) or sorted(allowed)
    cores = _cores(sys, online)
    little = _little(sys, online)
    usable = [kept for core in cores if (kept := tuple(c for c in core if c in allowed))]
    usable.sort(key=lambda core: (core[0] in little, core))
    slow = sum(core[0] in little for core in cores)
    slow_usable = sum(core[0] in little for core in usable)
    return Cpu(
        model=_field(info, "model name") or _field(info, "Model") or text(sys / "firmware/devicetree/base/model"),
        architecture=machine,
        features=_features(_field(info, "flags") or _field(info, "Features")),
        logical=len(online),
        physical=len(cores),
        performance=len(cores) - slow if slow else 0,
        efficiency=slow,
        allowed=len(allowed),
        quota=quota,
        nodes=_nodes(sys),
        cores=tuple(usable),
        fast=(len(usable) - slow_usable) or len(usable),
    )


def text(path: Path) -> str:
    """A file's text without trailing zeros and space; empty when it cannot be read."""
    try:
        return path.read_text(errors="replace").rstrip("\0\n ")
    except OSError:
        return ""


def listed(ranges: str) -> list[int]:
    """`0-3,8` → [0, 1, 2, 3, 8]; nothing for anything else."""
    found: list[int] = []
    for part in ranges.split(",") if re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", ranges.strip()) else []:
        low, _, high = part.strip().partition("-")
        found.extend(range(int(low), min(int(high or low), int(low) + 4_096) + 1))
    return found


def _field(info: str, name: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.+)$", info, re.MULTILINE)
    return match[1].strip() if match else ""


def _features(flags: str) -> tuple[str, ...]:
    has = set(flags.split())
    return tuple(dict.fromkeys(name for flag, name in FEATURES.items() if flag in has))


def _cores(sys: Path, online: Iterable[int]) -> list[tuple[int, ...]]:
    """Logical processors by physical core; each its own core where the system tells no topology."""
    cores: dict[tuple[str, str], list[int]] = {}
    for cpu in online:
        topology = sys / f"devices/system/cpu/cpu{cpu}/topology"
        core = text(topology / "core_id")
        key = (text(topology / "physical_package_id"), core) if core else ("alone", str(cpu))
        cores.setdefault(key, []).append(cpu)
    return [tuple(cpus) for cpus in cores.values()]


def _little(sys: Path, online: Iterable[int]) -> set[int]:
    """Logical processors of efficiency cores: Intel lists them, ARM tells each core's capacity."""
    atoms = listed(text(sys / "devices/cpu_atom/cpus"))
    if atoms:
        return set(atoms)
    told = {cpu: text(sys / f"devices/system/cpu/cpu{cpu}/cpu_capacity") for cpu in online}
    capacity = {cpu: int(value) for cpu, value in told.items() if value.isdigit()}
    most = max(capacity.values(), default=0)
    return {cpu for cpu, value in capacity.items() if value < CAPACITY_LITTLE * most}


def _nodes(sys: Path) -> tuple[Node, ...]:
    found = []
    for folder in sorted((sys / "devices/system/node").glob("node[0-9]*")):
        match = re.search(r"MemTotal:\s+(\d+) kB", text(folder / "meminfo"))
        cpus = tuple(listed(text(folder / "cpulist")))
        found.append(Node(int(folder.name.removeprefix("node")), cpus, int(match[1]) * 1024 if match else 0))
    return tuple(sorted(found, key=lambda node: node.id))
