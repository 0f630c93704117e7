"""A lane: the thread on which one model lives. Nothing of a backend ever runs on the event loop.

A `BatchBackend` gets one thread with the step loop; a plain `Backend` gets up to `slots` threads, one job each.
Pieces come back to the loop in batches, so that a fast backend does not wake it for every word. A quiet lane is loaded
and works at low priority until `to_front`; what always holds: whatever runs meanwhile goes on, on threads of the usual
priority.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec.structs import replace

from schemas.errors import Retryable, RoostError
from schemas.picture import Progress
from workers import Backend, BatchBackend, Demand, Finished, Job, Piece
from workers.host.priority import lower

log = logging.getLogger("roost.lane")

_Commands = queue.SimpleQueue[Job | str | None]
"""Jobs to add and names to cancel; None ends whoever reads it."""


def _failure(error: Exception) -> RoostError:
    if isinstance(error, RoostError):
        return error
    log.exception("the backend failed", exc_info=error)
    return Retryable(f"the model failed: {type(error).__name__}: {error}", code="model_failed")


def joined(request: str, pieces: Sequence[Piece]) -> list[Piece]:
    """One piece for each answer that got something; the end of the job, if it has come, is in the last."""
    together: dict[int, Piece] = {}
    for piece in pieces:
        old = together.pop(piece.choice, None) if piece.finished else together.get(piece.choice)
        together[piece.choice] = Piece(
            request,
            old.text + piece.text if old else piece.text,
            piece.finished,
            piece.choice,
            old.logprobs + piece.logprobs if old else piece.logprobs,
            piece.progress or (old.progress if old else None),
        )
    return list(together.values())


class Superseded(Exception):
    """The run was given up before it had said anything, because another lane serves now: begin it anew there."""


class _Run:
    """One job on its way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self.said = False
        self.superseded = False


class Lane:
    """One loaded backend. `run` a job, `cancel` it, `close` at the end; all from the event loop."""

    def __init__(self, name: str, backend: Backend, *, quiet: bool = False) -> None:
        self.name = name
        self.backend = backend
        self.quiet = quiet
        """It works at low priority until `to_front`."""
        self.warm_s = 0.0
        """How long warming up took."""
        self._loop = asyncio.get_running_loop()
        self._main = _executor(name, quiet=self._low)
        self._before: ThreadPoolExecutor | None = None
        self._count = itertools.count()
        self._runs: dict[str, _Run] = {}
        """What is running, by a name of its own for each run: the last piece of a run that was left early must not end
        the next run of the same request."""
        self._done: deque[Piece] = deque()
        self._scheduled = False
        self._lock = threading.Lock()
        self._commands: _Commands = queue.SimpleQueue()
        self._active: set[str] = set()
        """Of a batch backend: jobs that it has and that have not ended."""
        self._threads: list[threading.Thread] = []
        self._retired: list[threading.Thread] = []
        self._unfinished = 0
        self._closing = False

    @property
    def version(self) -> str:
        return self.backend.full_version

    @property
    def _low(self) -> bool:
        """New threads get low priority."""
        return self.quiet or self.backend.background

    async def demand(self, path: Path | None, limit: int | None) -> Demand:
        """What loading will take, asked on the lane's thread; before `load`."""
        return await self._loop.run_in_executor(self._main, self.backend.demand, path, limit)

    async def load(self, path: Path | None) -> None:
        """Load on the lane's thread, then start serving."""
        await self._loop.run_in_executor(self._main, self.backend.load, path)
        if self.quiet:
            begun = time.monotonic()
            await self._loop.run_in_executor(self._main, self.backend.warm_up)
            self.warm_s = time.monotonic() - begun
        if isinstance(self.backend, BatchBackend):
            self._main.submit(self._step_loop, self.backend, self._commands)

    def to_front(self) -> None:
        """Work at the usual priority from now on: on new threads, because a lowered one cannot be raised again."""
        if not self.quiet or self._closing:
            return
        self.quiet = False
        before, self._commands = self._commands, queue.SimpleQueue()
        self._before, self._main = self._main, _executor(self.name, quiet=self._low)
        self._main.submit(bool)  # its thread begins here: begun by a lowered one, it would be lowered, too
        for _ in range(max(1, len(self._threads))):
            before.put(None)
        self._retired, self._threads = self._threads, []
        self._before.shutdown(wait=False)

    async def run(self, job: Job) -> AsyncGenerator[Piece, None]:
        """Pieces of one job; the last one has `finished`. Leaving early cancels the job.

        Raises `Superseded` after `supersede`, if the job had not said anything by then.
        """
        if self._closing:
            raise _unloading()
        name = f"{job.request}.{next(self._count)}"
        run = self._runs[name] = _Run(job)
        self._unfinished += 1
        self._commands.put(replace(job, request=name))
        if not isinstance(self.backend, BatchBackend):
            self._staff()
        finished = False
        try:
            while not finished:
                came = [await run.pieces.get()]
                while came[-1].finished is None and (run.superseded or not run.pieces.empty()):
                    came.append(await run.pieces.get())
                finished = came[-1].finished is not None
                if run.superseded and came[-1].finished is not None and came[-1].finished.finish == "cancelled":
                    raise Superseded
                for piece in joined(job.request, came):
                    run.said = True
                    yield piece
        finally:
            if not finished:
                self._cancel(name)
            del self._runs[name]

    def cancel(self, request: str) -> None:
        """Ask a job to end; its last piece says `cancelled`."""
        for name, run in list(self._runs.items()):
            if run.job.request == request:
                run.superseded = False
                self._cancel(name)

    def supersede(self) -> None:
        """Give up every run that has not said anything yet, so that it begins anew on another lane."""
        for name, run in list(self._runs.items()):
            if not run.said:
                run.superseded = True
                self._cancel(name)

    def _cancel(self, name: str) -> None:
        job = self._runs[name].job
        if job.cancelled is not None:
            job.cancelled.set()
        if isinstance(self.backend, BatchBackend):
            self._commands.put(name)

    async def close(self) -> None:
        """End the threads and free the backend. Jobs still there fail as `Retryable`."""
        self._closing = True
        self._commands.put(None)
        for _ in self._threads:
            self._commands.put(None)
        for run in self._runs.values():
            if run.job.cancelled is not None:
                run.job.cancelled.set()
        for thread in (*self._retired, *self._threads):
            await self._loop.run_in_executor(None, thread.join, 10.0)
        if self._before is not None:
            await self._loop.run_in_executor(None, self._before.shutdown)
        await self._loop.run_in_executor(self._main, self.backend.close)
        self._main.shutdown(wait=False)
        for name, run in self._runs.items():
            run.pieces.put_nowait(_failed(name, _unloading()))

    # -- from the lane's threads ------------------------------------------------------------------------------

    def _post(self, pieces: list[Piece]) -> None:
        with self._lock:
            self._done.extend(pieces)
            if self._scheduled or not self._done:
                return
            self._scheduled = True
        self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        with self._lock:
            self._scheduled = False
            pieces = list(self._done)
            self._done.clear()
        for piece in pieces:
            if piece.finished is not None:
                self._unfinished -= 1
            if found := self._runs.get(piece.request):
                found.pieces.put_nowait(piece)

    def _go_on(self, backend: BatchBackend) -> None:
        """The step loop, on the thread to which it has moved."""
        try:
            backend.to_front()
        except Exception:
            log.exception("the backend cannot come to the front")
        self._step_loop(backend, self._commands)

    def _step_loop(self, backend: BatchBackend, commands: _Commands) -> None:
        active = self._active
        while True:
            while not active or not commands.empty():
                command = commands.get()
                if command is None and commands is not self._commands:
                    self._main.submit(self._go_on, backend)
                    return
                if command is None:
                    self._post([_failed(r, _unloading()) for r in active])
                    return
                if isinstance(command, str):
                    try:
                        backend.cancel(command)
                    except Exception:
                        log.exception("the backend cannot cancel")
                    continue
                try:
                    backend.add(command)
                    active.add(command.request)
                except Exception as error:  # noqa: BLE001  a plug-in may raise anything; the job is told
                    self._post([_failed(command.request, _failure(error))])
            try:
                pieces = list(backend.step())
            except Exception as error:  # noqa: BLE001  as above
                failure = _failure(error)
                pieces = [_failed(request, failure) for request in active]
                self._clear(backend, active)
            active.difference_update(p.request for p in pieces if p.finished is not None)
            self._post(pieces)

    def _clear(self, backend: BatchBackend, active: set[str]) -> None:
        """Take the jobs of a failed step out of the backend, and throw away what they still say."""
        try:
            for request in active:
                backend.cancel(request)
            backend.step()
        except Exception:
            log.exception("the backend fails again")

    def _staff(self) -> None:
        """Another thread when there are more jobs than threads and slots are left."""
        if len(self._threads) < min(self._unfinished, self.backend.slots):
            name = f"lane-{self.name}-{len(self._threads)}"
            thread = threading.Thread(target=self._serve, args=(self._commands, self._low), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, commands: _Commands, quiet: bool) -> None:
        if quiet:
            lower()
        while True:
            job = commands.get()
            if job is None:
                return
            if isinstance(job, Job):
                self._generate(job)

    def _generate(self, job: Job) -> None:
        finished = Finished()
        try:
            for item in self.backend.generate(job):
                if isinstance(item, Finished):
                    finished = item
                    break
                if job.cancelled is not None and job.cancelled.is_set():
                    finished = Finished(finish="cancelled")
                    break
                if isinstance(item, Progress):
                    self._post([Piece(job.request, progress=item)])
                else:
                    self._post([Piece(job.request, item)])
        except Exception as error:  # noqa: BLE001  as above
            finished = Finished(finish="error", error=_failure(error))
        if self._closing and finished.finish == "cancelled":  # by us, not by its sender
            finished = Finished(finish="error", error=_unloading())
        self._post([Piece(job.request, "", finished)])


def _executor(name: str, *, quiet: bool) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=f"lane-{name}", initializer=lower if quiet else None)


def _unloading() -> Retryable:
    return Retryable("the model is being unloaded", code="model_unloaded")


def _failed(request: str, error: RoostError) -> Piece:
    return Piece(request, "", Finished(finish="error", error=error))
