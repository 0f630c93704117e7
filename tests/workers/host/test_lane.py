"""Lanes: one model's thread or threads, and what comes back from them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from schemas.errors import Rejected, Retryable
from schemas.message import Message
from tests.bus.real import soon
from workers import Backend, BackendSettings, BatchBackend, Finished, Job, Piece
from workers.echo import EchoBackend
from workers.host.lane import Lane


def job(request: str, text: str = "one two three") -> Job:
    return Job(request=request, messages=(Message("user", text),), cancelled=threading.Event())


async def said(lane: Lane, job: Job) -> tuple[str, Finished]:
    text, finished = "", None
    async for piece in lane.run(job):
        assert piece.request == job.request
        text += piece.text
        finished = piece.finished
    assert finished is not None
    return text, finished


@contextlib.asynccontextmanager
async def lane_of(backend: Backend, path: Path | None = None) -> AsyncIterator[Lane]:
    lane = Lane("test", backend)
    await lane.load(path)
    try:
        yield lane
    finally:
        await lane.close()


class Gated(Backend):
    """Says a word, waits for its gate, says another; counts how many do so at once."""

    def __init__(self, slots: int = 1) -> None:
        super().__init__(BackendSettings(), slots)
        self.gate = threading.Event()
        self.threads: set[int] = set()
        self.inside = 0
        self.most = 0
        self.lock = threading.Lock()

    def generate(self, job: Job) -> Iterator[str | Finished]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.threads.add(threading.get_ident())
        try:
            yield "begun"
            self.gate.wait(10)
            if job.text == "fail":
                raise ValueError("broken")
            if job.text == "refuse":
                raise Rejected("not that", code="policy")
            yield " ended"
        finally:
            with self.lock:
                self.inside -= 1


class Stepper(BatchBackend):
    """Says one word of each job in each step; fails where the job says so."""

    slots = 8

    def __init__(self) -> None:
        super().__init__(BackendSettings())
        self.jobs: dict[str, list[str]] = {}
        self.gone: list[str] = []
        self.loaded: Path | None = None
        self.closed = False
        self.threads: set[int] = set()

    def load(self, path: Path | None) -> None:
        self.loaded = path
        self.threads.add(threading.get_ident())

    def close(self) -> None:
        self.closed = True
        self.threads.add(threading.get_ident())

    def add(self, job: Job) -> None:
        if job.text == "refused":
            raise Rejected("no", code="policy")
        self.jobs[job.request] = job.text.split(" ")

    def step(self) -> Sequence[Piece]:
        self.threads.add(threading.get_ident())
        pieces = [Piece(r, "", Finished(finish="cancelled")) for r in self.gone]
        self.gone.clear()
        for request, words in list(self.jobs.items()):
            if words[0] == "boom":
                raise ValueError("the step failed")
            if words[0] == "endless":
                pieces.append(Piece(request, "."))
                continue
            pieces.append(Piece(request, words.pop(0), Finished() if not words else None))
            if not words:
                del self.jobs[request]
        return pieces

    def cancel(self, request: str) -> None:
        if self.jobs.pop(request, None) is not None:
            self.gone.append(request)


async def test_a_plain_backend_answers_on_threads_of_its_own() -> None:
    backend = Gated(slots=3)
    async with lane_of(backend) as lane:
        running = [asyncio.create_task(said(lane, job(f"r{i}"))) for i in range(5)]
        await soon(lambda: backend.inside == 3, "three slots are busy")
        backend.gate.set()
        results = await asyncio.gather(*running)
    assert [text for text, _ in results] == ["begun ended"] * 5
    assert all(finished.finish == "stop" for _, finished in results)
    assert backend.most == 3
    assert threading.get_ident() not in backend.threads


async def test_one_failing_job_fails_alone() -> None:
    backend = Gated(slots=3)
    backend.gate.set()
    async with lane_of(backend) as lane:
        good, bad, refused = await asyncio.gather(
            said(lane, job("good")), said(lane, job("bad", "fail")), said(lane, job("refused", "refuse"))
        )
        assert good == ("begun ended", Finished())
        assert isinstance(bad[1].error, Retryable)
        assert bad[1].error.code == "model_failed"
        assert isinstance(refused[1].error, Rejected), "an error of our own keeps its reaction"
        assert await said(lane, job("after")) == ("begun ended", Finished())


async def test_a_cancelled_job_ends_with_what_it_has() -> None:
    async with lane_of(EchoBackend(EchoBackend.Settings(delay_token_ms=50.0))) as lane:
        words = job("r", " ".join(["word"] * 1_000))
        text = ""
        async for piece in lane.run(words):
            text += piece.text
            lane.cancel("r")
            lane.cancel("unknown")
        assert piece.finished is not None
        assert piece.finished.finish == "cancelled"
        assert 0 < len(text) < 200


async def test_leaving_early_cancels_the_job() -> None:
    async with lane_of(EchoBackend(EchoBackend.Settings(delay_token_ms=20.0))) as lane:
        left = job("r", " ".join(["word"] * 1_000))
        stream = lane.run(left)
        async for _ in stream:
            break
        await stream.aclose()
        assert left.cancelled is not None
        assert left.cancelled.is_set()
        assert (await said(lane, job("r", "again")))[0] == "again", "the same request may come again at once"


async def test_a_batch_backend_serves_many_jobs_on_one_thread(tmp_path: Path) -> None:
    backend = Stepper()
    async with lane_of(backend, tmp_path) as lane:
        results = await asyncio.gather(*(said(lane, job(f"r{i}", f"a b {i}")) for i in range(8)))
        assert [text for text, _ in results] == [f"ab{i}" for i in range(8)]
    assert backend.loaded == tmp_path
    assert backend.closed
    assert len(backend.threads) == 1
    assert threading.get_ident() not in backend.threads


async def test_a_failing_step_fails_the_jobs_in_it_and_no_later_one() -> None:
    async with lane_of(Stepper()) as lane:
        endless = asyncio.create_task(said(lane, job("with", "endless")))
        boom = asyncio.create_task(said(lane, job("bad", "boom")))
        for task in (endless, boom):
            error = (await task)[1].error
            assert isinstance(error, Retryable)
            assert error.code == "model_failed"
        assert (await said(lane, job("with", "a b c"))) == ("abc", Finished()), "the same requests come again"
        assert (await said(lane, job("bad", "fine"))) == ("fine", Finished())


async def test_a_job_that_cannot_be_added_fails_alone() -> None:
    async with lane_of(Stepper()) as lane:
        refused, good = await asyncio.gather(said(lane, job("r1", "refused")), said(lane, job("r2", "a b")))
        assert isinstance(refused[1].error, Rejected)
        assert good == ("ab", Finished())


async def test_cancelling_in_a_batch_ends_one_job() -> None:
    async with lane_of(Stepper()) as lane:
        endless = asyncio.create_task(said(lane, job("endless", "endless")))
        other = asyncio.create_task(said(lane, job("other", "endless")))
        await asyncio.gather(said(lane, job("r", "a b c d e f")))
        lane.cancel("endless")
        text, finished = await endless
        assert finished.finish == "cancelled"
        assert set(text) == {"."}
        assert not other.done()
        lane.cancel("other")
        await other


@pytest.mark.parametrize("kind", ["batch", "plain"])
async def test_closing_fails_what_is_left_so_that_it_is_tried_again(kind: str) -> None:
    plain, batch = EchoBackend(EchoBackend.Settings(delay_token_ms=20.0), 1), Stepper()
    lane = Lane("test", batch if kind == "batch" else plain)
    await lane.load(None)
    text = "endless" if kind == "batch" else " ".join(["word"] * 1_000)
    begun = asyncio.Event()

    async def listen(request: str) -> Finished:
        async for piece in lane.run(job(request, text)):
            begun.set()
            last = piece
        assert last.finished is not None
        return last.finished

    running = [asyncio.create_task(listen(f"r{i}")) for i in range(3)]
    await begun.wait()
    await lane.close()
    for task in running:
        error = (await task).error
        assert isinstance(error, Retryable)
        assert error.code == "model_unloaded"
    with pytest.raises(Retryable, match="unloaded"):
        await said(lane, job("late"))


async def test_a_backend_that_cannot_load_says_why() -> None:
    class Broken(Stepper):
        def load(self, path: Path | None) -> None:
            raise ValueError("no such format")

    lane = Lane("test", Broken())
    with pytest.raises(ValueError, match="no such format"):
        await lane.load(None)
