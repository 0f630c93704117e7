"""A running Roost in a process of its own, with its data under pytest's temporary folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ECHO = """
models:
  - name: talk
    type: echo
connectors:
  - type: nats
http: {listen: "127.0.0.1:0"}
bus: {listen: "127.0.0.1:0"}
sessions: {listen: "127.0.0.1:0"}
limits: {drain_s: 2}
"""
PATIENCE_S = 30.0


def until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Wait for `condition` to be true and return its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for: {what}"
        time.sleep(0.02)
    return value


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Running:
    """One supervisor and what it prints."""

    def __init__(self, command: list[str], config: Path, data: Path) -> None:
        self.config, self.data = config, data
        self._out, self._err = data.parent / "stdout.txt", data.parent / "stderr.txt"
        env = {**os.environ, "ROOST_CONFIG": str(config), "ROOST_DATA": str(data)}
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=env)

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def state(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.data / "run" / "state.json").read_bytes()))
        except OSError:
            return {"ready": False, "parts": []}

    def part(self, name: str) -> dict[str, Any]:
        return next((dict(p) for p in self.state()["parts"] if p["name"] == name), {})

    def ready(self) -> Running:
        def look() -> bool:
            assert self.process.poll() is None, f"it ended: {self.stderr}"
            return bool(self.stdout)

        until(look, "the ready line")
        return self

    def told(self, text: str) -> None:
        until(lambda: text in self.stderr, f"{text!r} on standard error")

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = PATIENCE_S) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a supervisor with one tiny part; several in turn use the same data folder."""
    config, data = tmp_path / "config.yaml", tmp_path / "data"
    config.write_text(ECHO)
    started: list[Running] = []

    def begin(mode: str = "serve", *, folder: Path = data) -> Running:
        folder.mkdir(exist_ok=True)
        (folder / "MODE").write_text(mode)
        tiny = str(Path(__file__).with_name("tiny.py"))
        started.append(Running([sys.executable, tiny, "up", str(config), str(folder)], config, folder))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            try:
                running.process.wait(15)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()


@pytest.fixture(scope="module")
def roost_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A whole Roost with the echo backend, as `roost up` starts it; shared by a module's tests."""
    folder = tmp_path_factory.mktemp("roost")
    config = folder / "config.yaml"
    config.write_text(ECHO.replace("connectors:", "  - {name: slow, type: echo, delay_token_ms: 300}\nconnectors:"))
    running = Running([sys.executable, "-m", "ops.cli", "up"], config, folder / "data")
    try:
        yield running.ready()
    finally:
        if running.process.poll() is None:
            running.stop()


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def run_cli(config: Path, data: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """`roost ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ops.cli", "--config", str(config), "--data", str(data), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        input=stdin or "",
        check=False,
    )
