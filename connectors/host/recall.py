"""What this process remembers of conversations, so that the router need not ask: last model and kind, and length.

Nothing depends on it but comfort: what is forgotten is read from the session, or the conversation is taken for new.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct

from schemas.message import Kind, Outbound
from schemas.session import Entry

REMEMBERED = 20_000
BYTES_A_TOKEN = 3
"""UTF-8 bytes: about four in English, three (one character) in Chinese. An estimate that errs on the long side."""


class Last(Struct, frozen=True):
    """One conversation after its newest message. `tokens` is what its whole text comes to."""

    model: str = ""
    kind: Kind = "auto"
    tokens: int = 0


NEW = Last()


def tokens_of(text: str) -> int:
    """About so many tokens, for any model."""
    return len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN


def last_of(entries: Sequence[Entry]) -> Last:
    """A stored conversation's last state."""
    answered = next((entry for entry in reversed(entries) if entry.model), None)
    return Last(
        model=answered.model if answered is not None else "",
        kind=answered.route.kind if answered is not None and answered.route is not None else "auto",
        tokens=sum(tokens_of(entry.text) for entry in entries),
    )


class Recall:
    """The conversations of one connector that were heard of last."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._known: OrderedDict[str, Last] = OrderedDict()

    def of(self, conversation: str) -> Last | None:
        """None when it has to be looked up."""
        return self._known.get(conversation)

    def note(self, conversation: str, last: Last) -> None:
        self._known[conversation] = last
        self._known.move_to_end(conversation)
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)

    def answered(self, reply: Outbound) -> None:
        """The model has counted: what it read and wrote is how long the conversation is."""
        last = self._known.get(reply.conversation)
        counted = reply.usage.prompt_tokens + reply.usage.completion_tokens
        if last is not None and last.model == reply.model and counted:
            self._known[reply.conversation] = Last(last.model, last.kind, counted)

    def drop(self, conversation: str) -> None:
        """It was shortened or deleted."""
        self._known.pop(conversation, None)
