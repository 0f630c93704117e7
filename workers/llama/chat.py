"""The chats of one model: jobs become works, the engine's pieces become the jobs' answers.

It joins `jobs`, `summarise`, `engine` and `answers`. What always holds: every added job gets exactly one `Piece` with
`finished`; a job that cannot be prepared fails alone; a step prepares no more than a bounded amount of text.
"""

from __future__ import annotations

import logging
from collections import deque

from schemas.errors import RoostError
from workers import Finished, Job, Piece
from workers.llama.answers import Answers
from workers.llama.engine.loop import Engine, failed
from workers.llama.jobs import Jobs, owner
from workers.llama.prompts.prompt import Prompt
from workers.llama.prompts.summarise import Summarise, Summarising

log = logging.getLogger(__name__)

PREPARED_CHARS_MAX = 20_000
"""Characters of new requests that one step turns into tokens; more waits for the next, so that steps stay short."""


class Chat:
    """Call `add`, `step` and `cancel` from one thread."""

    def __init__(self, jobs: Jobs, engine: Engine) -> None:
        self._jobs = jobs
        self.engine = engine
        self._answers = Answers()
        self._summarising = Summarising()
        self._fresh: deque[Job] = deque()
        self._cancelled: set[str] = set()

    @property
    def busy(self) -> bool:
        return bool(self._fresh) or self.engine.busy

    def add(self, job: Job) -> None:
        self._fresh.append(job)

    def cancel(self, request: str) -> None:
        """End a job with the next step; an unknown one is ignored."""
        if any(job.request == request for job in self._fresh):
            self._cancelled.add(request)
        else:
            self.engine.cancel(self._summarising.name(request))

    def step(self) -> list[Piece]:
        """Turn new jobs into works, then compute one batch."""
        pieces = self._prepare()
        passed, ready = self._summarising.take(self.engine.step())
        pieces += self._answers.pass_on(passed)
        for job, prompt in ready:
            pieces += self._go_on(job, prompt)
        return pieces

    def close(self) -> None:
        self.engine.close()

    def _prepare(self) -> list[Piece]:
        pieces = []
        chars = 0
        while self._fresh and chars < PREPARED_CHARS_MAX:
            job = self._fresh.popleft()
            chars += sum(len(m.text) for m in job.messages)
            if job.request in self._cancelled:
                self._cancelled.discard(job.request)
                pieces.append(Piece(job.request, "", Finished(finish="cancelled")))
            else:
                pieces += self._go_on(job, None)
        return pieces

    def _go_on(self, job: Job, prompt: Prompt | Summarise | None) -> list[Piece]:
        """The job's next work for the engine, or its end."""
        try:
            prompt = prompt or self._jobs.prompt(job)
            if isinstance(prompt, Summarise):
                self.engine.add(self._summarising.begin(job, prompt, owner(job)))
                return []
            works = self._jobs.works(job, prompt)
        except RoostError as error:
            return [failed(job.request, error)]
        except Exception as error:
            log.exception("request %s cannot be prepared", job.request)
            return [failed(job.request, RoostError(f"this request could not be prepared: {error}"))]
        self._answers.expect(job.request, len(works))
        for work in works:
            self.engine.add(work)
        return []
