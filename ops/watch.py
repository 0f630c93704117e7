"""Is a new version worse than the one before it? Samples of both in, a reason to go back out, or None. Pure.

What always holds: a figure counts only when chance hardly explains it, so that one bad answer in twenty says nothing;
what an answer costs in time is compared with answers that had as much to read and as much company.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from statistics import median

from msgspec import Struct
from msgspec.structs import replace

from schemas.update import RolloutConfig

Z = 2.326
"""One-sided 99 %. The samples are looked at again and again as they come, so that 95 % would be too little."""
REPEATED = 0.5
"""An answer of which this share stood in it before repeats itself. Real text of any kind lies below; loops are above
0.8 soon after they begin (measured in tests/schemas/test_repeats.py)."""
ALIKE_CHARS_MIN = 32
"""Shorter answers (`Yes.`) may well be right for many questions."""
ALIKE_QUESTIONS = 3
"""The same answer to so many different questions is none to any of them."""
HALF = 0.5
"""Without an earlier version to compare with: so many bad answers are too many in any case."""
DEATHS_MAX = 3
"""A worker that had to be started anew so often since the new version came is taken to die of it."""
PEERS_MIN = 5
"""Answers of the earlier version under like circumstances, for one of the new version to be compared in time."""
FIRST_MS_FELT, TOKEN_MS_FELT = 50.0, 2.0
"""A median that is later by less than this is noticed by nobody, however many times as long it is."""


class Sample(Struct, frozen=True, kw_only=True):
    """One answer, or an attempt that failed. Figures only: a text is kept as its hash."""

    ok: bool = True
    empty: bool | None = None
    """None where the answer is no text."""
    repeats: float = 0.0
    text: int = 0
    """Hash of the answer, 0 for a short one."""
    question: int = 0
    unread: int = 0
    """Tokens of the prompt that had to be computed."""
    company: float = 1.0
    """Answers that its worker gave meanwhile, on average, this one among them."""
    first_ms: float | None = None
    token_ms: float | None = None
    """For each token after the first."""
    worker: str = ""
    began: float = 0.0
    ended: float = 0.0


def judge(new: Sequence[Sample], old: Sequence[Sample], margins: RolloutConfig) -> str | None:
    """Why `new` must not stay, as a sentence with figures; None while nothing speaks against it."""
    if len(new) < margins.answers_min:
        return None
    rules: tuple[tuple[str, float, Callable[[Sequence[Sample]], tuple[int, int]]], ...] = (
        ("failed", margins.errors_more, failed),
        ("came empty", margins.empty_more, empty),
        ("repeated themselves or other answers", margins.repeated_more, repeated),
    )
    for what, more, count in rules:
        bad, of = count(new)
        bad_before, of_before = count(old)
        if of >= margins.answers_min and (found := more_often(bad, of, bad_before, of_before, more)):
            return f"{bad} of {of} answers {what}, {found}"
    return slower(new, old, margins)


# -- shares -----------------------------------------------------------------------------------------------------------


def failed(samples: Iterable[Sample]) -> tuple[int, int]:
    """(bad ones, all)."""
    of = [not sample.ok for sample in samples]
    return sum(of), len(of)


def empty(samples: Iterable[Sample]) -> tuple[int, int]:
    of = [sample.empty for sample in samples if sample.ok and sample.empty is not None]
    return sum(of), len(of)


def repeated(samples: Iterable[Sample]) -> tuple[int, int]:
    """Answers that say the same over and over, and those that answer several different questions alike."""
    texts = [sample for sample in samples if sample.ok and sample.empty is not None]
    asked: dict[int, set[int]] = defaultdict(set)
    for sample in texts:
        asked[sample.text].add(sample.question)
    bad = (
        sample.repeats >= REPEATED or (sample.text != 0 and len(asked[sample.text]) >= ALIKE_QUESTIONS)
        for sample in texts
    )
    return sum(bad), len(texts)


def more_often(bad: int, of: int, bad_before: int, of_before: int, more: float) -> str:
    """Words for what it was before, when the share surely rose by more than `more`; otherwise nothing."""
    if not of_before:
        return "and there is no earlier version to compare with" if wilson(bad, of)[0] > HALF else ""
    share, share_before = bad / of, bad_before / of_before
    low, high_before = wilson(bad, of)[0], wilson(bad_before, of_before)[1]
    surely = share - share_before - math.hypot(share - low, high_before - share_before)
    return f"{bad_before} of {of_before} before" if surely > more else ""


def wilson(count: int, of: int, z: float = Z) -> tuple[float, float]:
    """Bounds of a share of which a sample is known, each with the certainty of `z`.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927). The difference of
    two shares is bounded from these as in Newcombe, "Interval estimation for the difference between independent
    proportions: comparison of eleven methods", Statistics in Medicine 17 (1998), method 10.
    """
    share, square = count / of, z * z
    middle = (share + square / (2 * of)) / (1 + square / of)
    reach = z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return max(0.0, middle - reach), min(1.0, middle + reach)


# -- times ------------------------------------------------------------------------------------------------------------


def slower(new: Sequence[Sample], old: Sequence[Sample], margins: RolloutConfig) -> str | None:
    """Why it is too slow, or None."""
    first = _pace(
        [(s.company, _power(s.unread), s.first_ms) for s in new if s.first_ms is not None],
        [(s.company, _power(s.unread), s.first_ms) for s in old if s.first_ms is not None],
    )
    token = _pace(
        [(s.company, 0, s.token_ms) for s in new if s.token_ms is not None],
        [(s.company, 0, s.token_ms) for s in old if s.token_ms is not None],
    )
    for what, pairs, felt in (("the first token", first, FIRST_MS_FELT), ("each further token", token, TOKEN_MS_FELT)):
        if len(pairs) < margins.answers_min:
            continue
        now, before = median(a for a, _ in pairs), median(b for _, b in pairs)
        times = sorted(a / max(b, 0.001) for a, b in pairs)
        if now - before >= felt and times[low_median(len(times))] > margins.slower:
            return (
                f"{what} took {now:.3g} ms in the median of {len(pairs)} answers, "
                f"{before:.3g} ms before under like circumstances ({median(times):.1f} times as long)"
            )
    return None


def _pace(
    new: Iterable[tuple[float, int, float]], old: Iterable[tuple[float, int, float]]
) -> list[tuple[float, float]]:
    """For each new time (company, unread, ms) what the old version took under like circumstances, where it is known.

    A slower version has more company by its slowness. Where the old one never had so much, it is taken to have shared
    a processor that can do one thing at a time: at worst its time would have grown with its company.
    """
    peers: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for company, unread, ms in old:
        peers[_company(company), unread].append((ms, ms / max(1.0, company)))
    usual = {
        key: (median(ms for ms, _ in times), median(each for _, each in times))
        for key, times in peers.items()
        if len(times) >= PEERS_MIN
    }
    pairs = []
    for company, unread, ms in new:
        alike = _company(company)
        less = max((of for of, read in usual if read == unread and of <= alike), default=0)
        if less:
            same, each = usual[less, unread]
            pairs.append((ms, same if less == alike else each * company))
    return pairs


def _power(count: float) -> int:
    """Powers of two are like circumstances."""
    return round(count).bit_length()


def _company(company: float) -> int:
    return _power(max(1.0, company))


def low_median(of: int, z: float = Z) -> int:
    """Index of the sorted value that the true median surely exceeds.

    The sign test's order statistic, by the normal approximation of the binomial (Conover, "Practical Nonparametric
    Statistics", 3rd edition, section 3.2).
    """
    return max(0, math.floor(of / 2 - z * math.sqrt(of) / 2))


def accompanied(samples: Sequence[Sample], spans: Iterable[tuple[str, float, float]]) -> list[Sample]:
    """`samples` with their `company`, from the spans (worker, begin, end) of everything that ran meanwhile."""
    steps: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for worker, begin, end in spans:
        if end > begin:
            steps[worker] += [(begin, 1), (end, -1)]
    curves = {worker: _Curve(sorted(of)) for worker, of in steps.items()}
    return [
        replace(sample, company=curves[sample.worker].mean(sample.began, sample.ended))
        if sample.worker in curves and sample.ended > sample.began
        else sample
        for sample in samples
    ]


class _Curve:
    """How many ran at each time, and its integral."""

    def __init__(self, steps: Sequence[tuple[float, int]]) -> None:
        self._at = [at for at, _ in steps]
        self._running = list(accumulate(step for _, step in steps))
        lengths = [b - a for a, b in zip(self._at, self._at[1:], strict=False)]
        areas = (running * length for running, length in zip(self._running, lengths, strict=False))
        self._area = [0.0, *accumulate(areas)]

    def _until(self, at: float) -> float:
        i = bisect_right(self._at, at) - 1
        return 0.0 if i < 0 else self._area[i] + self._running[i] * (at - self._at[i])

    def mean(self, begin: float, end: float) -> float:
        return (self._until(end) - self._until(begin)) / (end - begin)
