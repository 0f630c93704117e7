"""Node clients for tests: the pinned packages of `package.json`, installed once under `build/`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build"
INSTALL_S = 180.0
RUN_S = 60.0


def _missing(reason: str) -> None:
    if os.environ.get("ROOST_TEST_NO_SKIP"):
        pytest.fail(f"{reason} (ROOST_TEST_NO_SKIP is set)")
    pytest.skip(reason)


def installed() -> Path:
    """A folder with the packages; made anew when the lock file changes. Skips the test without node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        _missing("node and npm are not installed")
    lock = (HERE / "package-lock.json").read_bytes()
    folder = BUILD / f"node-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder / name)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            _missing(f"npm ci failed: {done.stderr[-500:]}")
        (folder / "done").touch()
    return folder


async def run(script: str, **environment: str) -> str:
    """Standard output of `tests/node/<script>`; fails with its standard error when it ends with an error."""
    folder = await asyncio.to_thread(installed)
    shutil.copy(HERE / script, folder / script)
    process = await asyncio.create_subprocess_exec(
        "node", script, cwd=folder, env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), RUN_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, err.decode()
    return out.decode()
