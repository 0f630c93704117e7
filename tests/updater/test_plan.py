"""What to do next for a slot: single decisions, and a machine that tries every order of faults, orders and kills."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from schemas.errors import Rejected
from schemas.update import Change, RolloutConfig
from updater import after, asked, plan
from updater.plan import Begin, Drop, Fetch, Flip, Hold, Load, Next, Rest, Seen, Settle, Share, Watch
from updater.state import SlotState, Swap


def seen(current: str = "1", versions: str = "1 2 3", disk: str = "1", **more: Any) -> Seen:
    here = frozenset(disk.split())
    facts: dict[str, Any] = {"now": 1_000.0, "installed": here, "made": here, **more}
    return Seen(current=current, versions=tuple(versions.split()), **facts)


def swap(version: str = "3", step: Any = "loading", **more: Any) -> SlotState:
    return SlotState(swap=Swap(version=version, step=step, previous="1", **more))


def served(*versions: str) -> tuple[Change, ...]:
    return tuple(Change(at=0, what="swapped", version=version) for version in versions)


# -- which version ----------------------------------------------------------------------------------------------


def test_the_newest_version_that_is_not_blocked_is_gone_to() -> None:
    assert plan.move(SlotState(), seen()) == Begin("3")
    assert plan.move(SlotState(blocked={"3": "bad"}), seen()) == Begin("2")
    assert plan.move(SlotState(blocked={"3": "bad", "2": "bad"}), seen()) == Rest()
    assert plan.move(SlotState(), seen(current="3")) == Rest()


def test_while_the_source_is_unknown_nothing_is_begun() -> None:
    assert plan.move(SlotState(), seen(versions="")) == Rest()
    assert plan.move(swap(step="fetching"), seen(versions="")) == Fetch("3")


def test_a_first_release_is_taken_where_nothing_serves_and_beside_a_version_that_the_source_does_not_know() -> None:
    assert plan.move(SlotState(), seen(current="", disk="")) == Begin("3")
    assert plan.move(SlotState(), seen(current="mine", disk="mine")) == Begin("3")


def test_versions_that_a_rollback_went_past_are_no_updates() -> None:
    back = SlotState(history=served("2", "3", "1"), blocked={"3": "bad"})
    assert plan.move(back, seen(disk="1 2 3")) == Rest()
    assert plan.move(back, seen(versions="1 2 3 4")) == Begin("4")
    assert plan.move(asked.unblocked(back, "3"), seen(disk="1 2 3")) == Begin("3")


def test_a_pinned_slot_goes_to_its_version_and_stays_there() -> None:
    assert plan.move(SlotState(pinned="2"), seen()) == Begin("2")
    assert plan.move(SlotState(pinned="1"), seen()) == Rest()
    assert plan.move(replace(swap(), pinned="1"), seen(disk="1 3")) == Drop("pinned to 1")
    assert plan.move(replace(swap(step="watching"), pinned="2"), seen(current="3", left_s=9)) == Settle("3")


def test_a_newer_version_takes_the_place_of_one_that_is_on_its_way_but_not_of_one_that_workers_load() -> None:
    assert plan.move(swap("2", "fetching"), seen()) == Drop("3 is newer")
    assert plan.move(swap("2", "staged"), seen(disk="1 2")) == Drop("3 is newer")
    assert plan.move(swap("2", "loading"), seen(disk="1 2")) == Load("2", trial=True)


def test_a_folder_of_the_operators_is_not_taken_for_the_release_of_that_name() -> None:
    assert plan.move(swap(step="fetching"), seen(disk="1 3", made=frozenset())) == Fetch("3")
    assert plan.move(swap("mine", "fetching"), seen(disk="1 mine", versions="", made=frozenset())) == Next()


# -- the way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rollout", "steps"),
    [
        (RolloutConfig(), "fetching staged loading switching watching"),
        (RolloutConfig(canary=5), "fetching staged loading canary switching watching"),
        (RolloutConfig(shadow=5, canary=5), "fetching staged loading shadow canary switching watching"),
    ],
)
def test_a_swap_passes_its_steps_in_order(rollout: RolloutConfig, steps: str) -> None:
    now = seen(disk="1 3", rollout=rollout)
    state, passed = after.begun(SlotState(), now, "3"), []
    while state.swap is not None and state.swap.step != "switching":
        passed.append(state.swap.step)
        state = after.advanced(state, now)
    assert state.swap is not None
    assert state.swap.until == now.now + rollout.watch_s
    state = after.flipped(state, 2_000.0)
    assert [*passed, "switching", "watching"] == steps.split()
    done = after.settled(state, 3_000.0)
    assert done.swap is None
    assert [change.what for change in done.history] == ["swapped", "settled"]


def test_without_a_version_to_compare_with_there_is_no_trial_time() -> None:
    careful = RolloutConfig(shadow=5, canary=5)
    first = after.advanced(swap(), seen(current="", rollout=careful))
    alone = after.advanced(swap(), seen(rollout=careful), alone=True)
    assert [state.swap and state.swap.step for state in (first, alone)] == ["switching", "switching"]


def test_the_operator_says_when_where_the_rollout_is_not_automatic() -> None:
    manual = seen(disk="1 3", rollout=RolloutConfig(auto=False))
    held = swap(step="staged")
    assert plan.move(held, manual) == Hold("3")
    assert plan.move(asked.applied(held, "operator"), manual) == Next()
    assert plan.move(after.begun(SlotState(pinned="3"), manual, "3"), manual) == Next()
    with pytest.raises(Rejected, match="nothing waits"):
        asked.applied(SlotState(), "operator")


def test_a_fetch_is_not_broken_off_when_its_files_are_in_their_place_and_a_step_that_waits_is() -> None:
    fetching = swap(step="fetching")
    done = plan.move(fetching, seen(disk="1 3"))
    assert done == Next()
    assert not plan.breaks_off(Fetch("3"), done)
    assert not plan.breaks_off(Share("3", 9, canary=5), Next())
    assert plan.breaks_off(Hold("3"), Next())
    assert plan.breaks_off(Fetch("2"), Drop("3 is newer"))
    assert plan.breaks_off(Watch("3", 9), Settle("3"))
    assert not plan.breaks_off(Watch("3", 9), Watch("3", 8))
    assert plan.breaks_off(Share("3", 9, canary=5), Share("3", 9, canary=6))


def test_timed_steps_end_with_their_time() -> None:
    now = seen(disk="1 3", rollout=RolloutConfig(canary=5, shadow=7), left_s=3)
    assert plan.move(swap(step="shadow"), now) == Share("3", 3, shadow=7)
    assert plan.move(swap(step="canary"), now) == Share("3", 3, canary=5)
    assert plan.move(swap(step="canary"), replace(now, left_s=0)) == Next()
    assert plan.move(swap(step="watching"), replace(now, current="3")) == Watch("3", 3)
    assert plan.move(swap(step="watching"), replace(now, current="3", left_s=0)) == Settle("3")


def test_a_version_that_is_refused_is_blocked_and_never_tried_again() -> None:
    state = after.refused(swap(), 2.0, "garbage")
    assert state.blocked == {"3": "garbage"}
    assert state.history[-1].what == "refused"
    assert plan.move(state, seen(disk="1 3", versions="1 3")) == Rest()


def test_one_death_of_a_worker_is_an_accident_and_the_second_is_the_versions_fault() -> None:
    once = after.crashed(swap(step="canary", until=9.0), 2.0, "died")
    assert once.swap is not None
    assert (once.swap.crashes, once.swap.step, once.blocked) == (1, "loading", {})
    twice = after.crashed(once, 3.0, "died")
    assert twice.swap is None
    assert "tried 2 times: died" in twice.blocked["3"]


# -- orders -----------------------------------------------------------------------------------------------------


def test_a_rollback_blocks_what_it_leaves_and_goes_to_what_served_before() -> None:
    state = SlotState(history=served("1", "2", "3"))
    back = asked.rolled_back(state, seen(current="3", disk="1 2 3"), "", "French", "operator")
    assert back.swap is not None
    assert (back.swap.version, back.swap.previous, back.swap.back) == ("2", "3", True)
    assert back.blocked == {"3": "French"}
    assert plan.move(back, seen(current="3", disk="1 2 3")) == Load("2", trial=False)
    done = after.flipped(after.advanced(back, seen()), 2.0)
    assert done.swap is None
    assert (done.history[-1].what, done.history[-1].version) == ("rolled_back", "2")


def test_a_second_rollback_goes_further_back_and_never_to_a_blocked_version() -> None:
    state = SlotState(history=served("1", "2", "3"), blocked={"2": "bad"})
    back = asked.rolled_back(state, seen(current="3", disk="1 2 3"), "", "", "operator")
    assert back.swap is not None
    assert back.swap.version == "1"
    with pytest.raises(Rejected, match=r"2 is blocked \(bad\)"):
        asked.rolled_back(state, seen(current="3", disk="1 2 3"), "2", "", "operator")
    with pytest.raises(Rejected, match="no earlier version"):
        asked.rolled_back(state, seen(current="3", disk="2 3"), "", "", "operator")
    with pytest.raises(Rejected, match="not on the disk"):
        asked.rolled_back(state, seen(current="3", disk="2 3"), "1", "", "operator")
    with pytest.raises(Rejected, match="serves already"):
        asked.rolled_back(state, seen(current="3", disk="2 3"), "3", "", "operator")


def test_a_rollback_while_a_version_is_only_tried_refuses_it_and_flips_nothing() -> None:
    for step in ("loading", "shadow", "canary", "switching"):
        state = asked.rolled_back(swap(step=step), seen(disk="1 3"), "", "worse", "ops")
        assert state.swap is None
        assert state.blocked == {"3": "worse"}


def test_a_late_word_of_ops_rolls_nothing_back() -> None:
    settled = SlotState(history=served("1", "3"))
    with pytest.raises(Rejected, match="nothing is tried or watched"):
        asked.rolled_back(settled, seen(current="3", disk="1 3"), "", "worse", "ops")
    watched = replace(swap(step="watching"), history=served("3"))
    back = asked.rolled_back(watched, seen(current="3", disk="1 3"), "", "worse", "ops")
    assert back.swap is not None
    assert back.swap.version == "1"
    with pytest.raises(Rejected, match="going back to 1 already"):
        asked.rolled_back(back, seen(current="3", disk="1 3"), "", "worse", "ops")


def test_a_rollback_of_the_pinned_version_unpins_it() -> None:
    state = SlotState(history=served("1", "3"), pinned="3")
    assert asked.rolled_back(state, seen(current="3", disk="1 3"), "", "", "operator").pinned == ""


def test_only_what_exists_and_is_not_blocked_can_be_pinned() -> None:
    assert asked.pinned(SlotState(), seen(), "", "operator").pinned == "1"
    assert asked.pinned(SlotState(), seen(), "2", "operator").pinned == "2"
    with pytest.raises(Rejected, match="neither on the disk nor in the source"):
        asked.pinned(SlotState(), seen(), "9", "operator")
    with pytest.raises(Rejected, match="blocked"):
        asked.pinned(SlotState(blocked={"2": "bad"}), seen(), "2", "operator")
    with pytest.raises(Rejected, match="not pinned"):
        asked.unpinned(SlotState(), 1.0, "operator")
    with pytest.raises(Rejected, match="not blocked"):
        asked.unblocked(SlotState(), "2")


def test_a_link_that_was_changed_by_hand_stays_and_is_recorded() -> None:
    state = replace(swap(step="canary"), history=served("1"))
    changed = asked.by_hand(state, seen(current="2"))
    assert changed is not None
    assert (changed.swap, changed.pinned) == (None, "2")
    assert (changed.history[-1].by, changed.history[-1].previous) == ("hand", "1")
    assert plan.move(changed, seen(current="2")) == Rest()
    assert asked.by_hand(changed, seen(current="2")) is None
    assert asked.by_hand(SlotState(), seen(current="1")) is None
    for current in ("1", "3"):
        assert asked.by_hand(replace(swap(step="switching"), history=served("1")), seen(current=current)) is None


# -- everything together ----------------------------------------------------------------------------------------


class Slot(RuleBasedStateMachine):
    """A disk, a source and a state, on which faults, orders, hands and kills fall in any order.

    Each rule is what happens between two saves; since the next one begins from what was saved, every rule is also a
    kill and a start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = SlotState()
        self.current = "1"
        self.disk = {"1"}
        self.source = ["1"]
        self.now = 1e9
        self.left_s = 0.0
        self.rollout = RolloutConfig()
        self.hands = {"1"}
        """Versions that somebody put there by hand."""
        self.permitted: set[str] = set()
        """Versions that were unblocked."""

    def seen(self) -> Seen:
        here = frozenset(self.disk)
        facts: dict[str, Any] = {"now": self.now, "installed": here, "made": here, "left_s": self.left_s}
        return Seen(current=self.current, versions=tuple(self.source), rollout=self.rollout, **facts)

    def make(self, move: Any, how: str) -> None:
        """One move of the plan, going well or badly."""
        seen, state = self.seen(), self.state
        match move:
            case Begin():
                self.state = after.begun(state, seen, move.version)
            case Fetch() if how == "bad":
                self.state = after.refused(state, self.now, "wrong hash")
            case Fetch() if how == "good":
                self.disk.add(move.version)
                self.state = after.fetched(state, self.now, 1, {})
            case Load() | Share() if how == "bad" and getattr(move, "trial", True):
                self.state = after.refused(state, self.now, "garbage")
            case Load() | Share() if how == "crash" and getattr(move, "trial", True):
                self.state = after.crashed(state, self.now, "died")
            case Load() if how == "good" or not move.trial:
                self.state = after.advanced(state, seen)
            case Share() | Watch() if how == "good":
                self.left_s = 0.0
            case Watch() if how == "bad":
                self.order(lambda: asked.rolled_back(state, seen, "", "worse", "ops"))
            case Next():
                self.state = after.advanced(state, seen)
                self.left_s = 60.0
            case Flip():
                assert state.swap is not None
                assert self.current in (state.swap.previous, state.swap.version)
                self.current = move.version
                if how == "good":
                    self.state = after.flipped(state, self.now)
                    self.left_s = 60.0
            case Settle():
                self.state = after.settled(state, self.now)
            case Drop():
                self.state = after.dropped(state)

    def order(self, change: Any) -> None:
        try:
            self.state = change()
        except Rejected:
            return

    def next_move(self) -> Any:
        self.state = asked.by_hand(self.state, self.seen()) or self.state
        return plan.move(self.state, self.seen())

    @rule(ways=st.lists(st.sampled_from(["good"] * 8 + ["bad", "crash", "later"]), min_size=4, max_size=12))
    def goes_on(self, ways: list[str]) -> None:
        for how in ways:
            self.make(self.next_move(), how)

    @precondition(lambda self: len(self.source) < 8)
    @rule()
    def is_published(self) -> None:
        self.source.append(str(len(self.source) + 1))

    @rule(to=st.sampled_from(["", "", "1", "2", "3", "4"]), by=st.sampled_from(["operator", "ops"]))
    def is_rolled_back(self, to: str, by: str) -> None:
        self.next_move()
        before, was_back = self.state, bool(self.state.swap and self.state.swap.back)
        self.order(lambda: asked.rolled_back(self.state, self.seen(), to, "", by))
        if self.state is not before and not was_back:
            left = self.current if self.state.swap else self.state.history[-1].version
            assert left in self.state.blocked

    @rule(version=st.sampled_from(["", "1", "2", "3", "9"]))
    def is_pinned(self, version: str) -> None:
        self.next_move()
        self.order(lambda: asked.pinned(self.state, self.seen(), version, "operator"))

    @rule()
    def is_unpinned(self) -> None:
        self.order(lambda: asked.unpinned(self.state, self.now, "operator"))

    @rule(version=st.sampled_from(["1", "2", "3", "4"]))
    def is_unblocked(self, version: str) -> None:
        self.order(lambda: asked.unblocked(self.state, version))
        self.permitted.add(version)

    @rule()
    def is_applied(self) -> None:
        self.order(lambda: asked.applied(self.state, "operator"))

    @rule(
        auto=st.booleans(),
        shadow=st.sampled_from([0, 10]),
        canary=st.sampled_from([0, 10]),
    )
    def is_configured(self, auto: bool, shadow: int, canary: int) -> None:
        self.rollout = RolloutConfig(auto=auto, shadow=shadow, canary=canary)

    @rule(data=st.data())
    def is_relinked_by_hand(self, data: Any) -> None:
        self.current = data.draw(st.sampled_from(sorted(self.disk)))
        self.hands.add(self.current)

    @rule(by_s=st.sampled_from([-86_400.0, 3.0, 86_400.0]))
    def has_another_time(self, by_s: float) -> None:
        self.now += by_s

    @rule()
    def is_swept(self) -> None:
        swap = self.state.swap
        spare = {self.current, self.state.pinned, *([swap.version, swap.previous] if swap else [])}
        self.disk &= spare

    @invariant()
    def what_serves_is_on_the_disk(self) -> None:
        assert self.current in self.disk

    @invariant()
    def no_blocked_version_is_worked_on(self) -> None:
        """Somebody's hand aside: he may have chosen a blocked one, and that is left."""
        move = self.next_move()
        version = getattr(move, "version", "")
        if not isinstance(move, Settle | Watch) and not (isinstance(move, Flip) and self.current == version):
            assert version not in self.state.blocked

    @invariant()
    def at_rest_no_blocked_version_serves_but_one_that_was_put_there_by_hand(self) -> None:
        if self.next_move() == Rest() and self.current not in self.hands:
            assert self.current not in self.state.blocked

    @invariant()
    def what_was_given_up_stays_blocked_until_somebody_unblocks_it(self) -> None:
        given_up = {c.version for c in self.state.history if c.what == "refused"}
        given_up |= {c.previous for c in self.state.history if c.what == "rolled_back" and c.previous}
        assert given_up <= self.state.blocked.keys() | self.permitted

    @invariant()
    def left_alone_it_comes_to_rest(self) -> None:
        kept = (self.state, self.current, set(self.disk), self.left_s)
        for _ in range(40):
            if isinstance(move := self.next_move(), Rest | Hold):
                break
            self.make(move, "good")
        else:
            raise AssertionError(f"still at {move} with {self.state}")
        assert self.current in self.disk
        self.state, self.current, self.disk, self.left_s = kept


TestSlot = Slot.TestCase
TestSlot.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
