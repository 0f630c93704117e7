"""One open request as pages see it, and what they are told about it. Pure.

What always holds: a patch replaces the blocks from `from` on, so that a page which applied all patches shows exactly
`Answer.blocks`.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct, field

from connectors.web.painting import Easel, Painting
from connectors.web.render import Blocks
from schemas.message import Attachment, Delta, Outbound, Problem, Route, State, Timings, Usage
from schemas.picture import Drawing


class Asked(Struct, frozen=True, kw_only=True):
    """A question as all pages show it. `id` is the asking page's own, empty when found again after a restart."""

    request: str
    conversation: str
    text: str
    id: str = ""
    model: str = ""
    attachments: tuple[Attachment, ...] = ()
    at: float = 0.0
    drawing: Drawing = Drawing()
    n: int = 1
    """Of pictures; with `drawing.size` it is the room that they will take."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """One open request with what is known of its answer."""

    asked: Asked
    state: State
    place: int | None
    html: list[str]
    painting: Painting | None


class Progress(Struct, frozen=True, kw_only=True):
    request: str
    conversation: str
    state: State
    place: int | None


class Patch(Struct, frozen=True, kw_only=True):
    """Blocks from index `start` on; earlier ones stay."""

    request: str
    conversation: str
    html: list[str]
    start: int = field(name="from")


class Final(Struct, frozen=True, kw_only=True):
    """The end of a request: the last patch, the plain text for copying, and how it went."""

    request: str
    conversation: str
    html: list[str]
    text: str
    model: str
    finish: str
    usage: Usage
    timings: Timings
    notes: tuple[str, ...]
    attachments: tuple[Attachment, ...]
    error: Problem | None
    route: Route | None
    start: int = field(name="from")


class Answer:
    """One open request: the text so far, as deltas told it, and its blocks."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.state: State = "queued"
        self.place: int | None = None
        self.attempt = 0
        self.blocks = Blocks()
        self.ended = asyncio.Event()
        self.easel: Easel | None = None
        self._text = ""
        self._from = 0

    def apply(self, delta: Delta, now: float = 0.0) -> bool:
        """Take one delta; returns whether the state or the place changed. Deltas of an older attempt are ignored.

        `now`: seconds of a clock that only goes forward, for the pace of pictures.
        """
        if delta.attempt < self.attempt:
            return False
        if delta.attempt > self.attempt:
            self.attempt, self._text, self._from, self.easel = delta.attempt, "", 0, None
        if delta.progress is not None:
            self.easel = self.easel or Easel(self.asked.request, self.asked.conversation)
            self.easel.take(delta.progress, now)
        if delta.text:
            at = delta.at - self._from
            if 0 <= at <= len(self._text):
                self._text = self._text[:at] + delta.text
            else:  # something was missed: show what comes from here on until the whole answer is there
                self._text, self._from = delta.text, delta.at
        before = (self.state, self.place)
        self.state, self.place = delta.state, delta.place
        return before != (self.state, self.place)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            asked=self.asked, state=self.state, place=self.place, html=self.blocks.html, painting=self.painting()
        )

    def painting(self) -> Painting | None:
        return self.easel.shown() if self.easel is not None else None

    def render(self) -> Patch:
        """Bring the blocks up to the text so far."""
        start = self.blocks.update("… " + self._text if self._from else self._text)
        return Patch(
            request=self.asked.request,
            conversation=self.asked.conversation,
            start=start,
            html=self.blocks.html[start:],
        )

    def progress(self) -> Progress:
        return Progress(
            request=self.asked.request, conversation=self.asked.conversation, state=self.state, place=self.place
        )

    def final(self, outbound: Outbound) -> Final:
        """The end as `outbound` has it, whatever the deltas said."""
        start = self.blocks.update(outbound.text)
        return Final(
            request=self.asked.request,
            conversation=self.asked.conversation,
            start=start,
            html=self.blocks.html[start:],
            text=outbound.text,
            model=outbound.model,
            finish=outbound.finish,
            usage=outbound.usage,
            timings=outbound.timings,
            notes=outbound.notes,
            attachments=outbound.attachments,
            error=outbound.error,
            route=outbound.route,
        )
