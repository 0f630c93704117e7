"""Cheap evidence of graphics cards: what the kernel shows, without any vendor's library.

Whether a backend can use them is the backend's to say. What always holds: looking wakes no card and takes no time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from schemas.machine import Gpu, Vendor
from workers.host.cpu import text

PCI: Final[Mapping[str, Vendor]] = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
DISPLAY: Final = "0x03"
"""PCI class of display controllers: VGA, 3D and others."""


def read(proc: Path, sys: Path, dev: Path) -> tuple[Gpu, ...]:
    """All cards on the PCI bus, in its order."""
    found = []
    for device in sorted((sys / "bus/pci/devices").glob("*")):
        vendor = PCI.get(text(device / "vendor"))
        if vendor is None or not text(device / "class").startswith(DISPLAY):
            continue
        vram = text(device / "mem_info_vram_total")
        found.append(
            Gpu(
                vendor=vendor,
                name=_name(proc, device.name) or f"{vendor} {text(device / 'device')}",
                place=device.name,
                driver=_usable(vendor, dev),
                memory_bytes=int(vram) if vram.isdigit() else 0,
            )
        )
    if not found and any(dev.glob("nvidia[0-9]*")):  # a container sees the device nodes, and often no PCI bus
        found.append(Gpu(vendor="nvidia", name="NVIDIA", place="", driver=True))
    return tuple(found)


def _name(proc: Path, address: str) -> str:
    match = re.search(r"^Model:\s*(.+)$", text(proc / "driver/nvidia/gpus" / address / "information"), re.MULTILINE)
    return match[1].strip() if match else ""


def _usable(vendor: Vendor, dev: Path) -> bool:
    if vendor == "nvidia":
        return any(dev.glob("nvidia[0-9]*"))
    return any((dev / "dri").glob("renderD*"))
