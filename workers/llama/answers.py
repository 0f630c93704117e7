"""Several answers to one request, told as one: the pieces of each as they come, and one end when all have ended.

Pure. What always holds: a request that asked for one answer passes through unchanged; one of several that fails ends
the request with its error, once the others have ended too.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from schemas.message import Choice, TokenLogprob, Usage
from workers import Finished, Piece


class _Set:
    """The answers of one request so far."""

    def __init__(self, wanted: int) -> None:
        self.texts = [""] * wanted
        self.logprobs: list[list[TokenLogprob]] = [[] for _ in range(wanted)]
        self.ends: dict[int, Finished] = {}

    @property
    def whole(self) -> bool:
        return len(self.ends) == len(self.texts)

    def end(self) -> Finished:
        """All answers as one; the prompt counts once, and what was computed of it counts for the first."""
        ends = [self.ends[i] for i in range(len(self.texts))]
        failed = next((e for e in ends if e.error is not None), None)
        first = failed or ends[0]
        usage = Usage(
            prompt_tokens=ends[0].usage.prompt_tokens,
            completion_tokens=sum(e.usage.completion_tokens for e in ends),
            cached_tokens=ends[0].usage.cached_tokens,
        )
        more = tuple(
            Choice(text=self.texts[i], finish=e.finish, tool_calls=e.tool_calls, logprobs=tuple(self.logprobs[i]))
            for i, e in enumerate(ends)
            if i > 0
        )
        notes = tuple(dict.fromkeys(note for e in ends for note in e.notes))
        return replace(first, usage=usage, more=() if failed else more, notes=notes)


class Answers:
    """All requests that asked for more than one answer."""

    def __init__(self) -> None:
        self._sets: dict[str, _Set] = {}

    def expect(self, request: str, wanted: int) -> None:
        """`wanted` answers will come, each with its end."""
        if wanted > 1:
            self._sets[request] = _Set(wanted)

    def pass_on(self, pieces: Iterable[Piece]) -> list[Piece]:
        """The pieces as the backend tells them: with one end for each request."""
        return [told for piece in pieces if (told := self._one(piece)) is not None]

    def _one(self, piece: Piece) -> Piece | None:
        found = self._sets.get(piece.request)
        if found is None:
            return piece
        found.texts[piece.choice] += piece.text
        found.logprobs[piece.choice].extend(piece.logprobs)
        if piece.finished is None:
            return piece
        found.ends[piece.choice] = piece.finished
        if not found.whole:
            return replace(piece, finished=None) if piece.text or piece.logprobs else None
        del self._sets[piece.request]
        return replace(piece, finished=found.end())
