"""Lanes: one model's thread or threads, and what comes back from them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from schemas.errors import Rejected, Retryable
from schemas.message import Message, TokenLogprob
from tests.bus.real import soon
from workers import Backend, BackendSettings, BatchBackend, Finished, Job, Piece
from workers.echo import EchoBackend
from workers.host.lane import Lane, Superseded, joined
from workers.host.priority import CAN_LOWER, LOW


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
async def lane_of(backend: Backend, path: Path | None = None, *, quiet: bool = False) -> AsyncIterator[Lane]:
    lane = Lane("test", backend, quiet=quiet)
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


def test_pieces_that_come_together_are_joined_for_each_answer_and_never_mixed_up() -> None:
    def piece(text: str, choice: int = 0, finished: Finished | None = None) -> Piece:
        return Piece("lane.1", text, finished, choice, tuple(TokenLogprob(c, -1.0) for c in text))

    came = [piece("a"), piece("x", 1), piece("b"), piece("y", 1), piece("c", 0, Finished())]
    second, first = joined("r", came)
    assert (second.request, second.text, second.choice, second.finished) == ("r", "xy", 1, None)
    assert (first.request, first.text, first.choice, first.finished) == ("r", "abc", 0, Finished())
    assert ["".join(t.token for t in p.logprobs) for p in (first, second)] == ["abc", "xy"]
    assert joined("r", came[:1]) == [Piece("r", "a", None, 0, (TokenLogprob("a", -1.0),))]


async def test_a_backend_that_cannot_load_says_why() -> None:
    class Broken(Stepper):
        def load(self, path: Path | None) -> None:
            raise ValueError("no such format")

    lane = Lane("test", Broken())
    with pytest.raises(ValueError, match="no such format"):
        await lane.load(None)


# -- quiet lanes ----------------------------------------------------------------------------------------------


class Nice(Stepper):
    """Says in each step at which priority it is computed."""

    def __init__(self, steps: int = 400) -> None:
        super().__init__()
        self.steps = steps
        self.open: dict[str, int] = {}
        self.fronted = 0
        self.warmed = False

    def warm_up(self) -> None:
        self.warmed = True

    def to_front(self) -> None:
        self.fronted += 1

    def add(self, job: Job) -> None:
        self.open[job.request] = self.steps

    def cancel(self, request: str) -> None:
        if request in self.open:
            self.open[request] = 0

    def step(self) -> Sequence[Piece]:
        threading.Event().wait(0.002)
        pieces = []
        for request, left in list(self.open.items()):
            self.open[request] = left - 1
            if left <= 0:
                del self.open[request]
            finish = "cancelled" if left == 0 and self.steps else "stop"
            done = Finished(finish=finish) if left <= 0 else None
            pieces.append(Piece(request, f"{nice()} " if left > 0 else "", done))
        return pieces


class NiceWords(EchoBackend):
    def generate(self, job: Job) -> Iterator[str | Finished]:
        for item in super().generate(job):
            yield f"{nice()} " if isinstance(item, str) else item


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


needs_linux = pytest.mark.skipif(not CAN_LOWER, reason="threads have no priority of their own here")


@needs_linux
async def test_a_quiet_lane_works_at_low_priority_until_it_comes_to_the_front_and_loses_nothing() -> None:
    backend = Nice()
    async with lane_of(backend, quiet=True) as lane:
        assert backend.warmed
        running = lane.run(job("r1"))
        first = await anext(running)
        assert set(first.text.split()) == {str(LOW)}
        lane.to_front()
        lane.to_front()
        words = "".join([piece.text async for piece in running]).split()
    assert words[-1] == str(nice())
    assert len(words) + len(first.text.split()) == 400
    assert backend.fronted == 1


@needs_linux
async def test_jobs_of_a_plain_backend_end_on_the_quiet_threads_and_new_ones_get_others() -> None:
    async with lane_of(NiceWords(EchoBackend.Settings(delay_token_ms=20.0), 2), quiet=True) as lane:
        early = asyncio.create_task(said(lane, job("r1", "a b c d e f")))
        await soon(lambda: any(run.said for run in lane._runs.values()), "it runs")
        lane.to_front()
        late = await said(lane, job("r2", "a b"))
        assert (await early)[0].split() == [str(LOW)] * 6
    assert late[0].split() == [str(nice())] * 2


async def test_a_lane_that_comes_to_the_front_can_be_closed_at_once() -> None:
    for backend in (Nice(), EchoBackend(EchoBackend.Settings())):
        lane = Lane("test", backend, quiet=True)
        await lane.load(None)
        lane.to_front()
        await asyncio.wait_for(lane.close(), 5.0)


async def test_superseded_runs_that_have_said_nothing_end_so_and_the_others_go_on() -> None:
    async with lane_of(EchoBackend(EchoBackend.Settings(delay_ms=60.0, delay_token_ms=60.0))) as lane:
        talking = asyncio.create_task(said(lane, job("r1", "a b c d")))
        await soon(lambda: any(run.said for run in lane._runs.values()), "it talks")
        silent = asyncio.create_task(said(lane, job("r2", "a b")))
        cancelled = asyncio.create_task(said(lane, job("r3", "a b")))
        await soon(lambda: len(lane._runs) == 3, "all run")
        lane.supersede()
        lane.cancel("r3")
        with pytest.raises(Superseded):
            await silent
        assert (await cancelled)[1].finish == "cancelled"
        assert (await talking)[0] == "a b c d"
