"""What `roost tune` measured for a model on this machine: kept in the data folder, one JSON file a model.

What always holds: a measurement counts only for the same model file, machine and build of llama.cpp; a file that cannot
be read counts as none; a file is replaced whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from schemas.machine import Machine
from workers.host.machine import look
from workers.llama.fitting.file import version

FOLDER: Final = "tuned"
FILES_MAX: Final = 1_000
FILE_BYTES_MAX: Final = 100_000


class Key(Struct, frozen=True, kw_only=True):
    """For what it was measured."""

    file: str
    """Digest of the model file."""
    machine: str
    build: str


class Chosen(Struct, frozen=True, kw_only=True):
    """The best settings; None was not measured."""

    threads: int | None = None
    batch: int | None = None
    kv_type: str | None = None
    repack: bool | None = None
    flash: bool | None = None


class Compared(Struct, frozen=True, kw_only=True):
    """One question that was measured: what stood, what was tried, and its gain (0.05: 5 % faster)."""

    setting: str
    stood: str
    tried: str
    gain: float
    spread: float
    """Between the pairs' gains, from the quarter to three quarters of them: below it a gain says little."""
    taken: bool


class Tuned(Struct, frozen=True, kw_only=True):
    """The record in the file."""

    v: int = 1
    key: Key
    at: float
    chosen: Chosen
    gain: float
    prompt_per_s: float
    answer_per_s: float
    compared: tuple[Compared, ...] = ()


def fingerprint(machine: Machine) -> str:
    """Changes with the processor, the cores that may be used, and the memory."""
    cpu = machine.cpu
    told = (cpu.model, cpu.architecture, cpu.features, cpu.cores, cpu.quota, machine.memory.total >> 28)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def find(data: Path, key: Key) -> Tuned | None:
    """The newest measurement for `key` in the data folder."""
    found = []
    for path in sorted((data / FOLDER).glob("*.json"))[:FILES_MAX]:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            if path.stat().st_size <= FILE_BYTES_MAX:
                tuned = msgspec.json.decode(path.read_bytes(), type=Tuned)
                if tuned.key == key:
                    found.append(tuned)
    return max(found, key=lambda tuned: tuned.at, default=None)


def chosen(path: Path) -> Chosen | None:
    """The settings measured for this model file on this machine, in the data folder that `ROOST_DATA` names.

    Asks machine, llama.cpp and the whole file only where there is something to find.
    """
    data = Path(os.environ.get("ROOST_DATA", ""))
    if not data.is_absolute() or not any((data / FOLDER).glob("*.json")):
        return None
    from workers.llama.native import build

    found = find(data, Key(file=version(path), machine=fingerprint(look()), build=build.look().digest))
    return found.chosen if found else None


def save(data: Path, model: str, tuned: Tuned) -> Path:
    """Write it for `model`, in place of an older one."""
    folder = data / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".incoming-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(tuned), indent=2))
        target = folder / f"{model}.json"
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target
