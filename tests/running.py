"""A real Roost for tests: `roost up` as a child process, with ports and a data folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import psutil
import yaml

START_S = 60.0

ECHO: dict[str, Any] = {"name": "echo", "type": "echo"}
QUICK_LIMITS: dict[str, Any] = {"ack_wait_s": 2.0, "drain_s": 5.0}


def until(condition: Any, timeout_s: float, what: str) -> Any:
    """Wait until `condition()` is true, and return it; fails with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


class RunningRoost:
    """One data folder, and the processes that come and go on it."""

    def __init__(
        self, folder: Path, config: dict[str, Any] | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._environment = environment or {}
        self.data = folder / "data"
        self.config_file = folder / "config.yaml"
        self.config: dict[str, Any] = {
            "models": [ECHO],
            "http": {"listen": "127.0.0.1:0"},
            "bus": {"listen": "127.0.0.1:0"},
            "sessions": {"listen": "127.0.0.1:0"},
            "limits": QUICK_LIMITS,
        }
        for key, value in (config or {}).items():
            old = self.config.get(key)
            self.config[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        folder.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(yaml.safe_dump(self.config))
        self.process: subprocess.Popen[str] | None = None
        self.status_now: dict[str, Any] = {}
        self._log = folder / "up.log"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self._environment, "ROOST_CONFIG": str(self.config_file), "ROOST_DATA": str(self.data)}

    def cli(self, *arguments: str, timeout_s: float = 30.0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `roost …` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "ops.cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **options,
        )

    def start(self) -> RunningRoost:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.cli", "up"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.wait_ready()
        return self

    def wait_ready(self, timeout_s: float = START_S) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            assert self.process is not None
            assert self.process.poll() is None, f"roost up ended: {self._log.read_text()[-3000:]}"
            status = self._state()
            if status.get("ready"):
                result = self.cli("status", "--json")
                if result.returncode == 0:
                    self.status_now = json.loads(result.stdout)
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"not ready: {status}\n{self._log.read_text()[-3000:]}\n{self.logs()}")
            time.sleep(0.05)

    def wait_back(self, part: str, killed: int, timeout_s: float = START_S) -> None:
        """Wait until all parts are ready and `part` is another process than `killed`."""
        until(lambda: self._state().get("ready") and self.pid(part) != killed, timeout_s, f"{part} is back")

    def _state(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            state = json.loads((self.data / "run" / "state.json").read_text())
            parts = state.get("parts", [])
            return {**state, "ready": bool(parts) and all(p["state"] == "ready" for p in parts)}
        return {}

    def logs(self) -> str:
        return "\n".join(f"== {p.name}\n{p.read_text()[-2000:]}" for p in sorted((self.data / "logs").glob("*.log")))

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
        self.process = None

    def status(self) -> dict[str, Any]:
        result = self.cli("status", "--json")
        status: dict[str, Any] = json.loads(result.stdout)
        return status

    def pid(self, part: str) -> int:
        """Process id of a part, or of `supervisor`."""
        if part == "supervisor":
            assert self.process is not None
            return self.process.pid
        for row in self._state().get("parts", []):
            if row["name"] == part:
                return int(row["pid"])
        raise AssertionError(f"no part {part} in {self._state()}")

    def kill(self, part: str) -> int:
        """`kill -9` one process; returns its id."""
        pid = self.pid(part)
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
        if part == "supervisor" and self.process is not None:
            self.process.wait(10)
        return pid

    @property
    def http(self) -> str:
        return str(self.status_now["http"])

    @property
    def nats_url(self) -> str:
        return str(self.status_now["nats"])

    @property
    def nkey(self) -> str:
        return str(self.status_now["client_nkey"])

    def code(self) -> str:
        return (self.data / "secrets" / "web-access-code").read_text().strip()

    def key(self, name: str = "test") -> str:
        """A new API key."""
        result = self.cli("keys", "create", name)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    async def client(self, **options: Any) -> Any:
        """A plain nats-py client, as any program would connect."""
        return await nats.connect(self.nats_url, nkeys_seed=self.nkey, **options)

    async def ask(self, client: Any, body: dict[str, Any], timeout_s: float = 30.0) -> dict[str, Any]:
        message = await client.request("roost.ask", json.dumps(body).encode(), timeout=timeout_s)
        answer: dict[str, Any] = json.loads(message.data)
        return answer


@contextlib.contextmanager
def running(
    folder: Path, config: dict[str, Any] | None = None, environment: dict[str, str] | None = None
) -> Iterator[RunningRoost]:
    """Start, and stop whatever happens. `environment`: what its parts have beside this process's own."""
    roost = RunningRoost(folder, config, environment)
    try:
        yield roost.start()
    finally:
        roost.stop()


async def wait_for(condition: Any, timeout_s: float, what: str) -> Any:
    """As `until`, for a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = await condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(0.02)
