"""Watches new versions of this site's models: samples them from the bus, and has the updater go back from a worse one.

Which versions are watched stands in the table UPDATES; events only say that it is time to look, and what was there
before. Answers are read from the stream TURNS by sequence, not heard: so an `ops` that was started anew, or was away
from the bus, misses none, and costs one small read for each answer while a version is watched and nothing otherwise.
What always holds: only figures are kept, and so many at most; a rollout is ended by one order, whose repeats have an
end; nothing here changes a link.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from bus import streams, subjects
from bus.contract import Bus, Message, StoredMessage
from bus.site import site_of
from ops.since import first_since
from ops.watched import Key, Watch, is_of
from schemas.errors import Disconnected, Retryable, RoostError
from schemas.model import FailedAnswer, ModelEvent, ShadowAnswer, WorkerStatus
from schemas.turn import Turn
from schemas.update import Phase, RolloutConfig, UpdateOrder, UpdateStatus, UpdateTold

log = logging.getLogger("roost.watch")

EVERY_S = 2.0
BASELINE_S = 6 * 3600.0
"""Answers of the version before are taken from so long before the new one began, …"""
BASELINE_TURNS_MAX = 5_000
"""… and from so many turns of all models at most."""
READ_MAX = 1_000
"""Messages of one stream in one round, so that no watch waits for another."""
EVENT_WAIT_S = 5.0
"""A row may come before its event, which knows when it began and what was there before."""
ORDER_S = 10.0
ORDER_AGAIN_S = (1.0, 30.0)
ORDERS_MAX = 12
"""About five minutes."""
WHAT: dict[Phase, Literal["shadow", "canary", "swapped"]] = {
    "shadow": "shadow",
    "canary": "canary",
    "watching": "swapped",
}
"""Phases that are watched, and the events that begin them."""

_status = msgspec.json.Decoder(UpdateStatus)
_event = msgspec.json.Decoder(ModelEvent)
_turn = msgspec.json.Decoder(Turn)
_failure = msgspec.json.Decoder(FailedAnswer)
_shadow = msgspec.json.Decoder(ShadowAnswer)
_worker = msgspec.json.Decoder(WorkerStatus)
_told = msgspec.json.Decoder(UpdateTold)


class Watching:
    """All watches of one site. `rollout` tells the margins of a model as they are configured now."""

    def __init__(
        self, bus: Bus, site: str, rollout: Callable[[str], RolloutConfig], *, every_s: float = EVERY_S
    ) -> None:
        self._bus = bus
        self._every_s = every_s
        self._site = site
        self._rollout = rollout
        self._watches: dict[Key, Watch] = {}
        self._ordered: set[tuple[str, str]] = set()
        """Slots and versions that were ordered back."""
        self._unheard: dict[Key, float] = {}
        """Since when rows wait for their events."""
        self._wake = asyncio.Event()

    @property
    def watches(self) -> list[Watch]:
        """What is watched at the moment."""
        return list(self._watches.values())

    async def run(self) -> None:
        """Until cancelled."""

        async def nudged(message: Message) -> None:
            self._wake.set()

        for what in WHAT.values():
            await self._bus.subscribe(subjects.model_events(what), nudged)
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                try:
                    for found, reason in await self._round():
                        tasks.create_task(self._back(found, reason))
                except (RoostError, msgspec.MsgspecError) as error:
                    log.info("cannot look at new versions now: %s", error)
                try:
                    async with asyncio.timeout(self._every_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    # -- looking ----------------------------------------------------------------------------------------------

    async def _round(self) -> list[tuple[Watch, str]]:
        """Look at everything once; returns whom to roll back, with the reasons."""
        rows = await self._rows()
        await self._sort(rows)
        if self._watches:
            await self._look_at_workers()
        worse = []
        for found in self.watches:
            await self._read(found)
            mark = (found.key.slot, found.key.version)
            if mark not in self._ordered and (reason := found.verdict(self._rollout(found.key.model))):
                self._ordered.add(mark)
                worse.append((found, reason))
        return worse

    async def _rows(self) -> list[UpdateStatus]:
        table = await self._bus.table("UPDATES").entries()
        rows = [_status.decode(value) for key, value in table.items() if key.endswith(f".{self._site}")]
        return [row for row in rows if row.site == self._site]

    async def _sort(self, rows: Sequence[UpdateStatus]) -> None:
        """Begin and end watches. A row that is missing ends nothing: the updater may only be away."""
        now = time.time()
        seen = {row.name for row in rows}
        wanted = {
            Key(row.name, model, row.version, row.phase): row
            for row in rows
            if row.phase in WHAT and (not row.until or row.until > now)
            for model in row.models
        }
        for key, found in list(self._watches.items()):
            if found.until <= now or (key.slot in seen and key not in wanted):
                del self._watches[key]
                log.info("%s %s: %d answers in phase %s", key.model, key.version, len(found.new), key.phase)
        alive = {(key.slot, key.version) for key in wanted}
        self._ordered = {mark for mark in self._ordered if mark in alive or mark[0] not in seen}
        self._unheard = {key: at for key, at in self._unheard.items() if key in wanted}
        for key, row in wanted.items():
            if key in self._watches:
                continue
            event = await self._event(key)
            if event is not None or now - self._unheard.setdefault(key, now) >= EVENT_WAIT_S:
                self._watches[key] = await self._begin(key, row, event)

    async def _begin(self, key: Key, row: UpdateStatus, event: ModelEvent | None) -> Watch:
        length = self._rollout(key.model).watch_s if key.phase == "watching" else self._rollout(key.model).trial_s
        if event is not None:
            since, previous = event.at, event.previous
        else:
            since, previous = min(row.at, row.until - length if row.until else row.at), ""
        if not previous and row.current != key.version:
            previous = row.current
        found = Watch(key, since, row.until or since + length, previous)
        counts = await self._bus.stream_infos()
        for subject, stream, back_s, most in (
            (subjects.TURNS_ALL, streams.TURNS, BASELINE_S, BASELINE_TURNS_MAX),
            (subjects.event("failure", key.model), streams.EVENTS, BASELINE_S, 0),
            (subjects.event("shadow", key.model), streams.EVENTS, 0.0, 0),
        ):
            last = counts[stream].last_seq if stream in counts else 0
            begin = await first_since(self._bus, stream, subject, since - back_s, last)
            found.next[subject] = max(begin, last - most) if most else begin
        log.info("watching %s %s (%s)", key.model, key.version, key.phase)
        return found

    async def _event(self, key: Key) -> ModelEvent | None:
        """The newest event that began this."""
        found = None
        async for message in self._bus.read(streams.EVENTS, subjects.event("model", key.model, WHAT[key.phase])):
            try:
                event = _event.decode(message.data)
            except msgspec.MsgspecError as error:
                log.info("%s seq %d left out: %s", message.subject, message.seq, error)
                continue
            if event.site == self._site and is_of(event.version, key.slot, key.version):
                found = event
        return found

    async def _read(self, found: Watch) -> None:
        def turn(message: StoredMessage) -> None:
            decoded = _turn.decode(message.data)
            if site_of(decoded.worker) == self._site:
                found.turn(decoded)

        def failure(message: StoredMessage) -> None:
            decoded = _failure.decode(message.data)
            if site_of(decoded.worker) == self._site:
                found.failure(decoded)

        def shadow(message: StoredMessage) -> None:
            decoded = _shadow.decode(message.data)
            if site_of(decoded.worker) == self._site:
                found.shadow(decoded)

        model = found.key.model
        for stream, subject, take in (
            (streams.EVENTS, subjects.event("failure", model), failure),
            (streams.TURNS, subjects.TURNS_ALL, turn),
            (streams.EVENTS, subjects.event("shadow", model), shadow),
        ):
            for _ in range(READ_MAX):
                message = await self._bus.next(stream, subject, found.next[subject])
                if message is None:
                    break
                found.next[subject] = message.seq + 1
                try:
                    take(message)
                except msgspec.MsgspecError as error:
                    log.info("%s seq %d left out: %s", message.subject, message.seq, error)
            else:
                self._wake.set()

    async def _look_at_workers(self) -> None:
        for value in (await self._bus.table("WORKERS").entries()).values():
            row = _worker.decode(value)
            if site_of(row.id) == self._site:
                for found in self._watches.values():
                    found.worker(row)

    # -- acting -----------------------------------------------------------------------------------------------

    async def _back(self, found: Watch, reason: str) -> None:
        """Have the updater roll back, and tell the operator how that went."""
        key = found.key
        order = UpdateOrder(do="rollback", name=key.slot, by="ops", reason=reason)
        told, wait_s = None, ORDER_AGAIN_S[0]
        for _ in range(ORDERS_MAX):
            try:
                answer = await self._bus.request(subjects.updater(self._site), msgspec.json.encode(order), ORDER_S)
                told = _told.decode(answer)
                break
            except (Retryable, Disconnected, msgspec.MsgspecError) as error:
                log.warning("the updater does not answer: %s", error)
            await asyncio.sleep(wait_s)
            wait_s = min(ORDER_AGAIN_S[1], 2 * wait_s)
            if not await self._serves(key):
                told = UpdateTold()
                break
        name = f"{key.slot} {key.version}"
        if told is not None and told.ok:
            await self._bus.alert("rolled_back", f"{name} was worse and is rolled back: {reason}", part="ops")
            return
        if not await self._serves(key):
            log.info("%s does not serve any more: %s", name, told.text if told is not None else "")
            return
        why = told.text if told is not None else "the updater does not answer"
        await self._bus.alert(
            "not_rolled_back",
            f"{name} is worse ({reason}) and still serves: {why}; try `roost update rollback {key.slot}`",
            level="critical",
            part="ops",
        )

    async def _serves(self, key: Key) -> bool:
        """Whether that version is still on its way; an order that was heard and not answered is not given twice."""
        try:
            rows = await self._rows()
        except (RoostError, msgspec.MsgspecError):
            return True
        row = next((row for row in rows if row.name == key.slot), None)
        return row is None or (row.version == key.version and row.phase in WHAT)
