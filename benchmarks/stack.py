"""A whole Roost for one benchmark: data folder and ports of its own, started by `roost up`, gone afterwards."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from schemas.config import Config, config_of

READY_S = 120.0
STOP_S = 40.0
ECHO: tuple[dict[str, Any], ...] = ({"name": "echo", "type": "echo"},)
UNMETERED = {"sender_rate_per_s": 1e6, "sender_burst": 1_000_000, "sender_queue_max": 10_000}
"""One sender makes all the load here, which the limits are there to refuse."""


class Stack:
    """`async with Stack(models=…) as roost`: then `http`, `nats`, `client_nkey` and `key` say where it is."""

    def __init__(
        self,
        *,
        models: tuple[dict[str, Any], ...] = ECHO,
        sync: str = "always",
        more: dict[str, Any] | None = None,
        enter: Callable[[], None] | None = None,
    ) -> None:
        """`more`: further sections of the configuration. `enter` is called in the child before it becomes Roost."""
        self._folder = tempfile.TemporaryDirectory(prefix="roost-bench-")
        root = Path(self._folder.name)
        self._files = ["--config", str(root / "config.yaml"), "--data", str(root / "data")]
        config = {
            "models": list(models),
            "connectors": [{"type": "nats"}, {"type": "openai"}],
            "http": {"listen": "127.0.0.1:0"},
            "bus": {"listen": "127.0.0.1:0", "sync": sync},
            "sessions": {"listen": "127.0.0.1:0"},
            "limits": UNMETERED,
            **(more or {}),
        }
        self._enter = enter
        (root / "config.yaml").write_text(yaml.safe_dump(config))
        self.config: Config = config_of(config, root / "config.yaml")
        self.data = root / "data"
        self._process: asyncio.subprocess.Process | None = None
        self.status: dict[str, Any] = {}
        self.ready_at = 0.0
        self.http = self.nats = self.client_nkey = self.key = ""

    async def command(self, *words: str) -> str:
        """Standard output of one `roost` command; raises when it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ops.cli", *self._files, *words, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"roost {' '.join(words)} ended with {process.returncode}: {out.decode()}")
        return out.decode().strip()

    async def state(self) -> dict[str, Any]:
        """What `roost status` tells now."""
        found: dict[str, Any] = json.loads(await self.command("status", "--json"))
        return found

    async def __aenter__(self) -> Stack:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ops.cli", *self._files, "up", stdout=asyncio.subprocess.PIPE, preexec_fn=self._enter
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                await self._process.stdout.readline()  # the ready line, or the end: then `status` fails
            self.ready_at = time.perf_counter()
            self.status = await self.state()
            self.http, self.nats = self.status["http"], self.status["nats"]
            self.client_nkey = self.status["client_nkey"]
            self.key = await self.command("keys", "create", "bench")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._folder.cleanup()
