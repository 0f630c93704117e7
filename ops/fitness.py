"""How fit machine and llama.cpp are for the configured models: rows for `roost doctor`. Judges; asks nobody.

What always holds: a row that warns says what to do, where it can with the command to type.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ops.doctor import Row
from ops.inference import Silent
from schemas.machine import Build, Gpu, Machine, Memory, ModelDemand

CMAKE: Final = "-DLLAVA_BUILD=OFF"
"""As in the Makefile."""
BACKENDS: Final = {
    "nvidia": ("CUDA", "Vulkan"),
    "amd": ("ROCm", "Vulkan"),
    "intel": ("Vulkan", "SYCL"),
    "apple": ("MTL",),
}
"""What llama.cpp can use of a vendor's cards; the first is the one to build."""
FLAGS: Final = {"CUDA": "GGML_CUDA", "ROCm": "GGML_HIP", "Vulkan": "GGML_VULKAN", "MTL": "GGML_METAL"}
NEEDS: Final = {"CUDA": "the CUDA toolkit", "ROCm": "ROCm's HIP compiler", "Vulkan": "Vulkan's headers and glslc",
                "MTL": "Apple's command line tools"}  # fmt: skip
WORTH: Final = ("AVX2", "AVX512", "AVX512_VNNI", "AVX512_BF16", "AMX_INT8", "NEON", "DOTPROD", "MATMUL_INT8", "SVE")
"""Instruction sets that make a difference of more than a few per cent."""


def machine(found: Machine | Silent) -> list[Row]:
    """Cores and limits of this process."""
    if isinstance(found, Silent):
        return [Row("machine", "warn", "not known", str(found))]
    cpu = found.cpu
    parts = [f"{cpu.physical} cores, {cpu.logical} logical"]
    if cpu.efficiency:
        parts.append(f"{cpu.performance} fast and {cpu.efficiency} efficient ones")
    if cpu.allowed and cpu.allowed < cpu.logical:
        parts.append(f"{cpu.allowed} allowed by affinity")
    if cpu.quota:
        parts.append(f"{cpu.quota:g} by a cgroup's quota")
    if len(cpu.nodes) > 1:
        parts.append(f"{len(cpu.nodes)} NUMA nodes")
    return [
        Row("compute", "ok", f"{found.cpu.threads} thread{'s' if found.cpu.threads != 1 else ''} ({', '.join(parts)})"),
        Row("instructions", "ok", " ".join(cpu.features) or "not told by this system"),
        memory(found.memory),
    ]


def memory(found: Memory) -> Row:
    """What may be used of the memory, and who limits it."""
    told = f"{_size(found.free)} free of {_size(found.whole)}"
    if not found.limits:
        return Row("memory limits", "ok", f"{told}; no limit below the machine's {_size(found.total)}")
    limits = ", ".join(f"{limit.name} {_size(limit.bytes)} ({_size(limit.used)} used)" for limit in found.limits)
    return Row("memory limits", "ok", f"{told}; {limits}")


def llama(found: Build | Silent, here: Machine | Silent) -> list[Row]:
    """What llama.cpp was built with, against what the machine has."""
    if isinstance(found, Silent):
        return [Row("llama.cpp devices", "warn", "not known", f"{found}; models of type llama may not be served")]
    rows = [_version(found), _devices(found)]
    if isinstance(here, Machine):
        missing = [name for name in WORTH if name in here.cpu.features and name.lower() not in found.instructions]
        if missing:
            rows.append(
                Row(
                    "llama.cpp build",
                    "warn",
                    f"built without {', '.join(missing)}, which this processor has",
                    f"it was built for another machine; build it here: {rebuild('')}",
                )
            )
        rows += [_card(gpu, found) for gpu in here.gpus] or [Row("graphics", "ok", "no card; llama.cpp uses the cores")]
    return rows


def _version(found: Build) -> Row:
    told = f"llama-cpp-python {found.version}" if found.version else "of no package"
    return Row("llama.cpp version", "ok", f"{told}, ggml commit {found.commit or 'not told'}")


def _devices(found: Build) -> Row:
    told = [d.name if d.kind == "cpu" else f"{d.name} ({d.description}, {_size(d.free)} free)" for d in found.devices]
    repack = "weights repacked for this processor" if found.repack else "built without repacking of weights"
    return Row("llama.cpp devices", "ok", f"{', '.join(told) or 'none'}; {repack}")


def _card(gpu: Gpu, found: Build) -> Row:
    """One card: used, or what is missing."""
    name = gpu.name + (f", {_size(gpu.memory_bytes)}" if gpu.memory_bytes else "")
    usable = [b for b in BACKENDS.get(gpu.vendor, ()) if any(b.lower() == has.lower() for has in found.backends)]
    if usable:
        if any(device.kind in ("gpu", "igpu") for device in found.devices):
            return Row("graphics", "ok", f"{name}: used through {usable[0]}")
        return Row(
            "graphics", "warn", f"{name}: llama.cpp has {usable[0]} and finds no card", "check the card's driver"
        )
    wanted = next((b for b in BACKENDS.get(gpu.vendor, ()) if b in FLAGS), None)
    if wanted is None:
        return Row("graphics", "ok", f"{name}: llama.cpp cannot use it")
    driver = "" if gpu.driver else "install the card's driver, then "
    return Row(
        "graphics",
        "warn",
        f"{name}: there is a card, but llama.cpp was built without {wanted}",
        f"{driver}build it anew (needs {NEEDS[wanted]}): {rebuild(FLAGS[wanted])}",
    )


def rebuild(flag: str) -> str:
    """The command that compiles and installs llama.cpp, for the processor or for a card."""
    arguments = f"{CMAKE} -D{flag}=on" if flag else CMAKE
    return f'{Path(sys.executable)} -m ops.compile --cmake-args="{arguments}"'


def plans(found: Sequence[ModelDemand] | Silent) -> list[Row]:
    """What each model will take, and whether it fits."""
    if isinstance(found, Silent):
        return [Row("plans", "warn", "not known", str(found))]
    return list(_plans(found))


def _plans(found: Sequence[ModelDemand]) -> Iterator[Row]:
    for one in found:
        name = f"plan {one.name}"
        if one.error:
            yield Row(name, "warn", "none", one.error)
            continue
        if not one.total:
            continue
        mapped = "" if not one.mapped else " mapped" if one.mapped == one.weights else f" ({_size(one.mapped)} mapped)"
        told = (
            f"weights {_size(one.weights)}{mapped} + context {_size(one.state)} + compute {_size(one.compute)} = "
            f"{_size(one.total)} of {_size(one.limit)}; {one.what}"
        )
        if one.total <= one.limit:
            yield Row(name, "ok", told)
        elif one.least <= one.limit:
            advice = (
                "it runs only from the page cache, as slowly as the disk: worker.overcommit: true, or a smaller model"
            )
            yield Row(name, "warn", told, advice)
        else:
            yield Row(name, "warn", told, "it does not fit: choose a smaller model, or raise worker.memory")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
