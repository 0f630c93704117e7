"""The bench on which the rules of `contract.py` try a backend: the real lane, and a watch between it and the backend.

Knows no rule. What always holds: the backend is loaded, used and closed as a worker does it; the watch changes nothing
that passes through it, and its gate only holds the backend between two steps, where any machine might have paused.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from schemas.config import settings_of
from schemas.errors import ConfigError
from schemas.message import Message, Sampling
from schemas.picture import Drawing, Progress
from workers import Backend, BatchBackend, Finished, Job, Piece
from workers.host.lane import Lane

PROMPTS = tuple(f"{n} birds — zwölf Hühner, 三只鸡 and a 🐔 {word}" for n, word in enumerate("abcdef"))


class Broken(AssertionError):
    """A rule is broken; the sentence says what the backend did wrong."""


class BackendCase(Struct, frozen=True):
    """One backend as it is to be tried: its settings as in `models[]`, a file it can load, and what it can do."""

    kind: type[Backend]
    settings: dict[str, Any] = {}
    path: Path | None = None
    slots: int | None = None
    prompts: tuple[str, ...] = PROMPTS
    """Texts of different answers; that to the first one is longer than `max_tokens`."""
    sampling: Sampling = Sampling(seed=7)
    """How all jobs are generated: where arithmetic depends on what else is computed, say `temperature=0`."""
    drawing: Drawing | None = None
    """How all jobs draw, where the backend makes pictures: progress then counts as text, and pictures by their hash."""
    max_tokens: int = 3
    honours_stop: bool = False
    """It looks at `sampling.stop`; a backend for which stop strings make no sense need not."""
    load_s: float = 60.0
    answer_s: float = 20.0
    cancel_s: float = 2.0
    """How long a cancelled job may go on, and how long `close` may take."""


class Watch:
    """What a backend said, as its own threads saw it, and the gate that holds it between two steps."""

    def __init__(self, limit_s: float) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.hold = False
        """Close the gate after the next text."""
        self.stray = False
        """Cancel jobs that the backend does not know (any more)."""
        self.said: dict[str, list[str | Finished]] = {}
        self.steps = 0
        self.wrong: list[str] = []
        self._limit_s = limit_s

    def wait(self) -> None:
        self.gate.wait(self._limit_s)
        self.steps += 1

    def note(self, request: str, item: object) -> None:
        if isinstance(item, Progress):
            return
        if not isinstance(item, str | Finished):
            wanted = "only str, Progress and Finished are answers"
            self.wrong.append(f"yielded {type(item).__name__} ({item!r:.60}); {wanted}")
            return
        self.said.setdefault(request, []).append(item)
        if isinstance(item, str) and item and self.hold:
            self.hold = False
            self.gate.clear()

    def of(self, request: str) -> list[str | Finished]:
        """What was said for a job; the lane gives each run a name of its own, `request.number`."""
        return next((said for name, said in self.said.items() if name.rpartition(".")[0] == request), [])


class _Plain(Backend):
    """A plain backend and its watch."""

    def __init__(self, inner: Backend, watch: Watch) -> None:
        super().__init__(inner.settings, inner.slots)
        self.load, self.close = inner.load, inner.close  # type: ignore[method-assign]
        self._inner, self._watch = inner, watch

    def generate(self, job: Job) -> Iterator[str | Progress | Finished]:
        self._watch.wait()
        items = iter(self._inner.generate(job))
        for item in items:
            self._watch.note(job.request, item)
            if isinstance(item, Finished):
                for more in itertools.islice(items, 8):
                    self._watch.note(job.request, more)
            yield item
            self._watch.wait()


class _Batch(BatchBackend):
    """A batch backend and its watch."""

    def __init__(self, inner: BatchBackend, watch: Watch) -> None:
        super().__init__(inner.settings, inner.slots)
        self.load, self.close = inner.load, inner.close  # type: ignore[method-assign]
        self._inner, self._watch = inner, watch
        self._added: set[str] = set()

    def add(self, job: Job) -> None:
        self._stray("a request that nobody made")
        self._added.add(job.request)
        self._inner.add(job)

    def cancel(self, request: str) -> None:
        self._inner.cancel(request)

    def step(self) -> Sequence[Piece]:
        self._watch.wait()
        pieces = list(self._inner.step())
        for piece in pieces:
            if piece.request not in self._added:
                self._watch.wrong.append(f"step() brought a piece of {piece.request!r}, which was never added")
            if piece.text:
                self._watch.note(piece.request, piece.text)
            if piece.progress is not None:
                self._watch.note(piece.request, f"step {piece.progress.step}")
            if piece.finished is not None:
                self._watch.note(piece.request, piece.finished)
                self._stray(piece.request)
        return pieces

    def _stray(self, request: str) -> None:
        if self._watch.stray:
            try:
                self._inner.cancel(request)
            except Exception as error:  # noqa: BLE001  a plug-in may raise anything
                self._watch.wrong.append(f"cancel({request!r}), a job that is not there, raised {error!r}")


class Answer(Struct, frozen=True):
    """One job's answer as the lane gave it, and what the backend itself said for it."""

    text: str
    finished: Finished
    said: list[str | Finished]

    @property
    def tokens(self) -> int:
        """Tokens of the answer by the backend's own count, or its pieces where it counts none."""
        return self.finished.usage.completion_tokens or sum(isinstance(item, str) for item in self.said)


class Bench:
    """A loaded backend on a lane."""

    def __init__(self, case: BackendCase, backend: Backend) -> None:
        self.case = case
        self.backend = backend
        self.watch = Watch(case.answer_s)
        watched = _Batch(backend, self.watch) if isinstance(backend, BatchBackend) else _Plain(backend, self.watch)
        self.lane = Lane(case.kind.__name__, watched)
        self._count = itertools.count()
        self._closed = False

    def job(self, prompt: str | None = None, **sampling: Any) -> Job:
        return job_of(self.case, next(self._count), prompt, **sampling)

    async def ask(self, job: Job, begun: asyncio.Event | None = None) -> Answer:
        """Run one job to its end; `begun` is set at its first text."""
        text = ""
        try:
            async with asyncio.timeout(self.case.answer_s), aclosing(self._run(job)) as pieces:
                async for piece in pieces:
                    text += piece.text
                    if (piece.text or piece.progress is not None) and begun is not None:
                        begun.set()
                    if piece.finished is not None:
                        text += pictures_of(piece.finished)
                        return Answer(text, piece.finished, self.watch.of(job.request))
        except TimeoutError:
            raise Broken(f"no `finished` came within {self.case.answer_s:g} s; so far it said {text!r:.80}") from None
        finally:
            if begun is not None:
                begun.set()
            if self.watch.wrong:
                raise Broken(self.watch.wrong[0])
        raise Broken("its pieces ended without `finished`")

    def _run(self, job: Job) -> AsyncGenerator[Piece, None]:
        pieces = self.lane.run(job)
        assert isinstance(pieces, AsyncGenerator)
        return pieces

    async def answer(self, job: Job) -> Answer:
        """`ask`, for a job with which nothing is wrong."""
        answer = await self.ask(job)
        if (error := answer.finished.error) is not None:
            raise Broken(f"the job {job.text!r:.60} failed: {type(error).__name__}: {error.message}")
        return answer

    async def close(self) -> None:
        """Once, however often it is asked for."""
        if self._closed:
            return
        self._closed = True
        self.watch.gate.set()
        try:
            async with asyncio.timeout(self.case.cancel_s):
                await self.lane.close()
        except TimeoutError:
            raise Broken(f"close() and the end of its jobs took more than {self.case.cancel_s:g} s") from None
        except Exception as error:
            raise Broken(f"close() raised {error!r}") from error


def pictures_of(finished: Finished) -> str:
    """The hashes of its pictures, for comparison."""
    return " ".join(hashlib.sha256(picture.data).hexdigest() for picture in finished.pictures)


def job_of(case: BackendCase, number: int, prompt: str | None = None, **sampling: Any) -> Job:
    return Job(
        request=f"contract-{number}",
        messages=(Message("user", case.prompts[0] if prompt is None else prompt),),
        kind="chat" if case.drawing is None else "image",
        drawing=case.drawing or Drawing(),
        tenant=f"tenant-{number}",
        conversation=f"contract.{number}",
        sampling=replace(case.sampling, **sampling),
        cancelled=threading.Event(),
    )


def made(case: BackendCase) -> Backend:
    """The backend with the case's settings, as the worker makes it."""
    try:
        return case.kind(settings_of(case.kind.Settings, case.settings, "the case"), case.slots)
    except ConfigError as error:
        raise Broken(f"its Settings do not take the case's settings: {error.message}") from None


@asynccontextmanager
async def opened(case: BackendCase) -> AsyncIterator[Bench]:
    """Load; close afterwards. What goes wrong first is what is told."""
    bench = Bench(case, made(case))
    try:
        async with asyncio.timeout(case.load_s):
            await bench.lane.load(case.path)
        bench.lane.backend.slots = bench.backend.slots
    except TimeoutError:
        raise Broken(f"load({case.path}) took more than {case.load_s:g} s") from None
    except Exception as error:
        raise Broken(f"load({case.path}), which should work, raised {error!r}") from error
    try:
        yield bench
    except BaseException:
        with suppress(Broken):
            await bench.close()
        raise
    await bench.close()
