"""Swaps with everything but fetching: a slot on a real disk, the bus in memory, workers that may break the contract."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from schemas.errors import Rejected
from schemas.model import GoldenAnswer, ModelTold
from schemas.update import Change, UpdateOrder
from tests.bus.real import soon
from tests.updater.site import GOLDEN, House, house_in, release_of
from updater.orders import _change
from updater.state import SlotState, Swap
from updater.swap import verdict
from updater.way import Way
from updater.workers import Reply


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = await house_in(tmp_path)
    house.install("1", "2", "3")
    yield house
    await house.close()


async def order(way: Way, **fields: str) -> None:
    await way.change(_change(UpdateOrder(**fields)))  # type: ignore[arg-type]
    way.poke()


async def test_a_version_is_staged_at_all_workers_then_flipped_then_settled(house: House) -> None:
    first, second = await house.worker(0), await house.worker(1)
    async with house.updater("1", "2") as way:
        await house.rests("2")
        await house.told("settled", "2")
        history = way.state.history
    for worker in (first, second):
        assert worker.serves == ["1", "2"]
        assert [o.do for o in worker.orders if o.do in ("stage", "look")] == ["stage", "look"]
    stage = next(o for o in first.orders if o.do == "stage")
    assert (stage.link, stage.trial, stage.goldens) == (house.slot.link, True, (GOLDEN,))
    assert [change.what for change in history] == ["swapped", "settled"]
    assert history[0].seconds.keys() == {"load", "flip", "switched"}
    assert await house.events() == [("staged", "2"), ("swapped", "2"), ("settled", "2")]
    assert house.store.standby() == "1"


@pytest.mark.parametrize("how", ["bad_model", "garbage"])
async def test_a_bad_version_is_blocked_and_freed_at_all_workers_and_never_serves(house: House, how: str) -> None:
    good, bad = await house.worker(0), await house.worker(1, v3=how)
    async with house.updater("1", "3") as way:
        await house.shows("failed", "is blocked")
        assert way.state.blocked.keys() == {"3"}
        await house.told("refused", "3")
        await house.alerted("update_refused")
        await soon(lambda: good.staged == bad.staged == "", "it is freed everywhere")
    assert house.current == "1"
    assert good.serves == bad.serves == ["1"]


async def test_a_version_that_kills_its_worker_twice_is_blocked(house: House) -> None:
    worker = await house.worker(0, v2="die")
    async with house.updater("1", "2") as way:
        await soon(lambda: "2" in way.state.blocked, "it is blocked", 20)
        assert "tried 2 times" in way.state.blocked["2"]
    assert worker.did("stage") == ["2", "2"]
    assert set(worker.serves) == {"1"}


async def test_a_worker_that_hangs_does_not_hold_the_updater_for_ever(house: House) -> None:
    house.config = replace(house.config, load_s=0.3)
    await house.worker(0, v2="hang")
    async with house.updater("1", "2") as way:
        await soon(lambda: "2" in way.state.blocked, "it is blocked", 20)
        assert "did not answer" in way.state.blocked["2"]
    assert house.current == "1"


async def test_one_death_is_an_accident_and_the_next_attempt_succeeds(house: House) -> None:
    worker = await house.worker(0, v2="die")
    async with house.updater("1", "2"):
        await soon(lambda: len(set(worker.did("stage"))) and worker.pid > 1000 and worker.serves == ["1"], "it died")
        worker.how.clear()
        await house.rests("2")
    assert worker.serves[-1] == "2"


async def test_without_memory_for_both_it_waits_with_the_figures_and_blocks_nothing(house: House) -> None:
    worker = await house.worker(0, v2="no_memory")
    async with house.updater("1", "2") as way:
        await house.shows("staged", "no_memory")
        assert way.state.blocked == {}
        worker.how.clear()
        way.poke()
        await house.rests("2")


async def test_where_the_operator_allows_it_the_old_version_is_freed_first(house: House) -> None:
    worker = await house.worker(0, v2="no_memory")
    async with house.updater("1", "2", in_place=True, canary=50):
        await house.rests("2")
    assert [o.in_place for o in worker.orders if o.do == "stage"] == [False, True]
    assert "share" not in [o.do for o in worker.orders]


async def test_without_a_worker_it_waits_and_goes_on_when_one_comes(house: House) -> None:
    async with house.updater("1", "2") as way:
        await house.shows("staged", "no worker")
        assert way.state.blocked == {}
        worker = await house.worker()
        await house.rests("2", 15)
    assert worker.serves == ["1", "2"]


async def test_shadow_and_canary_last_their_time_and_a_late_worker_takes_part(house: House) -> None:
    first = await house.worker(0)
    async with house.updater("1", "2", shadow=20, canary=10, trial_s=1.5):
        await soon(lambda: first.shared == (0, 20), "shadow")
        late = await house.worker(1)
        await soon(lambda: late.shared == (0, 20), "the late worker answers copies too")
        await soon(lambda: first.shared == (10, 0), "canary")
        assert house.current == "1"
        await house.rests("2", 15)
        await house.told("settled", "2")
    assert [what for what, _ in await house.events()] == ["staged", "shadow", "canary", "swapped", "settled"]
    assert late.serves == ["1", "2"]


async def test_a_canary_that_ops_finds_worse_is_freed_and_blocked_without_a_flip(house: House) -> None:
    worker = await house.worker()
    async with house.updater("1", "2", canary=10, trial_s=60.0) as way:
        await soon(lambda: worker.shared == (10, 0), "canary")
        await order(way, do="rollback", name="talk", by="ops", reason="worse")
        await soon(lambda: worker.staged == "", "it is freed")
        assert way.state.blocked == {"2": "worse"}
    assert worker.serves == ["1"]
    assert "swapped" not in [what for what, _ in await house.events()]


async def test_a_worse_version_is_rolled_back_while_it_is_watched(house: House) -> None:
    worker = await house.worker()
    async with house.updater("1", "2", watch_s=60.0) as way:
        await house.shows("watching")
        await order(way, do="rollback", name="talk", by="ops", reason="slower")
        await house.rests("1")
        assert way.state.blocked == {"2": "slower"}
        with pytest.raises(Rejected):
            await order(way, do="rollback", name="talk", by="ops", reason="slower")
        await house.shows("failed", "slower")
        await house.alerted("update_rolled_back")
    assert worker.serves == ["1", "2", "1"]
    assert [o.trial for o in worker.orders if o.do == "stage"] == [True, False]
    back = (await house.model_events())[-1]
    assert (back.what, back.version, back.previous, back.reason) == ("rolled_back", "1", "2", "slower")


@pytest.mark.parametrize("trouble", ["no worker", "unavailable", "bad_model"])
async def test_the_way_back_needs_neither_source_nor_a_worker_that_can_load_it_beside(
    house: House, trouble: str
) -> None:
    if trouble != "no worker":
        await house.worker(0, v1=trouble)
    house.store.point("current", "2")
    async with house.updater() as way:
        way.learn(None, "the source cannot be asked")
        await order(way, do="rollback", name="talk", version="1")
        await house.rests("1", 20)
        assert way.state.blocked.keys() == {"2"}


async def test_a_version_that_a_worker_cannot_serve_after_the_flip_goes_back_by_itself(house: House) -> None:
    worker = await house.worker(0, v2="fails_look")
    worker.how["2"] = "ok"
    async with house.updater("1", "2", watch_s=60.0, canary=10, trial_s=1.0) as way:
        await soon(lambda: worker.shared == (10, 0), "canary")
        worker.how["2"] = "fails_look"
        await house.rests("1", 15)
        assert "2" in way.state.blocked
    assert worker.serves[-1] == "1"


async def test_apply_is_waited_for_where_the_rollout_is_not_automatic(house: House) -> None:
    worker = await house.worker()
    async with house.updater("1", "2", auto=False) as way:
        await house.shows("staged", "roost update apply")
        assert worker.did("stage") == []
        await order(way, do="apply", name="talk")
        await house.rests("2")


async def test_a_pin_ends_what_is_tried_and_an_unpin_takes_it_up_again(house: House) -> None:
    worker = await house.worker()
    async with house.updater("1", "2", canary=10, trial_s=60.0) as way:
        await soon(lambda: worker.shared == (10, 0), "canary")
        await order(way, do="pin", name="talk")
        await soon(lambda: way.state.swap is None and worker.staged == "", "it is freed")
        assert way.state.blocked == {}
        await order(way, do="unpin", name="talk")
        await soon(lambda: worker.shared == (10, 0), "canary again")


async def test_a_link_changed_by_hand_is_respected_while_another_version_is_tried(house: House) -> None:
    worker = await house.worker()
    async with house.updater("1", "2", canary=10, trial_s=60.0) as way:
        await soon(lambda: worker.shared == (10, 0), "canary")
        house.store.point("current", "3")
        way.poke()
        await soon(lambda: way.state.pinned == "3" and worker.staged == "", "it is pinned, and the other one freed")
        assert way.state.history[-1].by == "hand"
    assert house.current == "3"


async def test_what_is_none_of_the_updaters_is_left_alone_with_the_remedy(house: House) -> None:
    link = house.slot.folder / "current"
    link.unlink()
    link.mkdir()
    (link / "model.gguf").touch()
    async with house.updater("1", "2"):
        await house.shows("idle", "replaces nothing of yours")
    assert link.is_dir()


async def test_two_updaters_on_one_slot_do_not_meet(house: House) -> None:
    await house.worker()
    with house.store.lock():
        running = asyncio.create_task(hold(house))
        await house.shows("idle", "another updater")
        assert house.current == "1"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    async with house.updater("1", "2"):
        await house.rests("2")


async def hold(house: House) -> None:
    async with house.updater("1", "2"):
        raise AssertionError("the slot was taken twice")


@pytest.mark.parametrize(
    "step", ["loading", "canary", "switching", "flipped", "watching", "rolling_back", "back_flipped"]
)
async def test_a_new_life_finishes_what_the_old_one_began(house: House, step: str) -> None:
    """`updates.json` and the link as a kill at that step leaves them."""
    back = step in ("rolling_back", "back_flipped")
    old, new = ("2", "1") if back else ("1", "2")
    named = {"flipped": "switching", "back_flipped": "switching"}.get(step, step)
    swap = Swap(step=named, version=new, previous=old, back=back, at=1.0, until=2.0)  # type: ignore[arg-type]
    served = (Change(at=1.0, what="swapped", version="2", previous="1"),) if back or step == "watching" else ()
    house.store.save(SlotState(history=served, swap=swap, blocked={"2": "worse"} if back else {}))
    house.store.point("current", new if step in ("flipped", "watching", "back_flipped") else old)
    worker = await house.worker()
    async with house.updater("1", "2", watch_s=0.3, trial_s=0.3, canary=10):
        await house.rests(new)
        await house.told("rolled_back" if back else "settled", new)
    told = [what for what, _ in await house.events()]
    assert ("swapped" in told) == (not back and step != "watching")
    assert worker.serves[-1] == new


async def test_kills_at_any_moment_leave_one_version_serving_and_the_next_life_finishes(house: House) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    worker = await house.worker()
    for _ in range(25):
        async with house.updater("1", "2", "3", watch_s=0.02, canary=10, trial_s=0.02) as way:
            if rng.random() < 0.2 and house.current != "1":
                with contextlib.suppress(Rejected):
                    await order(way, do="rollback", name="talk")
            await asyncio.sleep(rng.uniform(0, 0.15))
        assert house.current in ("1", "2", "3")
    async with house.updater("1", "2", "3", watch_s=0.02, canary=10, trial_s=0.02) as way:
        await soon(lambda: way.state.swap is None, "it comes to rest")
        await soon(lambda: not worker.staged, "nothing is left beside what serves")
        assert house.current not in way.state.blocked
        if not way.state.blocked:
            await house.rests("3")
    assert worker.serves[-1] == house.current
    assert sorted(path.name for path in house.store.releases.iterdir()) == ["1", "2", "3"]


@pytest.mark.parametrize("off_s", [-86_400.0, 86_400.0])
async def test_a_clock_that_was_wrong_by_a_day_neither_ends_nor_lengthens_the_time_of_watching(
    house: House, off_s: float
) -> None:
    """The state was written by the wrong clock."""
    await house.worker()
    at = time.time() + off_s
    swap = Swap(step="watching", version="2", previous="1", at=at, until=at + 0.5)
    served = Change(at=at, what="swapped", version="2", previous="1")
    house.store.save(SlotState(history=(served,), swap=swap))
    house.store.point("current", "2")
    async with house.updater("1", "2", watch_s=0.5):
        await house.rests("2", 5)
        await house.told("settled", "2")


async def test_one_swap_at_a_time_at_a_site(house: House, tmp_path: Path) -> None:
    """While one slot is tried, another waits; a way back does not."""
    worker = await house.worker()
    async with house.updater("1", "2", canary=10, trial_s=60.0) as way:
        await soon(lambda: worker.shared == (10, 0), "canary")
        other = Way(replace(house.slot, name="other", folder=tmp_path / "other"), way._shared)
        for i, version in enumerate(("1", "2")):
            install(other, version, i)
        other.store.point("current", "1")
        other.learn(("1", "2"), "")
        running = asyncio.create_task(other.run())
        try:
            await soon(lambda: other.state.swap is not None and other.state.swap.step == "loading", "it would load")
            await soon(lambda: way._shared.report.row("other").reason.startswith("another model"), "it waits")
            await order(way, do="rollback", name="talk", by="ops", reason="worse")
            await soon(lambda: worker.did("stage")[-1] == "2" and len(worker.did("stage")) > 1, "it has its turn")
        finally:
            running.cancel()
            await asyncio.wait({running})


def install(way: Way, version: str, sequence: int) -> None:
    release = release_of(version, sequence)
    (way.store.incoming(release) / "model.txt").write_bytes(b"x" * 8)
    way.store.finish(release)


def test_of_several_workers_the_worst_answer_counts() -> None:
    def reply(code: str = "", text: str = "Paris", lost: str = "") -> Reply:
        told = ModelTold(
            model="talk", worker="w", text=code, ok=not code, code=code, answers=(GoldenAnswer(text=text),),
            seconds={"load": len(text)},
        )  # fmt: skip
        return Reply(worker="w", model="talk", told=() if lost else (told,), lost=lost)  # type: ignore[arg-type]

    def how(*replies: Reply) -> str:
        return verdict((GOLDEN,), replies).how

    assert how() == "later"
    assert how(reply()) == "staged"
    assert how(reply(), reply("unavailable")) == "later"
    assert how(reply("unavailable"), reply("no_memory")) == "no_memory"
    assert how(reply("no_memory"), reply(lost="died")) == "crashed"
    assert how(reply(lost="silent"), reply("bad_model")) == "bad"
    assert how(reply(), reply(text="London")) == "bad"
    assert how(reply(lost="gone")) == "later"
    assert verdict((GOLDEN,), [reply(), reply(text="Paris, yes")]).seconds == {"load": 10}
