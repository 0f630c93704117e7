"""The page's own JSON interface, without HTTP: what is asked, what is answered, what is refused.

Conversations go by the id the page made or by the token that comes back with the first answer; both work everywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TypeVar

import msgspec
from msgspec import Struct

from connectors import Host, Inbound
from connectors.web.answer import Answer, Asked, Snapshot
from connectors.web.models import NOT_FOR_CHAT, Model, models, paints
from connectors.web.render import whole
from connectors.web.stream import OWNER, Feed
from connectors.web.wish import DrawingWish, SamplingWish
from schemas.errors import Rejected
from schemas.message import Attachment, Problem, RequestState, Role, Route, Sender, State
from schemas.session import Entry, SessionInfo

ID_CHARS_MAX = 128
TITLE_CHARS_MAX = 80
STOP_WAIT_S = 5.0
T = TypeVar("T", bound=Struct)


class Login(Struct, frozen=True):
    code: str


class NewMessage(Struct, frozen=True, kw_only=True):
    """A question. `id` is the page's own: sent twice, it is asked once."""

    id: str
    text: str
    model: str = ""
    attachments: tuple[Attachment, ...] = ()
    language: str = ""
    drawing: DrawingWish = DrawingWish()
    sampling: SamplingWish = SamplingWish()


class Again(Struct, frozen=True, kw_only=True):
    """Ask question `request` again as a new one with `id`; what came after it is dropped.

    A conversation keeps no wishes about pictures, so they come along anew.
    """

    id: str
    request: str
    model: str = ""
    language: str = ""
    drawing: DrawingWish = DrawingWish()
    sampling: SamplingWish = SamplingWish()


class Taken(Struct, frozen=True, kw_only=True):
    request: str
    conversation: str
    state: State
    place: int | None
    duplicate: bool


class Line(Struct, frozen=True, kw_only=True):
    """One entry of a conversation; `html` is for answers, questions are shown as they were typed."""

    role: Role
    request: str
    text: str
    html: tuple[str, ...]
    at: float
    model: str
    finish: str
    notes: tuple[str, ...]
    attachments: tuple[Attachment, ...]
    error: Problem | None
    route: Route | None


class Talk(Struct, frozen=True, kw_only=True):
    conversation: str
    entries: list[Line]
    pending: list[Snapshot]


def decode(body: bytes, kind: type[T]) -> T:
    """A request body as `kind`; raises `Rejected`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"the body is not what was expected: {error}", code="bad_request") from None


def _line(entry: Entry) -> Line:
    return Line(
        role=entry.role,
        request=entry.request,
        text=entry.text,
        html=whole(entry.text) if entry.role == "assistant" else (),
        at=entry.at,
        model=entry.model,
        finish=entry.finish,
        notes=entry.notes,
        attachments=entry.attachments,
        error=entry.error,
        route=entry.route,
    )


def titled(stored: Iterable[SessionInfo], waiting: Iterable[Asked]) -> list[SessionInfo]:
    """The conversation list: what is stored, and before it what has only an open question yet."""
    known = {info.conversation: info for info in stored}
    fresh = {}
    for asked in waiting:
        if asked.conversation not in known and asked.conversation not in fresh:
            title = " ".join(asked.text.split())[:TITLE_CHARS_MAX]
            fresh[asked.conversation] = SessionInfo(conversation=asked.conversation, title=title, updated_at=asked.at)
    return [*reversed(fresh.values()), *known.values()]


class Api:
    """What a logged-in page may do. Raises errors of `schemas.errors`; the web server words them."""

    def __init__(self, host: Host, feed: Feed) -> None:
        self._host = host
        self._feed = feed

    def me(self) -> dict[str, object]:
        limits = self._host.config.limits
        return {
            "user": OWNER,
            "language": self._host.config.language,
            "limits": {
                "text_chars_max": limits.text_chars_max,
                "attachments_max": limits.attachments_max,
                "attachment_bytes_max": limits.attachment_bytes_max,
            },
        }

    def models(self) -> list[Model]:
        config = self._host.config
        own = next((c.model for c in config.connectors if c.name == self._host.name), "")
        rows = self._host.models()
        chosen = next((m.name for m in config.models if m.default), "")
        first = next((row.name for row in rows if row.type not in NOT_FOR_CHAT and not paints(row)), "")
        return models(rows, own or chosen or first, self._host.updates(), config.models)

    async def conversations(self) -> list[SessionInfo]:
        await self._feed.sync()
        stored = await self._host.conversations(OWNER)
        return titled(stored, [answer.asked for answer in self._feed.open()])

    async def conversation(self, conversation: str) -> Talk:
        """Its stored entries, rendered on another thread, and what is open."""
        await self._feed.sync()
        entries = await self._host.history(conversation)
        open_here = self._feed.open(conversation)
        lines = await asyncio.to_thread(lambda: [_line(entry) for entry in entries if entry.role != "system"])
        return Talk(conversation=conversation, entries=lines, pending=[answer.snapshot() for answer in open_here])

    async def send(self, conversation: str, message: NewMessage) -> Taken:
        """Ask; raises `Rejected` and `QueueFull` as the host does."""
        limits = self._host.config.limits
        _check_id(message.id)
        if not message.text.strip() and not message.attachments:
            raise Rejected("the message is empty", code="empty")
        if len(message.text) > limits.text_chars_max:
            raise Rejected(f"the message is longer than {limits.text_chars_max} characters", code="too_large")
        if len(message.attachments) > limits.attachments_max:
            raise Rejected(f"more than {limits.attachments_max} files with one message", code="too_large")
        return await self._ask(conversation, message)

    async def retry(self, conversation: str, again: Again) -> Taken:
        """Drop a question with all that followed, and ask it anew."""
        _check_id(again.id)
        known = await self._host.state(again.id)
        if known is not None:  # the same retry, sent twice
            return _taken(known)
        text, attachments = await self._question(conversation, again.request)
        if (running := self._feed.find(again.request)) is not None:
            await self._feed.stop([running], STOP_WAIT_S)
        await self._host.truncate(conversation, again.request)
        self._feed.tell("truncated", {"conversation": conversation, "request": again.request})
        return await self._ask(
            conversation,
            NewMessage(
                id=again.id,
                text=text,
                attachments=attachments,
                model=again.model,
                language=again.language,
                drawing=again.drawing,
                sampling=again.sampling,
            ),
        )

    async def cancel(self, request: str) -> None:
        await self._mine(request)
        await self._host.cancel(request)

    async def state(self, request: str) -> RequestState:
        return await self._mine(request)

    async def forget(self, conversation: str) -> None:
        """Stop what is open in a conversation, then delete it."""
        await self._feed.stop(self._feed.open(conversation), STOP_WAIT_S)
        await self._host.forget(conversation, OWNER)
        self._feed.tell("deleted", {"conversation": conversation})

    async def _mine(self, request: str) -> RequestState:
        state = await self._host.state(request)
        if state is None or state.channel != self._host.name:
            raise Rejected("no such request", code="not_found")
        return state

    async def _question(self, conversation: str, request: str) -> tuple[str, tuple[Attachment, ...]]:
        """What was asked in `request`; raises `Rejected`."""
        for entry in await self._host.history(conversation):
            if entry.request == request and entry.role == "user":
                return entry.text, entry.attachments
        answer: Answer | None = self._feed.find(request)
        if answer is not None:
            return answer.asked.text, answer.asked.attachments
        state = await self._mine(request)
        return state.asked, state.attachments

    async def _ask(self, conversation: str, message: NewMessage) -> Taken:
        _check_id(conversation)
        accepted = await self._feed.ask(
            Inbound(
                id=message.id,
                conversation=conversation,
                sender=Sender(id=OWNER, language=message.language[:35]),
                text=message.text,
                model=message.model,
                attachments=message.attachments,
                drawing=message.drawing.drawing(),
                sampling=message.sampling.sampling(),
                stream=True,
                received_at=time.time(),
            )
        )
        answer = self._feed.find(accepted.request)
        return Taken(
            request=accepted.request,
            conversation=accepted.conversation,
            state=accepted.state,
            place=answer.place if answer else None,
            duplicate=accepted.duplicate,
        )


def _taken(state: RequestState) -> Taken:
    return Taken(
        request=state.id, conversation=state.conversation, state=state.state, place=state.place, duplicate=True
    )


def _check_id(value: str) -> None:
    if not value or len(value) > ID_CHARS_MAX or not value.isprintable():
        raise Rejected(f"an id has 1 to {ID_CHARS_MAX} printable characters", code="bad_request")
