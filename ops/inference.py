"""What the workers' own programs say of machine, llama.cpp and models, for `roost doctor`.

Each is asked in a process of its own with a time limit, because a driver or a file may be broken in any way. What
always holds: a program that fails, hangs or is not installed has told nothing, with the reason; nobody waits longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from schemas.config import Config
from schemas.machine import Build, DemandAsked, Machine, ModelDemand

ASK_S: Final = 20.0
"""Starting Python and loading a graphics driver takes seconds on a slow machine."""
PLAN_S: Final = 60.0
"""Headers of large vocabularies on a slow disk, for all models together."""

T = TypeVar("T")


class Silent(Exception):
    """The program told nothing; the sentence says why."""


def told(ask: Callable[[], T]) -> T | Silent:
    """What was asked for, or why there is no answer."""
    try:
        return ask()
    except Silent as silent:
        return silent


def hardware() -> Machine:
    """The machine; raises `Silent`."""
    return _one("workers.host.machine", Machine, "--json")


def build() -> Build:
    """The installed llama.cpp; raises `Silent`."""
    return _one("workers.llama.native.build", Build)


def demands(config: Config, data: Path) -> list[ModelDemand]:
    """What each model of the configuration will take, with what was measured for it; raises `Silent`."""
    given = msgspec.json.encode(DemandAsked(config.models, config.worker))
    lines = _ask("workers.host.demand", given=given, limit_s=PLAN_S, data=data).splitlines()
    return [_decoded(line, ModelDemand) for line in lines]


def _one(module: str, kind: type[T], *arguments: str) -> T:
    return _decoded(_ask(module, *arguments), kind)


def _decoded(line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.MsgspecError as error:
        raise Silent(f"it printed something else than expected: {error}") from None


def _ask(module: str, *arguments: str, given: bytes = b"", limit_s: float = ASK_S, data: Path | None = None) -> bytes:
    env = {**os.environ, **({"ROOST_DATA": str(data)} if data else {})}
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=limit_s, check=False, env=env)
    except subprocess.TimeoutExpired:
        raise Silent(f"`python -m {module}` did not answer within {limit_s:.0f} s") from None
    except OSError as error:
        raise Silent(f"`python -m {module}` cannot be started: {error}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Silent(f"`python -m {module}` ended with {done.returncode}: {said[-1] if said else 'without a word'}")
    return done.stdout
