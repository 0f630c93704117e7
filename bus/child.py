"""Child processes that never outlive their supervisor, and what an earlier, killed supervisor left behind.

Each child has `data/run/NAME.pid` with its pid and its time of creation, so that a pid that the system has given
to somebody else is never signalled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from bus.credentials import write_private
from schemas.errors import Retryable

LAUNCH = Path(__file__).with_name("launch.py")
LEFTOVER_TERM_S = 5.0


def _pid_file(data: Path, name: str) -> Path:
    return data / "run" / f"{name}.pid"


async def spawn(
    data: Path,
    name: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    output: int,
    pass_fds: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """Start `command` (an absolute program first) in a process group of its own; `output` takes stdout and stderr.

    A group of its own, so that Ctrl-C in the terminal reaches the supervisor alone, which stops all in order. Not a
    session: Linux shares the processor equally between sessions (sched_autogroup), whatever the priority of what runs
    in them, and a part whose work may wait would slow the answers down.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(LAUNCH),
            str(os.getpid()),
            *command,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=tuple(pass_fds),
            umask=0o077,
        )
    except OSError as error:
        raise Retryable(f"cannot start {name}: {error.strerror}") from None
    # without the note (the disk is full, it has ended already) the kernel still ends it with its supervisor
    with contextlib.suppress(psutil.NoSuchProcess, OSError):
        created = psutil.Process(process.pid).create_time()
        write_private(_pid_file(data, name), json.dumps({"pid": process.pid, "created": created}))
    return process


def forget(data: Path, name: str) -> None:
    """The child has ended."""
    _pid_file(data, name).unlink(missing_ok=True)


async def end(process: asyncio.subprocess.Process, grace_s: float) -> bool:
    """SIGTERM, then SIGKILL after `grace_s`; False when it had to be killed. Cancelling kills at once."""
    if process.returncode is not None:
        return True
    try:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(grace_s):
            await process.wait()
    except ProcessLookupError:
        pass
    except (TimeoutError, asyncio.CancelledError) as error:
        if process.returncode is None:
            process.kill()
        if isinstance(error, asyncio.CancelledError):
            raise
        await process.wait()
        return False
    await process.wait()
    return True


def alive(pid: int, created: float) -> psutil.Process | None:
    """The process, if that very one still runs."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 0.05 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same else None


def end_leftovers(data: Path, servers: Sequence[str]) -> list[str]:
    """End what an earlier supervisor of this data folder left running; returns their names.

    Parts are killed outright (the bus holds everything they hold); `servers` may flush first. Blocking, and meant
    for the moment before anything else starts. Raises `Retryable` when one cannot be ended.
    """
    found: dict[str, psutil.Process] = {}
    for file in (data / "run").glob("*.pid"):
        try:
            note = json.loads(file.read_bytes())
            process = alive(int(note["pid"]), float(note["created"]))
        except (OSError, ValueError, KeyError, TypeError):
            process = None
        if process is not None:
            found[file.stem] = process
        else:
            file.unlink(missing_ok=True)
    for name, process in found.items():
        _signal(process, signal.SIGTERM if name in servers else signal.SIGKILL)
    _, stubborn = psutil.wait_procs(list(found.values()), timeout=LEFTOVER_TERM_S)
    for process in stubborn:
        _signal(process, signal.SIGKILL)
    _, immortal = psutil.wait_procs(stubborn, timeout=LEFTOVER_TERM_S)
    if immortal:
        raise Retryable(f"processes of an earlier start do not end: {[p.pid for p in immortal]}; end them yourself")
    for name in found:
        forget(data, name)
    return sorted(found)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
