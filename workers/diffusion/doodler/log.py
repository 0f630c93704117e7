"""The training log: JSON lines, each with its time."""

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = "training-log.jsonl"


def note(folder: Path, **facts: Any) -> None:
    """Append one line."""
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **facts}, ensure_ascii=False)
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def machine() -> dict[str, str]:
    """What the run ran on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = f"{len(names)} x {names[0]}" if names else cpu
    packages = {p: version(p) for p in ("torch", "diffusers", "transformers", "resvg-py")}
    return {"cpu": cpu, "python": platform.python_version(), **packages}
