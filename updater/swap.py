"""A version beside the one that serves, in every worker of the site: staged, shared, freed, confirmed when it serves.

What always holds: a version that one worker refuses is freed at all of them; nothing here touches links or state, so
whatever happens to an order, the same one may be given again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from schemas.errors import Disconnected, Retryable
from schemas.model import ModelOrder
from schemas.release import Golden
from updater.golden import judge
from updater.slots import Slot
from updater.workers import Life, Reply, Workers, life

log = logging.getLogger("roost.updater")

FREE_S = 30.0
"""Freeing what is staged takes as long as the steps that run; a worker that hangs is not waited for."""
SHARE_S = 10.0

How = Literal["staged", "bad", "crashed", "no_memory", "later"]
WORST: tuple[How, ...] = ("bad", "crashed", "no_memory", "later", "staged")
"""What counts where workers say different things, the first most."""


class Outcome(Struct, frozen=True, kw_only=True):
    """How staging went at all workers together."""

    how: How
    reason: str = ""
    seconds: dict[str, float] = {}
    """The longest that any worker took, by stage."""
    alone: bool = False
    """What served was freed for it."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be staged."""

    slot: Slot
    path: Path
    goldens: tuple[Golden, ...]
    trial: bool
    limit_s: float


def verdict(goldens: Sequence[Golden], replies: Sequence[Reply]) -> Outcome:
    """What the workers' answers to `stage` come to. Pure."""
    if not replies:
        return Outcome(how="later", reason="no worker serves a model of it now")
    found = [_of_one(goldens, reply) for reply in replies]
    worst = min(found, key=lambda outcome: WORST.index(outcome.how))
    seconds: dict[str, float] = {}
    for outcome in found:
        for stage, took in outcome.seconds.items():
            seconds[stage] = max(took, seconds.get(stage, 0.0))
    return Outcome(how=worst.how, reason=worst.reason, seconds=seconds)


def _of_one(goldens: Sequence[Golden], reply: Reply) -> Outcome:
    where = f"{reply.model} at worker {reply.worker}"
    if reply.lost == "gone":
        return Outcome(how="later", reason=f"{where} was stopped meanwhile")
    if reply.lost:
        what = "died while it loaded it" if reply.lost == "died" else "did not answer within updates.load_s"
        return Outcome(how="crashed", reason=f"{where} {what}")
    for told in reply.told:
        if not told.ok:
            how: How = "bad" if told.code == "bad_model" else "no_memory" if told.code == "no_memory" else "later"
            return Outcome(how=how, reason=f"{where}: {told.text}", seconds=told.seconds)
        if wrong := judge(goldens, told.answers):
            return Outcome(how="bad", reason=f"{where}: {wrong}", seconds=told.seconds)
    return Outcome(how="staged", seconds=reply.told[0].seconds if reply.told else {})


class Beside:
    """What is staged for one slot. What it knows dies with this process; workers may be asked anew at any time."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._path: Path | None = None
        self._staged: dict[str, Life] = {}
        self._shared: dict[str, tuple[int, int]] = {}
        self._serving: dict[str, Life] = {}
        self.free = False
        """No worker has anything staged, as far as is known: another process may have left something."""

    @property
    def loaded(self) -> bool:
        """Workers have something staged by this process."""
        return bool(self._staged)

    async def stage(self, wanted: Wanted, *, in_place: bool) -> Outcome:
        """Load it at every live worker that has not got it yet; where one fails, it is freed at all.

        `in_place`: where two versions do not fit, the one that serves may be freed first.
        """
        outcome = await self._stage(wanted, in_place=False)
        if outcome.how == "no_memory" and in_place:
            log.info("%s: %s; the version that serves is freed for it", wanted.slot.name, outcome.reason)
            outcome = await self._stage(wanted, in_place=True)
        return outcome

    async def _stage(self, wanted: Wanted, *, in_place: bool) -> Outcome:
        if self._staged and self._path != wanted.path:
            await self.unstage(wanted.slot)
        self._path, self.free = wanted.path, False
        try:
            live = await self._workers.live(wanted.slot)
        except (Retryable, Disconnected) as error:
            return Outcome(how="later", reason=error.message)
        died = [w.id for w in live if w.id in self._staged and self._staged[w.id] != life(w)]
        if died and wanted.trial:
            for worker in died:
                del self._staged[worker]
            await self.unstage(wanted.slot)
            return Outcome(how="crashed", reason=f"worker {', '.join(died)} died while it had it loaded")
        new = [worker for worker in live if self._staged.get(worker.id) != life(worker)]
        if live and not new:
            return Outcome(how="staged")
        order = ModelOrder(
            do="stage", path=str(wanted.path), goldens=wanted.goldens, in_place=in_place, trial=wanted.trial
        )
        replies = await self._workers.all(new, wanted.slot, order, wanted.limit_s)
        outcome = verdict(wanted.goldens, replies)
        if outcome.how != "staged":
            await self.unstage(wanted.slot)
            return outcome
        self._staged.update({worker.id: life(worker) for worker in new})
        return Outcome(how="staged", seconds=outcome.seconds, alone=in_place)

    async def share(self, slot: Slot, canary: int, shadow: int) -> None:
        """Let what is staged answer; who has been told is not told again. Raises `Retryable`, `Disconnected`."""
        wanted = (canary, shadow)
        live = [w for w in await self._workers.live(slot) if self._shared.get(w.id) != wanted]
        order = ModelOrder(do="share", canary=canary, shadow=shadow)
        for reply in await self._workers.all(live, slot, order, SHARE_S):
            if not reply.lost and all(told.ok for told in reply.told):
                self._shared[reply.worker] = wanted

    async def unstage(self, slot: Slot) -> None:
        """Free it everywhere; `free` says whether that is certain."""
        self._staged.clear()
        self._shared.clear()
        try:
            live = await self._workers.live(slot)
        except (Retryable, Disconnected) as error:
            log.warning("%s: what is staged cannot be freed now: %s", slot.name, error.message)
            return
        replies = await self._workers.all(live, slot, ModelOrder(do="unstage"), FREE_S)
        self.free = not any(reply.lost == "silent" for reply in replies)

    async def prepare(self, slot: Slot) -> None:
        """Have workers ready for a trial; nothing is wrong when they are not."""
        try:
            await self._workers.all(await self._workers.live(slot), slot, ModelOrder(do="prepare"), SHARE_S)
        except (Retryable, Disconnected) as error:
            log.info("%s: workers were not prepared: %s", slot.name, error.message)

    async def look(self, slot: Slot, limit_s: float) -> list[Outcome] | None:
        """Have every worker that did not confirm it yet serve what the link names; what went wrong, in no order.

        None where no worker lives. Raises `Retryable`, `Disconnected`.
        """
        live = await self._workers.live(slot)
        new = [worker for worker in live if self._serving.get(worker.id) != life(worker)]
        replies = await self._workers.all(new, slot, ModelOrder(do="look"), limit_s)
        wrong = [(reply, outcome) for reply in replies if (outcome := _of_one((), reply)).how != "staged"]
        failed = {reply.worker for reply, _ in wrong}
        self._serving.update({worker.id: life(worker) for worker in new if worker.id not in failed})
        return [outcome for _, outcome in wrong] if live else None

    def flipped(self) -> None:
        """What was staged serves now, and nobody has confirmed that yet."""
        self._staged.clear()
        self._shared.clear()
        self._serving.clear()
        self._path, self.free = None, True

    async def failed(self, slot: Slot) -> str:
        """Why a worker cannot serve what the link names; empty where all can. Raises `Retryable`, `Disconnected`."""
        rows = await self._workers.models(slot)
        return next((f"{row.name} at worker {row.worker}: {row.reason}" for row in rows if row.state == "failed"), "")
