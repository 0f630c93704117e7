"""One new version under watch: which samples are its own and which are the old one's. No I/O.

What always holds: only figures are kept, and so many at most; the newest count.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from ops import watch
from ops.samples import of_failure, of_shadow, of_turn
from ops.watch import Sample
from schemas.model import FailedAnswer, ShadowAnswer, WorkerStatus
from schemas.turn import Turn
from schemas.update import Phase, RolloutConfig

SAMPLES_MAX = 2_000
"""Of each version; 0.3 kB each."""
BEFORE_S = 5.0
"""Workers may begin with a version so long before the event is dated; what it did earlier was another rollout."""


class Key(Struct, frozen=True):
    """What is watched: one phase of one version's way, in one model that uses the slot."""

    slot: str
    model: str
    version: str
    phase: Phase


class Watch:
    """One version under watch, and the samples of it and of the one before."""

    def __init__(self, key: Key, since: float, until: float, previous: str) -> None:
        self.key, self.since, self.until, self.previous = key, since, until, previous
        self.new: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self.old: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self.spans: deque[tuple[str, float, float]] = deque(maxlen=2 * SAMPLES_MAX)
        self.next: dict[str, int] = {}
        """For each subject, the sequence to read from."""
        self.starts: dict[str, float] = {}
        """When each worker was started."""
        self.deaths = 0
        self.news = False
        self._failures: deque[tuple[str, int]] = deque(maxlen=SAMPLES_MAX)

    # -- what comes in ----------------------------------------------------------------------------------------

    def turn(self, turn: Turn) -> None:
        """An answer, of any model on this site."""
        began = turn.finished_at - turn.timings.total_ms / 1000
        self.spans.append((turn.worker, began, turn.finished_at))
        told = turn.error is not None and (turn.id, turn.attempt) in self._failures
        if turn.model == self.key.model and not told:
            self._add(of_turn(turn), turn.version, began)

    def failure(self, failure: FailedAnswer) -> None:
        self._failures.append((failure.request, failure.attempt))
        self._add(of_failure(failure), failure.version, failure.at)

    def shadow(self, answer: ShadowAnswer) -> None:
        self._add(of_shadow(answer), answer.version, answer.at)

    def worker(self, row: WorkerStatus) -> None:
        """A worker of this site, as it is now."""
        known = self.starts.setdefault(row.id, row.started_at)
        if row.started_at > known:
            self.starts[row.id] = row.started_at
            self.deaths += 1
            self.news = True

    def _add(self, sample: Sample | None, version: str, began: float) -> None:
        side = self.side(version, began)
        if sample is not None and side is not None:
            side.append(sample)
            self.news = True

    def side(self, version: str, began: float) -> deque[Sample] | None:
        """Where an answer of `version` counts; None: nowhere.

        A version that is neither of the two (files were put there by hand) is told by the time.
        """
        if is_of(version, self.key.slot, self.key.version):
            return self.new if began >= self.since - BEFORE_S else None
        if is_of(version, self.key.slot, self.previous) or self.key.phase != "watching":
            return self.old
        return self.new if began >= self.since else self.old

    # -- what comes out ---------------------------------------------------------------------------------------

    def verdict(self, margins: RolloutConfig) -> str | None:
        """Why it must not stay; None while nothing speaks against it, and where nothing was heard since the last."""
        if not self.news:
            return None
        self.news = False
        if self.deaths >= watch.DEATHS_MAX:
            return f"its worker had to be started anew {self.deaths} times"
        new, old = (watch.accompanied(side, self.spans) for side in (self.new, self.old))
        return watch.judge(new, old, margins)


def is_of(version: str, slot: str, release: str) -> bool:
    """Whether what a turn has as its version is of this release of the slot.

    Joined by `+`: the release of the model, `NAME-RELEASE` of each adapter that is one, and a hash of it all.
    """
    own, *more = version.split("+")
    if f"{slot}-{release}" in (own, *more):
        return True
    return own == release and not any(part.startswith(f"{slot}-") for part in more)
