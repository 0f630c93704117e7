"""Drafting by prompt lookup: what followed the same words before is likely to follow them again.

Pure. A draft is checked by the model itself in the same step, so the answer stays what it would have been; a wrong
draft costs time only. What always holds: a draft is proposed only while it is expected to pay, by what steps of each
size took on this machine and how often this answer's drafts were right; it is tried again now and then, more rarely.
"""

from __future__ import annotations

from array import array

from workers.llama.engine.pace import Pace

GRAM = 3
"""Tokens that must have come before in the same order."""
DRAFT_MAX = 8
FIRST_TRUST = 0.5
"""Share of drafted tokens taken to be right before anything is known of an answer."""
RETRY_STEPS = 32
RETRY_STEPS_MAX = 512


class Lookup:
    """The places of every run of `GRAM` tokens in one conversation: only the latest counts."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self.trust = FIRST_TRUST
        self._quiet_until = 0
        self._pause = RETRY_STEPS

    def propose(self, tokens: array[int], most: int) -> array[int]:
        """Up to `most` tokens that followed the last `GRAM` ones before; empty where nothing did."""
        self._index(tokens)
        place = self._places.get(tuple(tokens[-GRAM:])) if len(tokens) > GRAM else None
        return tokens[place : place + most] if place is not None else tokens[:0]

    def told(self, drafted: int, right: int, step: int) -> None:
        """Of a draft so many tokens were right; after `step` steps of the engine."""
        self.trust = 0.7 * self.trust + 0.3 * right / drafted
        if right:
            self._pause = RETRY_STEPS
        elif self.trust < 0.1:
            self._quiet_until = step + self._pause
            self._pause = min(2 * self._pause, RETRY_STEPS_MAX)
            self.trust = FIRST_TRUST / 2

    def quiet(self, step: int) -> bool:
        """Whether drafts were wrong so often that none are tried for now."""
        return step < self._quiet_until

    def _index(self, tokens: array[int]) -> None:
        """All runs but the last, which is what is looked up."""
        for end in range(max(self._indexed, GRAM), len(tokens)):
            self._places[tuple(tokens[end - GRAM : end])] = end
        self._indexed = max(self._indexed, len(tokens))


def worth(pace: Pace, width: int, tokens: int, trust: float, most: int) -> int:
    """How many tokens to draft for one of `width` answers in a step of `tokens` so far: as many as bring more than
    they cost; 0 for none.

    A draft of k brings trust + trust² + … + trust^k tokens; each is worth what a token costs without drafting.
    """
    base = pace.of(width)
    if base <= 0:
        return 0
    best, gain, expected, chance = 0, 0.0, 0.0, 1.0
    for k in range(1, min(most, DRAFT_MAX) + 1):
        chance *= trust
        expected += chance
        now = expected * base / width - (pace.of(tokens + k) - pace.of(tokens))
        if now > gain:
            best, gain = k, now
    return best
