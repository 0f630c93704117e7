"""Summaries in the place of a conversation's oldest turns, written by the model itself before it answers.

`Condensing` is the way of one conversation from too long to a prompt, one generation after another; `Summarising` knows
which jobs are on it, for the backend. Neither computes: a `Summarise` says what to generate, and `then` takes the text.
What always holds: the way ends, with the summary or without it, and then the answer's notes say why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from schemas.errors import RoostError
from schemas.message import Message
from workers import Finished, Job, Piece
from workers.llama.engine.cache import OPERATOR
from workers.llama.engine.machine import SamplerSpec
from workers.llama.engine.request import Work
from workers.llama.prompts import overflow
from workers.llama.prompts.tools import NOTHING, Offered

if TYPE_CHECKING:
    from workers.llama.prompts.prompt import Prompt, Prompts

REPEAT_PENALTY = 1.1
"""Small models repeat themselves when they summarise at temperature 0."""


class Summarise(Struct, frozen=True):
    """Generate `reply_max` tokens at most from `prompt`; `then(text)` is the next step. An empty text means failure."""

    prompt: Prompt
    reply_max: int
    then: Callable[[str], Prompt | Summarise]


class Long(Struct, frozen=True):
    """A conversation of `tokens` tokens that does not fit `room`; `most` is what fits when the reply is short.

    `fixed` messages at its beginning stay; the first `shared` of them are the operator's.
    """

    messages: list[Message]
    tokens: int
    room: int
    most: int
    fixed: int
    shared: int
    owner: str
    conversation: str
    offered: Offered = NOTHING

    def without(self, start: int) -> list[Message]:
        """The messages that stay when the kept part begins at `start`."""
        return self.messages[: self.fixed] + self.messages[start:]


class Condensing:
    """What is dropped of `long` is what lies before `start`; `dropped` is the prompt without a summary."""

    def __init__(self, prompts: Prompts, long: Long, start: int, dropped: Prompt) -> None:
        self._prompts = prompts
        self._long = long
        self._start = start
        self._dropped = dropped
        self._gone = long.messages[long.fixed : start]
        self._most = overflow.summary_tokens(prompts.window)
        self._parts: list[overflow.Part] = []
        self._unread = 0

    def begin(self) -> Prompt | Summarise:
        """Take up the summary that is known, and ask for the rest."""
        known, before = self._prompts.summaries.find(self._long.owner, self._long.conversation, self._gone)
        frame = len(self._request("", ()).tokens)
        room = self._prompts.window - frame - 2 * self._most - overflow.SLACK_TOKENS
        if room < overflow.PART_TOKENS_MIN:
            return self._failed("the window is too small for a summary")
        parts = overflow.parts(self._gone, known, room, self._prompts.size)
        self._parts = parts[-overflow.PARTS_MAX :]
        if len(parts) > len(self._parts):
            self._unread = parts[-len(self._parts) - 1].upto - known
        return self._ask(0, before)

    def _ask(self, index: int, before: str) -> Prompt | Summarise:
        if index == len(self._parts):
            return self._told(before)
        prompt = self._request(before, self._parts[index].lines)
        if len(prompt.tokens) > self._prompts.window - self._most:
            return self._failed("they are too long to summarise")
        return Summarise(prompt, self._most, partial(self._then, index))

    def _then(self, index: int, text: str) -> Prompt | Summarise:
        text = self._prompts.defused(text.strip())
        if not text:
            return self._failed("the model wrote no summary of them")
        if covered := self._gone[: self._parts[index].upto]:
            self._prompts.summaries.keep(self._long.owner, self._long.conversation, covered, text)
        return self._ask(index + 1, text)

    def _told(self, text: str) -> Prompt:
        long = self._long
        messages = overflow.with_summary(long.without(self._start), long.fixed, text)
        note = overflow.summarised(len(self._gone), self._unread, long.tokens, self._prompts.window)
        prompt = self._prompts.built(messages, long.shared, (note,), long.offered)
        return prompt if len(prompt.tokens) <= long.most else self._failed("their summary does not fit")

    def _request(self, before: str, lines: Sequence[str]) -> Prompt:
        return self._prompts.built(overflow.request(before, lines, self._most // 2), shared=1)

    def _failed(self, why: str) -> Prompt:
        first, *rest = self._dropped.notes
        return structs.replace(self._dropped, notes=(f"{first.removesuffix('.')}; {why}.", *rest))


class Summarising:
    """The jobs whose older turns are being summarised, each by a request of the engine with a name of its own."""

    def __init__(self) -> None:
        self._under_way: dict[str, tuple[Job, Summarise, list[str]]] = {}

    def begin(self, job: Job, wanted: Summarise, owner: str) -> Work:
        """The engine's request for the next summary. Its words are `owner`'s, as those of the job itself."""
        name = _name(job.request)
        self._under_way[name] = (job, wanted, [])
        return Work(
            request=name,
            tokens=wanted.prompt.tokens,
            operator=wanted.prompt.operator,
            owner=owner,
            above=OPERATOR,
            conversation="",
            sampler=SamplerSpec(repeat_penalty=REPEAT_PENALTY),
            stops=(),
            reply_max=wanted.reply_max,
        )

    def name(self, request: str) -> str:
        """Under which name the engine knows `request` now, to cancel it."""
        return _name(request) if _name(request) in self._under_way else request

    def take(self, pieces: Iterable[Piece]) -> tuple[list[Piece], list[tuple[Job, Prompt | Summarise]]]:
        """The pieces without those of summaries, and the jobs that can go on, with what they go on to."""
        passed, ready = [], []
        for piece in pieces:
            if piece.request not in self._under_way:
                passed.append(piece)
                continue
            job, wanted, texts = self._under_way[piece.request]
            texts.append(piece.text)
            if piece.finished is None:
                continue
            del self._under_way[piece.request]
            if piece.finished.finish == "cancelled":
                passed.append(Piece(job.request, "", Finished(finish="cancelled")))
                continue
            try:
                ready.append((job, wanted.then("" if piece.finished.error else "".join(texts))))
            except RoostError as error:
                passed.append(Piece(job.request, "", Finished(finish="error", error=error)))
        return passed, ready


def _name(request: str) -> str:
    return f"{request} summary"
