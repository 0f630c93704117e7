"""One answer out of many attempts and gaps: what of each delta a client has not read yet. Pure.

What always holds: what was sent is a beginning of the answer that is kept; where a new attempt writes something else,
`Diverged` is raised instead of gluing two answers together.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.errors import RoostError
from schemas.message import Delta, TokenLogprob


class Diverged(RoostError):
    """A new attempt began differently from what the client has already read."""

    code = "diverged"


class New(NamedTuple):
    """What a client has not read: text, and the log probabilities of its tokens."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


class Continuation:
    """One answer and its reader."""

    def __init__(self) -> None:
        self._sent: list[str] = []
        self._length = 0
        self._attempt = 0
        self._again: str | None = None
        """While a new attempt repeats what was sent: all of that; else None."""
        self._at = 0
        self._tokens_sent = 0
        self._tokens_at: int | None = 0
        """Tokens told by this attempt; None when they cannot be counted any more, and the end brings the rest."""

    def piece(self, delta: Delta) -> New:
        """What is new in `delta`, often all of it. Raises `Diverged`."""
        if delta.attempt < self._attempt or not delta.text:
            return New()
        if delta.attempt > self._attempt:
            self._attempt, self._at, self._tokens_at = delta.attempt, 0, 0
            self._again = "".join(self._sent) if self._length else None
        if delta.at > self._at:
            return New()  # a piece was lost on the way; the final answer brings it
        logprobs = self._tokens(delta)
        text = delta.text[self._at - delta.at :]
        self._at += len(text)
        if self._again is not None:
            begin = self._at - len(text)
            known = self._again[begin : self._at]
            if not text.startswith(known):
                raise _diverged()
            text = text[len(known) :]
            if self._at >= self._length:
                self._again = None
        return self._keep(text, logprobs)

    def rest(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> New:
        """What is still missing of the final answer. Raises `Diverged`."""
        sent = "".join(self._sent)
        if text.startswith(sent):
            return self._keep(text[len(sent) :], logprobs[self._tokens_sent :])
        if sent.startswith(text) and not sent[len(text) :].strip():
            return New()  # the final answer is trimmed
        raise _diverged()

    def _tokens(self, delta: Delta) -> tuple[TokenLogprob, ...]:
        """The tokens of `delta` that were not told before."""
        if delta.at != self._at:
            if delta.at + len(delta.text) > self._at:
                self._tokens_at = None
            return ()
        if self._tokens_at is None:
            return ()
        begin = self._tokens_at
        self._tokens_at += len(delta.logprobs)
        return delta.logprobs[max(0, self._tokens_sent - begin) :]

    def _keep(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> New:
        if text:
            self._sent.append(text)
            self._length += len(text)
        self._tokens_sent += len(logprobs)
        return New(text, logprobs)


def _diverged() -> Diverged:
    return Diverged("the model was restarted and now answers differently; fetch the whole answer by its request id")
