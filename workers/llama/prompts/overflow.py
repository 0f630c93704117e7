"""What becomes of a conversation that is longer than the window: which turns go, and what is kept of them.

Pure. Three policies: `refuse` it, `drop_oldest` turns, or `summarise` them by the model itself, so that a few lines
stand for them. What always holds: the system prompt and the newest message stay; a summary is made of a sender's
words, so it is found again only by that sender, stands in a sender's line and never becomes the operator's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct, structs

from schemas.message import Message

Overflow = Literal["drop_oldest", "refuse", "summarise"]
Size = Callable[[str], int]
"""Tokens of a text."""

SUMMARY_SHARE = 8
"""A summary takes one part in so many of the window."""
SUMMARY_TOKENS_MAX = 512
"""More than this is no summary any more, and takes long to write."""
PARTS_MAX = 4
"""Generations that one request may cost before its own; of what is longer, the oldest is left out."""
PART_TOKENS_MIN = 48
"""A window that holds less of the conversation beside the instruction is too small for summaries."""
SLACK_TOKENS = 16
"""Tokens of texts that were counted one by one may be more when they stand together."""
SUMMARIES_MAX = 256
"""Summaries that are remembered; one takes some kilobytes."""
TAIL = 4
"""By so many of its last messages a summary is found again."""
INSTRUCTION = (
    "You keep the memory of a conversation. Summarise what is said in it: names, numbers, facts, decisions, wishes "
    "and open questions. Write the summary alone, in the language of the conversation."
)
LABELS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


class Part(Struct, frozen=True):
    """Lines to summarise at once; with them, the first `upto` of the dropped messages are covered."""

    lines: tuple[str, ...]
    upto: int


class Summary(Struct, frozen=True):
    """`said`: digests of the messages that `text` stands for."""

    conversation: str
    said: tuple[bytes, ...]
    text: str


class Summaries:
    """Remembers summaries, so that the next turn of a conversation need not begin anew."""

    def __init__(self, limit: int = SUMMARIES_MAX) -> None:
        self._limit = limit
        self._kept: dict[tuple[str, tuple[bytes, ...]], Summary] = {}

    def keep(self, owner: str, conversation: str, messages: Sequence[Message], text: str) -> None:
        """`text` stands for `messages` of `owner`'s; forgets the one that was used least recently."""
        said = tuple(map(_digest, messages))
        key = owner, said[-TAIL:]
        self._kept.pop(key, None)
        self._kept[key] = Summary(conversation, said, text)
        if len(self._kept) > self._limit:
            self._kept.pop(next(iter(self._kept)))

    def find(self, owner: str, conversation: str, messages: Sequence[Message]) -> tuple[int, str]:
        """How many of the first `messages` a summary of `owner`'s stands for, and its text; (0, "") without one.

        It must be a summary of exactly these messages, or, within one conversation, of some before them too: a
        session forgets its oldest messages.
        """
        said = tuple(map(_digest, messages))
        for end in range(len(said), 0, -1):
            key = owner, said[max(0, end - TAIL) : end]
            found = self._kept.get(key)
            if found is None:
                continue
            older = conversation != "" and found.conversation == conversation and found.said[-end:] == said[:end]
            if older or found.said == said[:end]:
                self._kept[key] = self._kept.pop(key)
                return end, found.text
        return 0, ""


def summary_tokens(window: int) -> int:
    """Tokens of a summary at most."""
    return min(window // SUMMARY_SHARE, SUMMARY_TOKENS_MAX)


def parts(messages: Sequence[Message], begin: int, room: int, size: Size) -> list[Part]:
    """The messages from `begin` on in parts of at most `room` tokens, in order; a message that is longer is split."""
    out: list[Part] = []
    lines: list[str] = []
    free = room
    for i in range(begin, len(messages)):
        for piece in split(line(messages[i]), room, size):
            tokens = size(piece) + 1
            if lines and tokens > free:
                out.append(Part(tuple(lines), i))
                lines, free = [], room
            lines.append(piece)
            free -= tokens
    return [*out, Part(tuple(lines), len(messages))] if lines else out


def split(text: str, room: int, size: Size) -> list[str]:
    """`text` in pieces that have less than `room` tokens each."""
    if size(text) < room or len(text) < 2:
        return [text]
    middle = len(text) // 2
    return [*split(text[:middle], room, size), *split(text[middle:], room, size)]


def line(message: Message) -> str:
    """A message as a line of what is to be summarised."""
    calls = "".join(f" [calls {call.name}({call.arguments})]" for call in message.tool_calls)
    return f"{LABELS[message.role]}: {message.text}{calls}"


def request(before: str, lines: Sequence[str], words: int) -> list[Message]:
    """What the model is asked: to summarise `lines`, and `before`, the summary of what was said before them."""
    known = f"Summary of what was said before:\n{before}\n\n" if before else ""
    said = "\n".join(lines)
    wish = f"Summarise {'all of ' if before else ''}this in at most {words} words."
    return [Message("system", INSTRUCTION), Message("user", f"{known}Conversation:\n{said}\n\n{wish}")]


def with_summary(messages: Sequence[Message], first: int, text: str) -> list[Message]:
    """`messages` with the summary before what is said in the first one that is not the system's, `messages[first]`."""
    told = f"[Summary of our earlier conversation: {text}]"
    begin = messages[first]
    if begin.role != "user":
        return [*messages[:first], Message("user", told), *messages[first:]]
    return [*messages[:first], structs.replace(begin, text=f"{told}\n\n{begin.text}"), *messages[first + 1 :]]


def left_out(dropped: int, tokens: int, window: int) -> str:
    """The note that messages were dropped."""
    return f"The {_oldest(dropped)} left out: prompt {tokens} tokens, window {window}."


def summarised(dropped: int, unread: int, tokens: int, window: int) -> str:
    """The note that a summary stands for messages; `unread` of them were too much even for it."""
    but = f" {unread} of them did not fit the summary either and were left out." if unread else ""
    return f"The {_oldest(dropped)} summarised: prompt {tokens} tokens, window {window}.{but}"


def _oldest(count: int) -> str:
    return "oldest message was" if count == 1 else f"{count} oldest messages were"


def _digest(message: Message) -> bytes:
    return hashlib.blake2b(f"{message.role}\0{line(message)}".encode("utf-8", "replace"), digest_size=16).digest()
