"""A lane: the thread on which one model lives. Nothing of a backend ever runs on the event loop.

A `BatchBackend` gets one thread with the step loop; a plain `Backend` gets up to `slots` threads, one job each.
Pieces come back to the loop in batches, so that a fast backend does not wake it for every word.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec.structs import replace

from schemas.errors import Retryable, RoostError
from workers import Backend, BatchBackend, Finished, Job, Piece

log = logging.getLogger("roost.lane")


def _failure(error: Exception) -> RoostError:
    if isinstance(error, RoostError):
        return error
    log.exception("the backend failed", exc_info=error)
    return Retryable(f"the model failed: {type(error).__name__}: {error}", code="model_failed")


class Lane:
    """One loaded backend. `run` a job, `cancel` it, `close` at the end; all from the event loop."""

    def __init__(self, name: str, backend: Backend) -> None:
        self.name = name
        self.backend = backend
        self._loop = asyncio.get_running_loop()
        self._main = ThreadPoolExecutor(1, thread_name_prefix=f"lane-{name}")
        self._count = itertools.count()
        self._runs: dict[str, tuple[Job, asyncio.Queue[Piece]]] = {}
        """What is running, by a name of its own for each run: the last piece of a run that was left early must not end
        the next run of the same request."""
        self._done: deque[Piece] = deque()
        self._scheduled = False
        self._lock = threading.Lock()
        self._commands: queue.SimpleQueue[Job | str | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._closing = False

    async def load(self, path: Path | None) -> None:
        """Load on the lane's thread, then start serving."""
        await self._loop.run_in_executor(self._main, self.backend.load, path)
        if isinstance(self.backend, BatchBackend):
            self._main.submit(self._step_loop, self.backend)

    async def run(self, job: Job) -> AsyncIterator[Piece]:
        """Pieces of one job; the last one has `finished`. Leaving early cancels the job."""
        if self._closing:
            raise _unloading()
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        name = f"{job.request}.{next(self._count)}"
        self._runs[name] = (job, pieces)
        self._unfinished += 1
        self._commands.put(replace(job, request=name))
        if not isinstance(self.backend, BatchBackend):
            self._staff()
        finished = False
        try:
            while not finished:
                piece = await pieces.get()
                while not pieces.empty() and piece.finished is None:
                    more = pieces.get_nowait()
                    piece = Piece(piece.request, piece.text + more.text, more.finished)
                finished = piece.finished is not None
                yield Piece(job.request, piece.text, piece.finished)
        finally:
            if not finished:
                self._cancel(name)
            del self._runs[name]

    def cancel(self, request: str) -> None:
        """Ask a job to end; its last piece says `cancelled`."""
        for name, (job, _) in list(self._runs.items()):
            if job.request == request:
                self._cancel(name)

    def _cancel(self, name: str) -> None:
        job, _ = self._runs[name]
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
        for job, _ in self._runs.values():
            if job.cancelled is not None:
                job.cancelled.set()
        for thread in self._threads:
            await self._loop.run_in_executor(None, thread.join, 10.0)
        await self._loop.run_in_executor(self._main, self.backend.close)
        self._main.shutdown(wait=False)
        for name, (_, pieces) in self._runs.items():
            pieces.put_nowait(_failed(name, _unloading()))

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
                found[1].put_nowait(piece)

    def _step_loop(self, backend: BatchBackend) -> None:
        active: set[str] = set()
        while True:
            while not active or not self._commands.empty():
                command = self._commands.get()
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
            thread = threading.Thread(target=self._serve, name=f"lane-{self.name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        while True:
            job = self._commands.get()
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
                self._post([Piece(job.request, item)])
        except Exception as error:  # noqa: BLE001  as above
            finished = Finished(finish="error", error=_failure(error))
        if self._closing and finished.finish == "cancelled":  # by us, not by its sender
            finished = Finished(finish="error", error=_unloading())
        self._post([Piece(job.request, "", finished)])


def _unloading() -> Retryable:
    return Retryable("the model is being unloaded", code="model_unloaded")


def _failed(request: str, error: RoostError) -> Piece:
    return Piece(request, "", Finished(finish="error", error=error))
