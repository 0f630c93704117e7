"""Is this machine and installation fit for Roost? Each row says what was found and what to do about it."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Literal

from msgspec import Struct

from bus.programs import (
    NATS_MIN,
    VALKEY_MIN,
    Version,
    dotted,
    loopback,
    nats_server,
    require,
    require_free,
    valkey_server,
    version_of,
)
from ops.machine import Machine
from ops.state import SystemState
from schemas.config import Config
from schemas.errors import ConfigError

Verdict = Literal["ok", "warn", "fail"]
GB = 1_000_000_000
OURS = ("bus", "connectors", "knowledge", "ops", "schemas", "updater", "workers")
SHOWN_HEX = 12


class Row(Struct, frozen=True):
    """One check."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


class Need(Struct, frozen=True):
    """What Roost asks of a machine: least, and recommended."""

    cores: int
    ghz: float
    memory_bytes: int
    disk_bytes: int
    network_mbit: int


MINIMUM = Need(cores=4, ghz=3.0, memory_bytes=16 * GB, disk_bytes=256 * GB, network_mbit=100)
RECOMMENDED = Need(cores=8, ghz=3.5, memory_bytes=32 * GB, disk_bytes=1000 * GB, network_mbit=1000)
SLACK = 0.93
"""What a 16 GB machine shows after firmware and kernel have taken theirs."""


def measure(name: str, found: float | None, least: float, good: float, unit: str, advice: str) -> Row:
    """Compare one number with the minimum and the recommendation."""
    if found is None:
        return Row(name, "ok", f"not told by this system (minimum {least:g} {unit})")
    text = f"{found:g} {unit} (minimum {least:g}, recommended {good:g})"
    if found < least * SLACK:
        return Row(name, "warn", text, f"below the minimum: {advice}")
    return Row(name, "ok", text)


def hardware(machine: Machine) -> list[Row]:
    """Compare the machine with what Roost asks for."""
    return [
        Row("processor", "ok", machine.processor),
        measure("cores", machine.cores, MINIMUM.cores, RECOMMENDED.cores, "cores", "use smaller models or more cores"),
        measure(
            "clock", machine.ghz, MINIMUM.ghz, RECOMMENDED.ghz, "GHz", "answers come more slowly; use small models"
        ),
        measure(
            "memory",
            round(machine.memory_bytes / GB, 1),
            MINIMUM.memory_bytes / GB,
            RECOMMENDED.memory_bytes / GB,
            "GB",
            "a model needs its file size and some GB for contexts; add memory or choose smaller ones",
        ),
        measure(
            "disk",
            round(machine.disk_bytes / GB),
            MINIMUM.disk_bytes / GB,
            RECOMMENDED.disk_bytes / GB,
            "GB",
            "models and logs need room; put `models` and the data folder on a larger disk",
        ),
        _disk_free(machine),
        _disk_kind(machine),
        measure(
            "network",
            machine.network_mbit,
            MINIMUM.network_mbit,
            RECOMMENDED.network_mbit,
            "Mbit/s",
            "only downloads and other machines' clients notice",
        ),
    ]


def _disk_free(machine: Machine) -> Row:
    free = f"{machine.disk_free_bytes / GB:.1f} GB"
    if machine.disk_free_bytes < GB:
        return Row("disk free", "fail", free, "free some space: the bus cannot store messages on a full disk")
    low = machine.disk_free_bytes < 20 * GB
    return Row("disk free", "warn" if low else "ok", free, "the bus alone may take 20 GB" if low else "")


def _disk_kind(machine: Machine) -> Row:
    if machine.rotational and not machine.virtual_disk:
        return Row("disk kind", "warn", "rotating", "each message is synchronised to the disk; use an SSD")
    known = "NVMe" if machine.nvme else "virtual" if machine.virtual_disk else "SSD"
    return Row("disk kind", "ok", known if machine.rotational is not None else "not told by this system")


def software() -> list[Row]:
    """Python, build tools, servers, and other distributions that own one of our names."""
    python = ".".join(map(str, sys.version_info[:3]))
    rows = [
        Row("python", "ok", python)
        if sys.version_info >= (3, 11)
        else Row("python", "fail", python, "Roost needs Python 3.11 or newer"),
        _tool("compiler", ("c++", "g++", "clang++"), "apt-get install build-essential"),
        _tool("cmake", ("cmake",), "apt-get install cmake"),
        _llama(),
    ]
    rows.append(_server("nats-server", nats_server, NATS_MIN))
    rows.append(_server("valkey-server", valkey_server, VALKEY_MIN))
    rows.append(names(packages_distributions()))
    return rows


def _tool(name: str, programs: tuple[str, ...], remedy: str) -> Row:
    found = next((path for program in programs if (path := shutil.which(program))), None)
    if found:
        return Row(name, "ok", found)
    return Row(name, "warn", "not found", f"only needed to compile llama.cpp; on Debian: {remedy}")


def _llama() -> Row:
    try:
        return Row("llama.cpp", "ok", f"llama-cpp-python {version('llama-cpp-python')}")
    except PackageNotFoundError:
        return Row("llama.cpp", "warn", "not installed", "models of type llama cannot be served; run `make up`")


def _server(name: str, find: Callable[[], Path], least: Version) -> Row:
    try:
        program = find()
        require(program, least)
        return Row(name, "ok", f"{dotted(version_of(program))} ({program})")
    except ConfigError as error:
        return Row(name, "fail", "not usable", error.message)


def names(owners: Mapping[str, list[str]]) -> Row:
    """Our folders are import packages; another distribution with such a name would be imported instead."""
    taken = {
        name: sorted({owner for owner in found if owner.lower() != "roost"})
        for name, found in owners.items()
        if name in OURS
    }
    clashes = [f"{name} (of {', '.join(found)})" for name, found in sorted(taken.items()) if found]
    if not clashes:
        return Row("names", "ok", "no other package owns one of ours")
    return Row(
        "names",
        "fail",
        "; ".join(clashes),
        "uninstall that package, or give Roost an environment of its own: `make clean up`",
    )


def ports(config: Config, state: SystemState | None) -> list[Row]:
    """Are the configured ports free, or ours already?"""
    wanted = {"http.listen": config.http.listen}
    if not config.bus.servers:
        wanted["bus.listen"] = config.bus.listen
    if not config.sessions.url:
        wanted["sessions.listen"] = config.sessions.listen
    rows = []
    for place, listen in wanted.items():
        if state is not None:
            rows.append(Row(place, "ok", f"{listen}: Roost is running (pid {state.pid})"))
            continue
        try:
            host, port = loopback(listen, place) if place != "http.listen" else _host_port(listen)
            if port:
                require_free(host, port, place)
            rows.append(Row(place, "ok", f"{listen}: free"))
        except ConfigError as error:
            rows.append(Row(place, "fail", listen, error.message))
    return rows


def _host_port(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not port.isdigit():
        raise ConfigError(f"http.listen: expected host:port, got {listen!r}")
    return host.strip("[]"), int(port)


def models(config: Config, *, hashes: bool) -> list[Row]:
    """Are the files of the configured models there? With `hashes`, which (reads each file whole)."""
    rows = []
    for model in config.models:
        name = f"model {model.name}"
        if not model.path:
            rows.append(Row(name, "ok", f"type {model.type}, no file needed"))
            continue
        path = Path(model.path)
        files = sorted(path.glob("*.gguf")) if path.is_dir() else [path]
        if not path.exists():
            advice = (
                "run `make model`"
                if "text-generation" in model.path
                else "put the model there or take it out of config.yaml"
            )
            rows.append(Row(name, "warn", f"{path} does not exist", advice))
        elif not files:
            rows.append(Row(name, "ok", f"{path}"))
        else:
            told = ", ".join(f"{file.name} {file.stat().st_size / 1e6:.0f} MB{_sha(file, hashes)}" for file in files)
            rows.append(Row(name, "ok", told))
    return rows


def _sha(file: Path, wanted: bool) -> str:
    if not wanted:
        return ""
    with file.open("rb") as stream:
        return f" sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()[:SHOWN_HEX]}"
