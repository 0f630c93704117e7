"""A model's first load, in a process that may die of it: `python -m workers.host.trial TYPE PARENT`.

Imports what the backend needs, then waits for one line of JSON (`Asked`) on standard input, loads, answers one short
prompt, and tells each step on standard output, a line of JSON (`Told`) each. What always holds: it has no more memory,
time and handles than it was given, writes no file, comes last for the processor and first when memory is short, and
ends with its parent.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path
from typing import BinaryIO

import msgspec
import psutil
from msgspec import Struct

from schemas.config import ModelConfig
from schemas.errors import RoostError
from schemas.message import Message, Sampling
from schemas.picture import Drawing
from schemas.strict import bytes_of
from workers import Backend, Demand, Finished, Job
from workers.host.priority import LOW
from workers.host.registry import GROUP, backend_of

HANDLES_MAX = 128
MARGIN_BYTES = 512_000_000
"""Address space beside what the model says it takes: libraries, buffers, and what allocators reserve …"""
MARGIN_CORE_BYTES = 128_000_000
"""… for each thread that computes."""
PR_SET_PDEATHSIG = 1
TOKENS = 2
"""Of the answer: one from the prompt's step, one from the next."""


class Asked(Struct, frozen=True, kw_only=True):
    """What to try, with which limits."""

    model: ModelConfig
    place: str
    limit: int
    """Bytes that the model may choose to take."""
    free: int
    """Bytes that it may really take."""
    whole: int
    """Bytes that there are."""
    cpu_s: float


class Told(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A step that begins (`at`), or the end: `ok`, or why not."""

    at: str = ""
    ok: bool | None = None
    code: str = ""
    text: str = ""
    never: bool = False
    """Of `no_memory`: not alone either."""


def main() -> int:
    """See the module."""
    kind, parent = sys.argv[1], int(sys.argv[2])
    told = _begin(parent)
    for point in entry_points(group=GROUP, name=kind):
        with contextlib.suppress(ImportError):  # `backend_of` says what is missing
            made: type[Backend] = point.load()
            made.prepare()
    _tell(told, Told(at="ready"))
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    asked = msgspec.json.decode(line, type=Asked)
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()
    _tell(told, _tried(asked, told))
    told.flush()
    os._exit(0)  # whatever the backend left behind ends here, too


def _begin(parent: int) -> BinaryIO:
    """Step back behind all other work; returns where to tell, apart from what libraries print."""
    os.setpgrp()  # Ctrl-C in the terminal is for the supervisor
    os.nice(LOW)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            sys.exit(1)
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return told


def _end_with(stdin: BinaryIO) -> None:
    """End when the parent is gone, on systems whose kernel does not see to it."""
    stdin.read()
    os._exit(1)


def _tell(out: BinaryIO, told: Told) -> None:
    out.write(msgspec.json.encode(told) + b"\n")
    out.flush()


def _tried(asked: Asked, out: BinaryIO) -> Told:
    """How it went."""
    try:
        backend = backend_of(asked.model, asked.place)
    except RoostError as error:
        return Told(ok=False, code="unavailable", text=error.message)
    try:
        path = Path(asked.model.path) if asked.model.path else None
        _limit(asked, asked.limit)
        _tell(out, Told(at="reading its header"))
        backend.for_trial()
        demand = backend.demand(path, asked.limit)
        if demand.total == 0 and asked.model.size is not None:
            demand = Demand(weights=bytes_of(asked.model.size, asked.whole))
        if demand.least > asked.free:
            return _no_memory(demand, asked)
        _limit(asked, demand.total or asked.limit)
        _tell(out, Told(at="loading"))
        backend.load(path)
        _tell(out, Told(at="answering"))
        _answer(backend)
    except RoostError as error:
        return Told(ok=False, code="bad_model", text=error.message)
    except MemoryError:
        return Told(ok=False, code="bad_model", text="it took more memory than it had said it would")
    except Exception as error:  # noqa: BLE001  a backend may fail in any way, and the parent is told
        return Told(ok=False, code="bad_model", text=f"{type(error).__name__}: {error}")
    return Told(ok=True)


def _no_memory(demand: Demand, asked: Asked) -> Told:
    text = f"needs {demand.least / 1e6:.1f} MB to be tried, and {asked.free / 1e6:.1f} MB are free"
    return Told(ok=False, code="no_memory", text=text, never=demand.least > asked.limit)


def _limit(asked: Asked, model_bytes: int) -> None:
    """From here on: so much address space more than now, so much processor time; no files, no core."""
    margin = MARGIN_BYTES + MARGIN_CORE_BYTES * (os.cpu_count() or 1)
    _set(resource.RLIMIT_AS, psutil.Process().memory_info().vms + model_bytes + margin)
    _set(resource.RLIMIT_CPU, int(asked.cpu_s) + 1)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_NOFILE, HANDLES_MAX)


def _set(what: int, most: int) -> None:
    """Lower a soft limit; the hard one stays, because the first guess may have to be raised again."""
    hard = resource.getrlimit(what)[1]
    with contextlib.suppress(OSError, ValueError):  # macOS has limits that cannot be set
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(backend: Backend) -> None:
    """One short prompt; of a picture the first step."""
    kind = next((kind for kind in ("chat", "completion", "embedding", "image") if kind in backend.kinds), None)
    if kind is None:
        return
    job = Job(
        request="trial",
        messages=(Message("user", "Hello."),),
        kind=kind,
        inputs=("Hello.",),
        sampling=Sampling(temperature=0, max_tokens=TOKENS, seed=1),
        drawing=Drawing(steps=1) if kind == "image" else Drawing(),
        cancelled=threading.Event(),
    )
    for item in backend.generate(job):
        if isinstance(item, Finished) and item.error is not None:
            raise item.error


if __name__ == "__main__":
    sys.exit(main())
