"""Watches config.yaml: a change is checked, told line by line, and handed on; an invalid file is told and ignored."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ops.config import changes, load
from schemas.config import Config
from schemas.errors import ConfigError

EVERY_S = 1.0
CHECK_TIMEOUT_S = 60.0

Accept = Callable[[Config, frozenset[str]], None]
Stamp = tuple[int, int, int]


class Watch:
    """One configuration file, from the version that Roost was started with on."""

    def __init__(self, path: Path, data: Path, config: Config, say: Callable[[str], None]) -> None:
        self.path, self.data, self.config, self.say = path, data, config, say
        self._seen = self._stamp()

    def _stamp(self) -> Stamp | None:
        """Editors replace files, so the inode counts as well as time and size."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def run(self, accept: Accept) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            stamp = self._stamp()
            if stamp is None or stamp == self._seen:  # absent: an editor may be about to replace it
                continue
            self._seen = stamp
            try:
                new = load(self.path)
                await self._check()
            except ConfigError as error:
                self.say(f"the changed configuration is ignored: {error.message}")
                continue
            self._take(new, accept)

    def _take(self, new: Config, accept: Accept) -> None:
        found = changes(self.config, new)
        self.config = new
        for _, line in found:
            self.say(line)
        sections = frozenset(section for section, _ in found)
        if sections & {"bus", "sessions"}:
            self.say("changes of `bus` and `sessions` take effect when Roost is restarted")
        accept(new, sections)

    async def _check(self) -> None:
        """Plug-ins' own settings, in a process of its own: the supervisor stays small and never imports them."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "ops.cli", "--config", str(self.path), "--data", str(self.data), "check",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=dict(os.environ),
        )  # fmt: skip
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                _, told = await process.communicate()
        except TimeoutError:
            raise ConfigError(f"{self.path}: checking it took more than {CHECK_TIMEOUT_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise ConfigError(told.decode(errors="replace").strip().removeprefix("roost: ") or f"{self.path}: invalid")
