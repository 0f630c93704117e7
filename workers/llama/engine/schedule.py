"""Which tokens the next step computes. Pure: values in, values out; it knows no model and no clock.

What always holds: every running generation gets its token first; prompts share what the budget leaves, so that a
long prompt stretches a step by a bounded amount; the oldest prompt gets at least half of it, so that no stream
of short prompts can starve it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

PIECE_MIN = 8
"""Prompt tokens that a step takes at least, however slow the machine: below this the fixed cost of a step wins."""


class Prompt(Struct, frozen=True):
    """A prompt that is being computed: tokens still to do."""

    id: int
    left: int


class Share(Struct, frozen=True):
    """So many tokens of this prompt in the next step."""

    id: int
    tokens: int


def prompt_budget(running: int, fit: int, batch_max: int) -> int:
    """Prompt tokens beside `running` generations in a step into which `fit` tokens fit (0: unknown).

    Never under `PIECE_MIN`: prompts go on even where the generations alone take longer than the target.
    """
    most = min(fit or 2 * PIECE_MIN, batch_max)
    return max(min(PIECE_MIN, batch_max - running), most - running, 0)


def share_out(prompts: Sequence[Prompt], budget: int) -> list[Share]:
    """Split `budget` tokens over `prompts` (oldest first).

    The oldest takes half, or all when alone. The rest goes to the shortest, because a prompt that is done begins
    to answer. What nobody else needs goes back to the oldest.
    """
    given = {p.id: 0 for p in prompts}
    if not prompts or budget <= 0:
        return []
    oldest = prompts[0]
    given[oldest.id] = min(oldest.left, budget if len(prompts) == 1 else (budget + 1) // 2)
    rest = budget - given[oldest.id]
    for prompt in sorted(prompts[1:], key=lambda p: p.left):
        take = min(prompt.left, rest)
        given[prompt.id] += take
        rest -= take
    given[oldest.id] += min(rest, oldest.left - given[oldest.id])
    return [Share(p.id, given[p.id]) for p in prompts if given[p.id]]


def next_group(groups: Collection[str], served: Mapping[str, int]) -> str:
    """Of groups that cannot share a step (each wants another adapter) the one whose last step is longest ago."""
    return min(groups, key=lambda group: (served.get(group, 0), group), default="")


def victim(started: Sequence[tuple[int, int]]) -> int | None:
    """Whom to pre-empt when cells run out: of `(id, order of arrival)` the newest; None when only one is left."""
    return max(started, key=lambda s: s[1])[0] if len(started) > 1 else None
