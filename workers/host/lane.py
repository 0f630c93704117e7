"""A lane: the thread on which one model lives. Nothing of a backend ever runs on the event loop.

A `BatchBackend` gets one thread with the step loop; a plain `Backend` gets up to `slots` threads, one job each.
Pieces come back to the loop in batches, so that a fast backend does not wake it for every word.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
        self._jobs: dict[str, tuple[Job, asyncio.Queue[Piece]]] = {}
        self._done: deque[Piece] = deque()
        self._scheduled = False
        self._lock = threading.Lock()
        self._commands: queue.SimpleQueue[Job | str | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0

    async def load(self, path: Path | None) -> None:
        """Load on the lane's thread, then start serving."""
        await self._loop.run_in_executor(self._main, self.backend.load, path)
        if isinstance(self.backend, BatchBackend):
            self._main.submit(self._step_loop, self.backend)

    async def run(self, job: Job) -> AsyncIterator[Piece]:
        """Pieces of one job; the last one has `finished`. Leaving early cancels the job."""
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self._jobs[job.request] = (job, pieces)
        self._commands.put(job)
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
                yield piece
        finally:
            if not finished:
                self.cancel(job.request)
            self._jobs.pop(job.request, None)

    def cancel(self, request: str) -> None:
        """Ask a job to end; its last piece says `cancelled`."""
        found = self._jobs.get(request)
        if found is None:
            return
        if found[0].cancelled is not None:
            found[0].cancelled.set()
        if isinstance(self.backend, BatchBackend):
            self._commands.put(request)

    async def close(self) -> None:
        """End the threads and free the backend. Jobs still there fail as `Retryable`."""
        self._commands.put(None)
        for _ in self._threads:
            self._commands.put(None)
        for job, _ in list(self._jobs.values()):
            if job.cancelled is not None:
                job.cancelled.set()
        for thread in self._threads:
            await self._loop.run_in_executor(None, thread.join, 10.0)
        await self._loop.run_in_executor(self._main, self.backend.close)
        self._main.shutdown(wait=False)

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
            if found := self._jobs.get(piece.request):
                found[1].put_nowait(piece)

    def _step_loop(self, backend: BatchBackend) -> None:
        active: set[str] = set()
        while True:
            while not active or not self._commands.empty():
                command = self._commands.get()
                if command is None:
                    self._post([_failed(r, Retryable("the model is being unloaded")) for r in active])
                    return
                if isinstance(command, str):
                    backend.cancel(command)
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
                for request in active:
                    backend.cancel(request)
                pieces = [_failed(request, failure) for request in active]
            active.difference_update(p.request for p in pieces if p.finished is not None)
            self._post(pieces)

    def _staff(self) -> None:
        """Another thread when every thread is busy and slots are left."""
        if self._idle < self._commands.qsize() and len(self._threads) < self.backend.slots:
            thread = threading.Thread(target=self._serve, name=f"lane-{self.name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        while True:
            self._idle += 1
            job = self._commands.get()
            self._idle -= 1
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
        self._post([Piece(job.request, "", finished)])


def _failed(request: str, error: RoostError) -> Piece:
    return Piece(request, "", Finished(finish="error", error=error))
