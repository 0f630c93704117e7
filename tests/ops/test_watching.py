"""The watch over a bus in memory and over real NATS: what is sampled, what is ordered, and what is left alone."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from bus import contract, streams, subjects
from bus.memory import MemoryBus, MemoryServer
from bus.stop import stop
from ops import watching
from ops.watched import SAMPLES_MAX, Key, Watch, is_of
from ops.watching import Watching
from schemas.event import Alert
from schemas.message import Finish, Inbound, Problem, Sender, Timings, Usage
from schemas.model import FailedAnswer, ModelEvent, ShadowAnswer, WorkerStatus
from schemas.turn import Turn
from schemas.update import Phase, RolloutConfig, UpdateOrder, UpdateStatus, UpdateTold
from tests.bus.conftest import Connect, connect, servers  # noqa: F401  fixtures
from tests.bus.real import config_of, soon
from tests.simulation.clock import run

SITE = "host-abcdef"
WORKER = f"{SITE}-0"
ROLLOUT = RolloutConfig(answers_min=10)
OLD, NEW = "1+aaaaaaaaaaaa", "2+bbbbbbbbbbbb"
encode = msgspec.json.encode


class Site:
    """One machine on a bus: what its updater tells, and what it is asked. `told` is what it answers."""

    def __init__(self, bus: contract.Bus) -> None:
        self.bus = bus
        self.orders: list[UpdateOrder] = []
        self.told: UpdateTold | None = UpdateTold()
        self.late = False
        """The operator was faster: the version has gone already when the order comes."""
        self.count = 0
        self.row = UpdateStatus(name="slot", site=SITE, phase="idle", at=time.time(), models=("m",))

    async def listen(self) -> None:
        async def asked(message: contract.Message) -> None:
            self.orders.append(msgspec.json.decode(message.data, type=UpdateOrder))
            if self.late:
                await self.phase("idle", version="", current="1")
            if self.told is not None:
                await self.bus.send(message.reply, encode(self.told))

        await self.bus.subscribe(subjects.updater(SITE), asked)

    async def gone(self) -> None:
        """The updater ends, and takes its row with it."""
        await self.bus.table("UPDATES").delete(f"{self.row.name}.{SITE}")

    async def phase(self, phase: Phase, **more: Any) -> None:
        now = time.time()
        fields: dict[str, Any] = {
            "phase": phase, "at": now, "current": "2" if phase == "watching" else "1", "version": "2",
            "until": now + 600, **more,
        }  # fmt: skip
        self.row = replace(self.row, **fields)
        await self.bus.table("UPDATES").put(f"{self.row.name}.{SITE}", encode(self.row))

    async def happened(self, what: Any, site: str = SITE, **more: Any) -> None:
        event = ModelEvent(model="m", what=what, at=time.time(), version="2", previous="1", site=site)
        await self.bus.event("model", "m", what, body=replace(event, **more))

    async def swapped(self) -> None:
        await self.phase("watching")
        await self.happened("swapped")

    async def answers(self, version: str, count: int, **more: Any) -> None:
        """`count` turns; by default good ones of a second's length that have just ended."""
        for _ in range(count):
            self.count += 1
            await self._turn(version, self.count, **more)

    async def _turn(
        self,
        version: str,
        number: int,
        *,
        text: str = "",
        model: str = "m",
        worker: str = WORKER,
        code: str = "",
        finish: Finish = "stop",
        ago_s: float = 0.0,
        first_ms: float = 1.0,
    ) -> None:
        asked = Inbound(id=f"r{number}", conversation="c", sender=Sender("s"), text=f"question {number}", kind="chat")
        turn = Turn(
            id=asked.id, channel="web", conversation="c", inbound=asked, model=model, version=version, worker=worker,
            text=text if text or code else f"An answer of its own, which is number {number}.",
            finish="error" if code else finish, error=Problem(code, "no") if code else None,
            finished_at=time.time() - ago_s, usage=Usage(9, 20), timings=Timings(0.0, first_ms, first_ms + 1.0),
        )  # fmt: skip
        await self.bus.publish(subjects.turn("web", "c"), encode(turn), id=f"turn-{asked.id}")

    async def failures(self, version: str, count: int, code: str = "model_failed") -> None:
        for _ in range(count):
            self.count += 1
            body = FailedAnswer(
                model="m", version=version, worker=WORKER, at=time.time(), code=code, request=f"r{self.count}"
            )
            await self.bus.event("failure", "m", body=body)

    async def alerts(self, code: str) -> list[Alert]:
        found = self.bus.read(streams.EVENTS, subjects.event("alert", code))
        return [msgspec.json.decode(message.data, type=Alert) async for message in found]

    async def rolled_back(self) -> Alert:
        """Wait for the order and the alert."""
        await soon(lambda: self.orders, "the updater is asked to roll back")
        [alert] = await soon(lambda: self.alerts("rolled_back"), "the operator is told")
        assert [(order.do, order.name, order.by) for order in self.orders] == [("rollback", "slot", "ops")]
        assert self.orders[0].reason in alert.message
        return alert


@asynccontextmanager
async def watched(bus: contract.Bus, rollout: RolloutConfig = ROLLOUT) -> AsyncIterator[Watching]:
    """`ops` watches while the block runs."""
    watching = Watching(bus, SITE, lambda model: rollout, every_s=0.02)
    running = asyncio.create_task(watching.run())
    try:
        yield watching
    finally:
        await stop(running)
        if not running.cancelled():
            running.result()


@pytest.fixture
async def site(connect: Connect) -> Site:  # noqa: F811
    """On both kinds of bus."""
    made = Site(await connect())
    await made.listen()
    return made


@pytest.fixture
async def quick() -> AsyncIterator[Site]:
    """On the bus in memory alone."""
    bus = MemoryBus(MemoryServer(), config_of())
    await streams.apply(bus, bus.config)
    made = Site(bus)
    await made.listen()
    yield made
    await bus.close()


async def left_alone(site: Site, watching: Watching) -> None:
    """All that was published has been read and judged, and nothing was ordered."""
    last = (await site.bus.stream_infos())[streams.TURNS].last_seq
    await soon(
        lambda: all(w.next[subjects.TURNS_ALL] > last and not w.news for w in watching.watches), "everything is judged"
    )
    assert site.orders == []


# -- going back ----------------------------------------------------------------------------------------------------


async def test_a_version_whose_answers_come_empty_is_rolled_back_once(site: Site) -> None:
    await site.answers(OLD, 60, ago_s=60)
    async with watched(site.bus) as running:
        await site.swapped()
        await site.answers(NEW, 15, text=" ")
        alert = await site.rolled_back()
        assert "answers came empty, 0 of 60 before" in alert.message
        assert "slot 2" in alert.message
        await site.answers(NEW, 15, text=" ")
        await soon(lambda: len(running.watches[0].new) == 30, "all is read")
        await site.phase("rolling_back")
        await soon(lambda: not running.watches, "the watch ends")
        await site.phase("idle", version="", current="1", reason=site.orders[0].reason)
        assert len(site.orders) == 1


async def test_what_is_under_way_when_ops_starts_is_watched_from_its_beginning(site: Site) -> None:
    await site.answers(OLD, 40, ago_s=60)
    await site.swapped()
    await site.answers(NEW, 12, text="I am sorry, I cannot do that. " * 12)
    async with watched(site.bus):
        alert = await site.rolled_back()
    assert "12 of 12 answers repeated" in alert.message


async def test_attempts_that_fail_count_before_the_request_is_given_up(site: Site) -> None:
    await site.answers(OLD, 60, ago_s=60)
    async with watched(site.bus):
        await site.swapped()
        await site.answers(NEW, 5)
        await site.failures(NEW, 10)
        assert "answers failed, 0 of 60 before" in (await site.rolled_back()).message


async def test_a_canary_is_compared_with_the_version_that_serves_beside_it(site: Site) -> None:
    async with watched(site.bus):
        await site.phase("canary")
        await site.happened("canary")
        for _ in range(12):
            await site.answers(OLD, 3)
            await site.answers(NEW, 1, code="model_failed")
        assert re.search(r"1\d of 1\d answers failed, 0 of \d\d before", (await site.rolled_back()).message)


async def test_a_shadow_is_compared_with_live_answers(quick: Site) -> None:
    async with watched(quick.bus):
        await quick.phase("shadow")
        await quick.happened("shadow")
        await quick.answers(OLD, 50)
        for _ in range(15):
            answer = ShadowAnswer(model="m", version=NEW, worker=WORKER, at=time.time(), text_chars=600, repeats=0.9)
            await quick.bus.event("shadow", "m", body=answer)
        assert "repeated" in (await quick.rolled_back()).message


async def test_a_version_on_which_workers_die_is_rolled_back(quick: Site) -> None:
    async def worker(started_at: float) -> None:
        row = WorkerStatus(id=WORKER, host="host", pid=1, started_at=started_at, seen_at=time.time())
        await quick.bus.table("WORKERS").put(WORKER, encode(row))

    async with watched(quick.bus) as watching:
        await worker(1.0)
        await quick.swapped()
        await soon(lambda: [w for w in watching.watches if w.starts], "the worker is seen")
        for n in (2, 3, 4):
            await worker(float(n))
            await soon(lambda n=n: watching.watches[0].starts[WORKER] == n, "it is seen again")  # type: ignore[misc]
        assert "started anew 3 times" in (await quick.rolled_back()).message


async def test_a_version_before_that_has_no_name_is_told_by_the_time(quick: Site) -> None:
    """Files that were put there by hand have a hash alone, and so may what an adapter was swapped in."""
    await quick.answers("cccccccccccc", 50, ago_s=60)
    async with watched(quick.bus):
        await quick.phase("watching")
        await quick.happened("swapped", previous="")
        await quick.answers("dddddddddddd", 15, text=" ", ago_s=-1)
        assert "0 of 50 before" in (await quick.rolled_back()).message


@pytest.mark.parametrize(
    ("version", "release", "is_it"),
    [
        ("2+ab", "2", True),
        ("2", "2", True),
        ("2+ab", "1", False),
        ("ab", "", False),
        ("7+slot-2+ab", "2", True),
        ("2+slot-7+ab", "2", False),
        ("slot-2+ab", "2", True),
        ("2+other-1+ab", "2", True),
        ("slot-2+ab", "slot-2", True),
    ],
)
def test_a_turns_version_tells_the_release_of_each_slot(version: str, release: str, is_it: bool) -> None:
    assert is_of(version, "slot", release) is is_it


# -- leaving alone -------------------------------------------------------------------------------------------------


async def test_a_version_that_is_as_good_is_left_alone_to_the_end(site: Site) -> None:
    await site.answers(OLD, 40, ago_s=60)
    async with watched(site.bus) as watching:
        await site.swapped()
        await soon(lambda: watching.watches, "it is watched")
        await site.answers(NEW, 40)
        await site.answers(NEW, 1, text=" ")
        await left_alone(site, watching)
        assert len(watching.watches[0].new) == 41
        await site.phase("watching", until=time.time() - 1)
        await soon(lambda: not watching.watches, "the watch ends when its time is over")


BAD = {"text": " "}


@pytest.mark.parametrize(
    "answers",
    [
        {"version": NEW, "model": "other", **BAD},
        {"version": NEW, "worker": "elsewhere-abcdef-0", **BAD},
        {"version": NEW, "finish": "cancelled", **BAD},
        {"version": NEW, "code": "context_overflow"},
        {"version": NEW, "ago_s": 30, **BAD},
        {"version": OLD, **BAD},
    ],
    ids=["another model", "another site", "cancelled", "the sender's fault", "of an earlier try", "the old version"],
)
async def test_answers_that_are_not_the_new_versions_fault_do_not_count(quick: Site, answers: dict[str, Any]) -> None:
    await quick.answers(OLD, 40, ago_s=60)
    async with watched(quick.bus) as watching:
        await quick.swapped()
        await soon(lambda: watching.watches, "it is watched")
        await quick.answers(count=40, **answers)
        await left_alone(quick, watching)
        assert len(watching.watches[0].new) == 0


async def test_a_swap_on_another_site_is_its_own_watchers_business(quick: Site) -> None:
    async with watched(quick.bus) as watching:
        row = UpdateStatus(
            name="slot", site="other-abcdef", phase="watching", at=time.time(), version="2", until=time.time() + 600,
            models=("m",),
        )  # fmt: skip
        await quick.bus.table("UPDATES").put("slot.other-abcdef", encode(row))
        await quick.happened("swapped", site="other-abcdef")
        quick.row = replace(quick.row, name="own")
        await quick.swapped()
        await soon(lambda: watching.watches, "its own is watched")
        assert [watch.key.slot for watch in watching.watches] == ["own"]


async def test_a_failure_that_is_told_twice_counts_once(quick: Site) -> None:
    async with watched(quick.bus) as watching:
        await quick.swapped()
        await soon(lambda: watching.watches, "it is watched")
        await quick.failures(NEW, 3)
        await soon(lambda: len(watching.watches[0].new) == 3, "the attempts count")
        quick.count -= 3
        await quick.answers(NEW, 3, code="model_failed")
        await left_alone(quick, watching)
        assert len(watching.watches[0].new) == 3


async def test_rubbish_on_the_bus_stops_nothing(quick: Site) -> None:
    await quick.answers(OLD, 40, ago_s=60)
    await quick.bus.publish(subjects.event("model", "m", "swapped"), b"{")
    async with watched(quick.bus):
        await quick.swapped()
        await quick.bus.publish(subjects.turn("web", "c"), b"\xff{")
        await quick.bus.publish(subjects.event("failure", "m"), b"[]")
        await quick.answers(NEW, 12, text=" ")
        await quick.rolled_back()


async def test_an_event_that_never_comes_is_not_waited_for_long(quick: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "EVENT_WAIT_S", 0.1)
    await quick.answers(OLD, 40, ago_s=2_000)
    async with watched(quick.bus) as running:
        await quick.phase("canary")
        [found] = await soon(lambda: running.watches, "the row alone is enough")
        assert found.previous == "1"
        assert found.since == pytest.approx(time.time(), abs=5)
        await quick.answers(NEW, 12, text=" ")
        await quick.rolled_back()


def test_no_more_than_a_fixed_number_of_samples_is_kept() -> None:
    watch = Watch(Key("slot", "m", "2", "watching"), 1_000.0, 2_000.0, "1")
    asked = Inbound(id="r", conversation="c", sender=Sender("s"), text="?")
    turn = Turn(
        id="r", channel="web", conversation="c", inbound=asked, text="x", model="m", version=NEW, finished_at=1_500.0
    )
    for _ in range(3 * SAMPLES_MAX):
        watch.turn(turn)
        watch.turn(replace(turn, version=OLD))
    assert (len(watch.new), len(watch.old), len(watch.spans)) == (SAMPLES_MAX, SAMPLES_MAX, 2 * SAMPLES_MAX)


async def test_while_the_updater_is_away_the_watch_goes_on_and_still_ends(quick: Site) -> None:
    await quick.answers(OLD, 40, ago_s=60)
    async with watched(quick.bus) as running:
        await quick.phase("watching", until=time.time() + 1.0)
        await quick.happened("swapped")
        await soon(lambda: running.watches, "it is watched")
        await quick.gone()
        await quick.answers(NEW, 5)
        await soon(lambda: len(running.watches[0].new) == 5, "it is still watched")
        await soon(lambda: not running.watches, "its time is over")


# -- orders --------------------------------------------------------------------------------------------------------


def test_an_updater_that_is_away_is_asked_again_and_in_the_end_the_operator_is() -> None:
    async def away() -> None:
        bus = MemoryBus(MemoryServer(), config_of())
        await streams.apply(bus, bus.config)
        site = Site(bus)
        await site.answers(OLD, 40, ago_s=60)
        async with watched(bus):
            await site.swapped()
            await site.answers(NEW, 12, text=" ")
            asked_at = asyncio.get_running_loop().time()
            alerts = await soon(lambda: site.alerts("not_rolled_back"), "the operator is told", 600)
            assert 60 < asyncio.get_running_loop().time() - asked_at < 600
            assert alerts[0].level == "critical"
            assert "roost update rollback slot" in alerts[0].message
            assert await site.alerts("rolled_back") == []
        await bus.close()

    run(away)


async def test_an_updater_that_comes_back_gets_the_order(quick: Site, caplog: pytest.LogCaptureFixture) -> None:
    await quick.answers(OLD, 40, ago_s=60)
    async with watched(quick.bus):
        subscriptions = list(quick.bus.subscriptions)  # type: ignore[attr-defined]
        for subscription in subscriptions:
            if subscription.subject == subjects.updater(SITE):
                await subscription.close()
        await quick.swapped()
        await quick.answers(NEW, 12, text=" ")
        await soon(lambda: "the updater does not answer" in caplog.text, "it was asked in vain")
        await quick.listen()
        await quick.rolled_back()


async def test_an_updater_that_cannot_go_back_is_not_asked_again_and_the_operator_is_told(quick: Site) -> None:
    quick.told = UpdateTold(ok=False, text="no earlier version is known")
    await quick.answers(OLD, 40, ago_s=60)
    async with watched(quick.bus) as running:
        await quick.swapped()
        await quick.answers(NEW, 12, text=" ")
        [alert] = await soon(lambda: quick.alerts("not_rolled_back"), "the operator is told")
        assert "no earlier version is known" in alert.message
        await quick.answers(NEW, 12, text=" ")
        await soon(lambda: len(running.watches[0].new) == 24, "all is read")
        await quick.phase("idle", version="")
        await soon(lambda: not running.watches, "the watch ends")
        assert len(quick.orders) == 1


async def test_a_word_that_comes_too_late_is_no_alarm(quick: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "roost.watch")
    quick.told, quick.late = UpdateTold(ok=False, text="nothing is tried or watched any more"), True
    await quick.answers(OLD, 40, ago_s=60)
    async with watched(quick.bus):
        await quick.swapped()
        await quick.answers(NEW, 12, text=" ")
        await soon(lambda: "does not serve any more: nothing is tried" in caplog.text, "the answer is read")
    assert await quick.alerts("rolled_back") == []
    assert await quick.alerts("not_rolled_back") == []
