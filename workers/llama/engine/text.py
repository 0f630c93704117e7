"""From token bytes to text that may be shown: whole characters only, and nothing of a stop string.

Pure. What always holds: the pieces that come out, put together, are the decoded bytes up to the first stop
string; a character is never split and never shown before all of its bytes are there.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """One answer's text. `feed` takes a token's bytes and returns what is safe to show now."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(s for s in stops if s)
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """Text that became certain: what may begin a character or a stop string is held back."""
        if self.stopped:
            return ""
        fresh = self._decoder.decode(piece)
        if not self._stops:
            return fresh
        if not fresh:
            return ""
        text = self._held + fresh
        end = first_stop(text, self._stops)
        if end >= 0:
            self.stopped = True
            self._held = ""
            return text[:end]
        keep = held_length(text, self._stops)
        self._held = text[len(text) - keep :] if keep else ""
        return text[: len(text) - keep]

    def close(self) -> str:
        """The rest at the end of the answer; the bytes of an unfinished character are left out."""
        rest, self._held = self._held, ""
        return "" if self.stopped else rest


def first_stop(text: str, stops: Sequence[str]) -> int:
    """Where the earliest stop string in `text` begins, or -1."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return min(found, default=-1)


def held_length(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `stops` without completing it."""
    longest = 0
    for stop in stops:
        for n in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:n]):
                longest = n
                break
    return longest
