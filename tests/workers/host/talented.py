"""A small batch backend that can do all that a request may ask for, out of the words of its message."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from schemas.message import Choice, TokenLogprob, ToolCall, Usage
from workers import Ability, BackendSettings, BatchBackend, Finished, Job, Piece

ALL: frozenset[Ability] = frozenset({"tools", "format", "logprobs", "n", "logit_bias", "adapter"})


class TalentedBackend(BatchBackend):
    """One word of every answer in each step; the crab comes in two halves, as tokens do."""

    kinds = frozenset({"chat", "completion", "embedding"})
    abilities = ALL
    slots = 4
    version = "talented-1"

    def __init__(self) -> None:
        super().__init__(BackendSettings())
        self.jobs: dict[str, Job] = {}
        self.said: dict[str, int] = {}
        self.seen: list[Job] = []

    def add(self, job: Job) -> None:
        self.jobs[job.request], self.said[job.request] = job, 0
        self.seen.append(job)

    def step(self) -> Sequence[Piece]:
        pieces: list[Piece] = []
        for job in list(self.jobs.values()):
            pieces += self._step(job)
        return pieces

    def _step(self, job: Job) -> list[Piece]:
        request, sampling = job.request, job.sampling
        words = job.text.split(" ")
        if job.kind == "embedding":
            return [self._end(job, Finished(embeddings=tuple(struct.pack("<2f", 1, 0) for _ in job.inputs)))]
        if sampling.tools:
            call = ToolCall("call_1", sampling.tools[0].name, '{"city":"Bonn"}')
            return [self._end(job, Finished(finish="tool_calls", tool_calls=(call,)))]
        at = self.said[request]
        if at < len(words):
            self.said[request] = at + 1
            return [piece for i in range(sampling.n) for piece in spoken(job, i, at)]
        more = tuple(
            Choice(
                text=text_of(job, i),
                logprobs=sum((p.logprobs for w in range(len(words)) for p in spoken(job, i, w)), ()),
            )
            for i in range(1, sampling.n)
        )
        return [self._end(job, Finished(more=more, usage=Usage(len(words), len(words) * sampling.n)))]

    def _end(self, job: Job, finished: Finished) -> Piece:
        del self.jobs[job.request]
        return Piece(job.request, "", finished)

    def cancel(self, request: str) -> None:
        self.jobs.pop(request, None)


def text_of(job: Job, choice: int) -> str:
    return job.text if choice == 0 else f"{job.text}{choice}".upper()


def spoken(job: Job, choice: int, word: int) -> list[Piece]:
    """The pieces of one word: two tokens, of which the first alone may be no whole character."""
    words = text_of(job, choice).split(" ")
    text = words[word] if word == 0 else " " + words[word]
    asked = job.sampling.logprobs is not None
    if text.strip() == "🦀":
        data = text.encode()
        halves = (data[:-2], data[-2:])
        tokens = tuple(TokenLogprob("\ufffd", -1.0, tuple(half)) for half in halves) if asked else ((), ())
        return [
            Piece(job.request, "", None, choice, tokens[:1] if asked else ()),
            Piece(job.request, text, None, choice, tokens[1:] if asked else ()),
        ]
    logprobs = (TokenLogprob(text, -0.5, tuple(text.encode())),) if asked else ()
    return [Piece(job.request, text, None, choice, logprobs)]
