"""What a job has said so far, put together from its pieces. Pure.

What always holds: the deltas of one answer join to its text and its log probabilities, and a lost one shows as a gap
in `at`.
"""

from __future__ import annotations

from collections import defaultdict

from schemas.message import Delta, TokenLogprob
from workers import Piece


class Said:
    """One attempt at one request. `text` and `logprobs` are the first answer's; others come whole at the end."""

    def __init__(self, request: str, attempt: int) -> None:
        self.request = request
        self.attempt = attempt
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._at: dict[int, int] = defaultdict(int)
        self._held: dict[int, tuple[TokenLogprob, ...]] = {}

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        return tuple(self._logprobs)

    def hear(self, piece: Piece) -> Delta | None:
        """The delta that tells of `piece`.

        Tokens that are no whole character yet wait for their text: a delta without text could be lost unnoticed, which
        does no harm to news of a picture's progress.
        """
        if piece.choice == 0:
            self._text.append(piece.text)
            self._logprobs.extend(piece.logprobs)
        logprobs = self._held.pop(piece.choice, ()) + piece.logprobs
        if not piece.text and piece.progress is None:
            if logprobs:
                self._held[piece.choice] = logprobs
            return None
        at = self._at[piece.choice]
        self._at[piece.choice] = at + len(piece.text)
        return Delta(
            request=self.request,
            attempt=self.attempt,
            at=at,
            text=piece.text,
            choice=piece.choice,
            logprobs=logprobs,
            progress=piece.progress,
        )
