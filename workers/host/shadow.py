"""Shadow answers: a version that serves nobody yet answers copies of requests, after they have been answered.

What always holds: no request waits for it; it begins only while nothing else runs on its lane, drops what it cannot
do soon, and tells figures alone: nothing that it says is stored, sent or counted.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from msgspec.structs import replace

from bus.contract import Bus
from bus.stop import stop
from schemas.config import ModelConfig
from schemas.errors import RoostError
from schemas.message import Inbound, Outbound
from schemas.model import ShadowAnswer
from schemas.repeats import repeats
from schemas.session import Entry
from workers import Finished, Job
from workers.host.able import check_able
from workers.host.canary import drawn
from workers.host.lane import Lane
from workers.host.pipeline import job_of
from workers.host.resident import Resident, Withdrawn

log = logging.getLogger("roost.shadow")

WAITING_MAX = 4
"""Copies that wait; when more come, the oldest is dropped."""
ANSWER_S = 120.0
TOKENS_MAX = 512
COMPARED_WORDS = 200
"""Of each answer: comparing takes time that grows with the product of both."""
IDLE_LOOK_S = 0.25


class Shadow:
    """Copies for one version. Call `offer` for every answered request, `stop` before its lane serves or goes."""

    def __init__(self, bus: Bus, worker: str, model: ModelConfig, resident: Resident, tasks: asyncio.TaskGroup) -> None:
        self.percent = 0
        self._bus = bus
        self._worker = worker
        self._model = model
        self._resident = resident
        self._waiting: deque[tuple[Job, str]] = deque(maxlen=WAITING_MAX)
        self._came = asyncio.Event()
        self._task = tasks.create_task(self._run())

    def offer(self, inbound: Inbound, history: Sequence[Entry], reply: Outbound) -> None:
        """This was asked and answered; returns at once."""
        if reply.error is not None or reply.finish not in ("stop", "length") or inbound.sampling.n > 1:
            return
        if not drawn(f"shadow {inbound.id}", self.percent):
            return
        job = job_of(inbound, history, self._model)
        if job.kind in ("chat", "completion"):
            most = min(job.sampling.max_tokens or TOKENS_MAX, TOKENS_MAX)
            job = replace(job, request=f"shadow-{job.request}", sampling=replace(job.sampling, max_tokens=most))
            self._waiting.append((job, reply.text))
            self._came.set()

    async def stop(self) -> None:
        """End at once, also what is being answered."""
        self.percent = 0
        self._waiting.clear()
        await stop(self._task)

    async def _run(self) -> None:
        while True:
            self._came.clear()
            while self._waiting:
                if not self._resident.idle:
                    await asyncio.sleep(IDLE_LOOK_S)
                    continue
                job, given = self._waiting.popleft()
                try:
                    await self._answer(job, given)
                except Withdrawn:
                    pass
                except RoostError as error:
                    log.debug("no shadow answer: %s", error.message)
                except Exception:
                    log.exception("no shadow answer")
            await self._came.wait()

    async def _answer(self, job: Job, given: str) -> None:
        async with self._resident.use(job.request) as lane:
            check_able(job, lane.name, lane.backend.kinds, lane.backend.abilities)
            heard = await _heard(lane, job)
            version = lane.version
        compared = await asyncio.to_thread(_compared, heard.text, given)
        body = ShadowAnswer(
            model=self._model.name,
            version=version,
            worker=self._worker,
            at=time.time(),
            ok=heard.ok,
            text_chars=len(heard.text),
            repeats=round(compared[0], 3),
            alike=round(compared[1], 3),
            first_ms=round(heard.first_ms, 3),
            token_ms=round(heard.token_ms, 3),
        )
        await self._bus.event("shadow", self._model.name, body=body)


class _Heard:
    text = ""
    ok = False
    first_ms = 0.0
    token_ms = 0.0


async def _heard(lane: Lane, job: Job) -> _Heard:
    """The answer and its times; one that takes too long is none."""
    heard, begun, finished = _Heard(), time.monotonic(), Finished(finish="error")
    try:
        async with asyncio.timeout(ANSWER_S):
            async for piece in lane.run(replace(job, cancelled=threading.Event())):
                if piece.text and not heard.first_ms:
                    heard.first_ms = (time.monotonic() - begun) * 1000
                heard.text += piece.text
                finished = piece.finished or finished
    except TimeoutError:
        return heard
    heard.ok = finished.error is None and finished.finish in ("stop", "length")
    further = finished.usage.completion_tokens - 1
    if further > 0:
        heard.token_ms = ((time.monotonic() - begun) * 1000 - heard.first_ms) / further
    return heard


def _compared(text: str, given: str) -> tuple[float, float]:
    """How far it repeats itself, and how much it resembles the other. Blocking."""
    words = (text.split()[:COMPARED_WORDS], given.split()[:COMPARED_WORDS])
    return repeats(text), difflib.SequenceMatcher(None, *words, autojunk=False).ratio()
