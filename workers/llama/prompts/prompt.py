"""From a conversation to the tokens of its prompt: template, tokens, the operator's part, and what fits the window.

Pure but for the two functions it is given (rendering and tokenising). What always holds: the system prompt and
the newest message are never dropped; whoever drops or summarises older ones says so; a control token cannot be written
by a sender, only by the template.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from msgspec import Struct, structs

from schemas.errors import Rejected
from schemas.message import Message, Tool
from workers.llama.engine.cache import common
from workers.llama.prompts.overflow import Overflow, Summaries, left_out, summary_tokens
from workers.llama.prompts.summarise import Condensing, Long, Summarise
from workers.llama.prompts.tools import NOTHING, Offered, reworded, tool_reworded

Tokenise = Callable[[str], "array[int]"]

REPLY_SHARE = 4
"""A long conversation leaves one part in so many of the window for the reply."""
REPLY_MIN = 16
"""A prompt that leaves less for the reply does not fit."""
OPERATOR_TEXTS_MAX = 64
"""Tokenised operator parts that are remembered; a model has one or a few system prompts."""
MARKS = ("\ue000", "\ue001")
"""Private-use characters that stand for senders' words when the operator's part is sought."""


class Render(Protocol):
    def __call__(self, messages: Sequence[Message], tools: Sequence[Tool] = ..., /) -> str: ...


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
        overflow: Overflow = "drop_oldest",
    ) -> None:
        """`bos`: what the tokeniser puts in front by itself, and a template perhaps too; `remedy`: a larger window."""
        self._template = render
        self._bos = bos
        self._tokenise = tokenise
        self.window = window
        self.summaries = Summaries()
        self._overflow = overflow
        self._remedy = remedy
        texts = sorted({t for t in control if len(t) > 1}, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts))) if texts else None
        self._known: dict[str, array[int]] = {}

    def _render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        text = self._template(messages, tools) if tools else self._template(messages)
        return text.removeprefix(self._bos)

    def chat(
        self,
        messages: Sequence[Message],
        reply_tokens: int,
        shared: int = 0,
        *,
        owner: str = "",
        conversation: str = "",
        offered: Offered = NOTHING,
    ) -> Prompt | Summarise:
        """The prompt of a conversation, or what must be generated before there is one.

        `shared`: its first messages that are the operator's. Room for `reply_tokens` is kept, a quarter of the window
        at most; raises `Rejected` when the newest message alone does not fit. A summary is `owner`'s alone.
        """
        if not messages:
            raise Rejected("the conversation is empty; send a message", code="empty")
        safe = [reworded(m, self.defused) for m in messages]
        offered = structs.replace(offered, tools=tuple(tool_reworded(tool, self.defused) for tool in offered.tools))
        whole = self.built(safe, shared, offered=offered)
        long = Long(
            messages=safe,
            tokens=len(whole.tokens),
            room=self.window - min(reply_tokens, self.window // REPLY_SHARE),
            most=self.window - min(reply_tokens, REPLY_MIN),
            fixed=system_length(safe),
            shared=shared,
            owner=owner,
            conversation=conversation,
            offered=offered,
        )
        if long.tokens <= long.room:
            return whole
        if self._overflow == "refuse":
            if long.tokens > long.most:
                raise self._too_long(long.tokens, "conversation" if turn_starts(safe) else "message")
            return whole
        dropped = self._dropped(long, whole)
        if self._overflow == "summarise" and dropped.notes:
            most = summary_tokens(self.window)
            return Condensing(self, long, self._starts(long, long.room - most)[0], dropped).begin()
        return dropped

    def built(
        self, messages: Sequence[Message], shared: int, notes: tuple[str, ...] = (), offered: Offered = NOTHING
    ) -> Prompt:
        """The prompt of these messages, whether it fits or not."""
        text = self._render(messages, offered.tools)
        tokens = self._tokenise(text)
        shared = min(shared, system_length(messages))
        return Prompt(tokens, self._operator(messages, text, tokens, shared, offered), notes)

    def size(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._tokenise(text))

    def _dropped(self, long: Long, whole: Prompt) -> Prompt:
        """Drop oldest turns until the prompt fits, or only the newest message is left; refused if that is too long."""
        prompt = whole
        for start in self._starts(long, long.room):
            kept = long.without(start)
            note = left_out(len(long.messages) - len(kept), long.tokens, self.window)
            prompt = self.built(kept, long.shared, (note,), long.offered)
            if len(prompt.tokens) <= long.room:
                break
        if len(prompt.tokens) > long.most:
            raise self._too_long(len(prompt.tokens))
        return prompt

    def _starts(self, long: Long, room: int) -> list[int]:
        """Where the kept part may begin so that it fits `room`, if need be later; the first drops least."""
        starts = turn_starts(long.messages)
        sizes = [0 if i < long.fixed else self.size(m.text) for i, m in enumerate(long.messages)]
        return starts[first_cut(sizes, starts, long.tokens - room, self.window // REPLY_SHARE) :]

    def raw(self, text: str, reply_tokens: int) -> Prompt:
        """A raw prompt: no template, nothing dropped."""
        tokens = self._tokenise(text)
        if not tokens:
            raise Rejected("the prompt is empty; send some text", code="empty")
        if len(tokens) > self.window - min(reply_tokens, REPLY_MIN):
            raise self._too_long(len(tokens))
        return Prompt(tokens)

    def defused(self, text: str) -> str:
        """`text` with the names of control tokens broken by a zero-width space, so that they stay plain words."""
        if self._control is None:
            return text
        return self._control.sub(lambda m: m[0][0] + "\u200b" + m[0][1:], text)

    def _too_long(self, tokens: int, what: Literal["message", "conversation"] = "message") -> Rejected:
        remedy = "Shorten the message" if what == "message" else "Begin a new conversation"
        return Rejected(
            f"This {what} is too long for the model: prompt {tokens} tokens, window {self.window}. "
            f"{remedy}, or {self._remedy or 'raise models[].context'}.",
            code="context_overflow",
        )

    def _operator(
        self, messages: Sequence[Message], text: str, tokens: array[int], shared: int, offered: Offered
    ) -> int:
        """Leading tokens that do not depend on anybody's words but the operator's.

        Two renderings with other words in the senders' places show where the text begins to depend on them.
        """
        end = len(text)
        for mark in MARKS:
            other = [m if i < shared else reworded(m, _always(mark)) for i, m in enumerate(messages)]
            tools = offered.tools if offered.above else [tool_reworded(t, _always(mark)) for t in offered.tools[:1]]
            end = min(end, common(text, self._render(other, tools)))
        part = text[:end]
        known = self._known.get(part)
        if known is None:
            if len(self._known) >= OPERATOR_TEXTS_MAX:
                self._known.pop(next(iter(self._known)))
            known = self._known[part] = self._tokenise(part)
        return common(known, tokens)


def _always(word: str) -> Callable[[str], str]:
    return lambda _: word


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
