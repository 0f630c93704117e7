"""From a conversation to the tokens of its prompt: template, tokens, the operator's part, and what fits the window.

Pure but for the two functions it is given (rendering and tokenising). What always holds: the system prompt and
the newest message are never dropped; whoever drops older ones says so; a control token cannot be written by a
sender, only by the template.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, structs

from schemas.errors import Rejected
from schemas.message import Message
from workers.llama.cache import common

Render = Callable[[Sequence[Message]], str]
Tokenise = Callable[[str], "array[int]"]

REPLY_SHARE = 4
"""A long conversation leaves one part in so many of the window for the reply."""
REPLY_MIN = 16
"""A prompt that leaves less for the reply does not fit."""
OPERATOR_TEXTS_MAX = 64
"""Tokenised operator parts that are remembered; a model has one or a few system prompts."""
MARKS = ("\ue000", "\ue001")
"""Private-use characters that stand for senders' words when the operator's part is sought."""


class Prompt(Struct, frozen=True):
    """`operator`: how many leading tokens are the operator's (and the template's) words alone."""

    tokens: array[int]
    operator: int = 0
    notes: tuple[str, ...] = ()


class Prompts:
    """Builds prompts for one model with a window of `window` tokens."""

    def __init__(
        self,
        render: Render,
        tokenise: Tokenise,
        window: int,
        *,
        bos: str = "",
        control: Iterable[str] = (),
        remedy: str = "",
    ) -> None:
        """`bos`: what the tokeniser puts in front by itself, and a template perhaps too; `remedy`: a larger window."""
        self._template = render
        self._bos = bos
        self._tokenise = tokenise
        self._window = window
        self._remedy = remedy
        texts = sorted({t for t in control if len(t) > 1}, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts))) if texts else None
        self._known: dict[str, array[int]] = {}

    def _render(self, messages: Sequence[Message]) -> str:
        return self._template(messages).removeprefix(self._bos)

    def chat(self, messages: Sequence[Message], reply_tokens: int, shared: int = 0) -> Prompt:
        """The prompt of a conversation; `shared`: its first messages that are the operator's.

        Room for `reply_tokens` is kept, a quarter of the window at most; raises `Rejected` when the newest message
        alone does not fit.
        """
        if not messages:
            raise Rejected("the conversation is empty; send a message", code="empty")
        safe = [structs.replace(m, text=self.defused(m.text)) for m in messages]
        room = self._window - min(reply_tokens, self._window // REPLY_SHARE)
        text = self._render(safe)
        tokens = self._tokenise(text)
        notes: tuple[str, ...] = ()
        if len(tokens) > room:
            whole = len(tokens)
            kept, text, tokens = self._shortened(safe, text, tokens, room)
            if len(tokens) > self._window - min(reply_tokens, REPLY_MIN):
                raise self._too_long(len(tokens))
            if len(kept) < len(safe):
                notes = (_left_out(len(safe) - len(kept), whole, self._window),)
            safe = kept
        operator = self._operator(safe, text, tokens, min(shared, system_length(safe)))
        return Prompt(tokens, operator, notes)

    def _shortened(
        self, messages: list[Message], text: str, tokens: array[int], room: int
    ) -> tuple[list[Message], str, array[int]]:
        """Drop oldest turns until the prompt fits `room`, or only the newest message is left."""
        starts = turn_starts(messages)
        fixed = system_length(messages)
        sizes = [0 if i < fixed else len(self._tokenise(m.text)) for i, m in enumerate(messages)]
        kept = messages
        for start in starts[first_cut(sizes, starts, len(tokens) - room, self._window // REPLY_SHARE) :]:
            kept = messages[:fixed] + messages[start:]
            text = self._render(kept)
            tokens = self._tokenise(text)
            if len(tokens) <= room:
                break
        return kept, text, tokens

    def raw(self, text: str, reply_tokens: int) -> Prompt:
        """A raw prompt: no template, nothing dropped."""
        tokens = self._tokenise(text)
        if not tokens:
            raise Rejected("the prompt is empty; send some text", code="empty")
        if len(tokens) > self._window - min(reply_tokens, REPLY_MIN):
            raise self._too_long(len(tokens))
        return Prompt(tokens)

    def defused(self, text: str) -> str:
        """`text` with the names of control tokens broken by a zero-width space, so that they stay plain words."""
        if self._control is None:
            return text
        return self._control.sub(lambda m: m[0][0] + "\u200b" + m[0][1:], text)

    def _too_long(self, tokens: int) -> Rejected:
        return Rejected(
            f"This message is too long for the model: prompt {tokens} tokens, window {self._window}. "
            f"Shorten the message, or {self._remedy or 'raise models[].context'}.",
            code="context_overflow",
        )

    def _operator(self, messages: Sequence[Message], text: str, tokens: array[int], shared: int) -> int:
        """Leading tokens that do not depend on anybody's words but the operator's.

        Two renderings with other words in the senders' places show where the text begins to depend on them.
        """
        end = len(text)
        for mark in MARKS:
            other = [m if i < shared else structs.replace(m, text=mark) for i, m in enumerate(messages)]
            end = min(end, common(text, self._render(other)))
        part = text[:end]
        known = self._known.get(part)
        if known is None:
            if len(self._known) >= OPERATOR_TEXTS_MAX:
                self._known.pop(next(iter(self._known)))
            known = self._known[part] = self._tokenise(part)
        return common(known, tokens)


def turn_starts(messages: Sequence[Message]) -> list[int]:
    """Where the kept part may begin when older messages are dropped: at a user's message, the newest at the latest."""
    first = system_length(messages)
    last = len(messages) - 1
    return [i for i in range(first + 1, last + 1) if messages[i].role == "user" or i == last]


def first_cut(sizes: Sequence[int], starts: Sequence[int], over: int, quantum: int) -> int:
    """Index into `starts` of the first cut that drops enough; `sizes` are the messages' tokens, 0 for those that stay.

    More is dropped than `over` needs, in steps of `quantum`: the next turns then drop the same messages, and
    their common beginning stays in the cache.
    """
    target = -(-over // max(quantum, 1)) * max(quantum, 1)
    for i, start in enumerate(starts):
        if sum(sizes[:start]) >= target:
            return i
    return max(len(starts) - 1, 0)


def system_length(messages: Sequence[Message]) -> int:
    """How many system messages the conversation begins with."""
    return next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))


def _left_out(dropped: int, tokens: int, window: int) -> str:
    what = "oldest message was" if dropped == 1 else f"{dropped} oldest messages were"
    return f"The {what} left out: prompt {tokens} tokens, window {window}."
