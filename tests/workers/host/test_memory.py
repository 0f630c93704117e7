"""The planner of the models' memory: what it may never do, tried on made-up machines, and what it says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from workers import Demand
from workers.host.memory import Budget, Held, Plan, plan

GB = 1_000_000_000


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    weights = draw(st.integers(0, 40))
    return Demand(
        weights=weights,
        mapped=draw(st.integers(0, weights)),
        state=draw(st.integers(0, 10)),
        compute=draw(st.integers(0, 5)),
    )


@st.composite
def machines(draw: st.DrawFn) -> tuple[Budget, list[Held], Demand]:
    limit = st.none() | st.integers(0, 120)
    budget = Budget(
        whole=draw(st.integers(0, 100)),
        free=draw(st.integers(0, 120)),
        address=draw(limit),
        private=draw(limit),
        overcommit=draw(st.booleans()),
    )
    held = []
    for number in range(draw(st.integers(0, 6))):
        busy = draw(st.booleans())
        held.append(
            Held(
                name=f"m{number}",
                demand=draw(demands()),
                busy=busy,
                pending=busy and draw(st.booleans()),
                waiting=draw(st.integers(0, 3)),
                idle_s=draw(st.floats(0, 1000)),
                load_s=draw(st.floats(0, 100)),
            )
        )
    return budget, held, draw(demands())


def size(budget: Budget, demand: Demand) -> int:
    return demand.least if budget.overcommit else demand.total


def fits(budget: Budget, held: list[Held], gone: tuple[Held, ...], wish: Demand) -> bool:
    """The limits again, written down independently of the planner."""
    kept = [h for h in held if h not in gone]
    pending = [h for h in kept if h.pending]
    here = [h for h in gone if not h.pending]
    freed = sum(h.demand.least for h in here)
    if sum(size(budget, h.demand) for h in kept) + size(budget, wish) > budget.whole:
        return False
    free = budget.free + freed - sum(size(budget, h.demand) for h in pending)
    if not budget.overcommit:  # the pages of the others' files are to stay where they are
        free -= sum(h.demand.mapped for h in kept if not h.pending)
    if size(budget, wish) > free:
        return False
    if budget.address is not None:
        left = budget.address + sum(h.demand.total for h in here) - sum(h.demand.total for h in pending)
        if wish.total > left:
            return False
    return budget.private is None or wish.least <= budget.private + freed - sum(h.demand.least for h in pending)


@given(machines())
@settings(max_examples=200)
def test_only_idle_models_are_unloaded(machine: tuple[Budget, list[Held], Demand]) -> None:
    budget, held, wish = machine
    found = plan(budget, held, wish)
    assert not any(h.busy for h in found.unload)
    assert all(h.busy for h in found.wait_for)


@given(machines())
@settings(max_examples=200)
def test_what_is_granted_is_within_every_limit(machine: tuple[Budget, list[Held], Demand]) -> None:
    budget, held, wish = machine
    found = plan(budget, held, wish)
    if not found.refuse:
        assert fits(budget, held, found.unload, wish)
    if found.wait_for:
        idle = tuple(h for h in held if not h.busy)
        assert fits(budget, held, (*idle, *found.wait_for), wish)


@given(machines())
@settings(max_examples=200)
def test_nothing_is_unloaded_or_refused_without_need(machine: tuple[Budget, list[Held], Demand]) -> None:
    budget, held, wish = machine
    found = plan(budget, held, wish)
    for one in found.unload:
        assert not fits(budget, held, tuple(h for h in found.unload if h is not one), wish)
    if found.refuse:
        assert not fits(budget, held, tuple(h for h in held if not h.busy), wish)
    if found.refuse and not found.wait_for:
        assert not fits(budget, held, tuple(held), wish)
    if found.never:
        assert size(budget, wish) > budget.whole


@given(machines(), st.randoms())
@settings(max_examples=150)
def test_the_same_values_give_the_same_plan_in_whatever_order(
    machine: tuple[Budget, list[Held], Demand], random: object
) -> None:
    budget, held, wish = machine
    first = plan(budget, held, wish)
    shuffled = list(held)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan(budget, shuffled, wish) == first


@given(machines())
def test_without_evict_nobody_is_touched(machine: tuple[Budget, list[Held], Demand]) -> None:
    budget, held, wish = machine
    found = plan(budget, held, wish, evict=False)
    assert not found.unload
    assert not found.wait_for
    assert bool(found.refuse) != fits(budget, held, (), wish)


@given(machines())
def test_a_smaller_budget_unloads_until_it_is_kept(machine: tuple[Budget, list[Held], Demand]) -> None:
    budget, held, _ = machine
    found = plan(budget, held, None)
    kept = [h for h in held if h not in found.unload]
    if not found.refuse:
        assert sum(size(budget, h.demand) for h in kept) <= budget.whole
    if found.refuse and not found.wait_for:
        assert not held or sum(size(budget, h.demand) for h in held) > budget.whole


def test_the_one_that_is_missed_least_goes_first() -> None:
    budget = Budget(whole=10, free=10)
    model = Held(name="x", demand=Demand(weights=5), idle_s=60, load_s=1)
    wish = Demand(weights=5)

    def gone(a: Held, b: Held) -> list[str]:
        return [h.name for h in plan(budget, [a, b], wish).unload]

    assert gone(replace(model, name="old", idle_s=600), replace(model, name="new")) == ["old"]
    assert gone(replace(model, name="slow", load_s=60), replace(model, name="quick")) == ["quick"]
    assert gone(replace(model, name="asked", waiting=2), replace(model, name="unasked")) == ["unasked"]
    assert gone(replace(model, name="small"), replace(model, name="large", demand=Demand(weights=6))) == ["large"]


def test_a_large_victim_spares_the_small_ones() -> None:
    held = [
        Held(name="small", demand=Demand(weights=2), idle_s=1000),
        Held(name="large", demand=Demand(weights=8), idle_s=10, load_s=5),
    ]
    assert [h.name for h in plan(Budget(whole=10, free=10), held, Demand(weights=8)).unload] == ["large"]


def test_a_refusal_has_the_figures() -> None:
    busy = Held(name="talk", demand=Demand(weights=1_200_000_000), busy=True)
    wish = Demand(weights=3_900_000_000, state=200_000_000)
    found = plan(Budget(whole=3 * GB, free=8 * GB), [busy], wish)
    assert found == Plan(
        never=True,
        refuse="needs 4.1 GB: weights 3.9, context 0.2; budget 3.0 GB, of which 1.2 are in use by talk (busy)",
    )
    small = plan(Budget(whole=300_000_000, free=8 * GB), (), Demand(weights=350_000_000, compute=20_000_000))
    assert small.refuse == "needs 370.0 MB: weights 350.0, compute 20.0; budget 300.0 MB"


def test_the_scarcest_thing_is_named() -> None:
    wish = Demand(weights=2 * GB)
    assert "; 1.0 GB of memory are free now" in plan(Budget(whole=4 * GB, free=GB), (), wish).refuse
    little = Budget(whole=4 * GB, free=8 * GB, address=GB, private=3 * GB)
    assert "1.0 GB of address space (ulimit -v) are left" in plan(little, (), wish).refuse


def test_mapped_weights_run_from_the_page_cache_only_where_that_is_allowed() -> None:
    wish = Demand(weights=8 * GB, mapped=8 * GB, state=GB)
    refused = plan(Budget(whole=10 * GB, free=4 * GB), (), wish)
    assert not refused.never
    assert "8.0 GB of it could be read from the file over and over (worker.overcommit)" in refused.refuse
    allowed = plan(Budget(whole=10 * GB, free=4 * GB, overcommit=True), (), wish)
    assert not allowed.refuse
    assert allowed.paged == 5 * GB
    fitting = plan(Budget(whole=10 * GB, free=20 * GB, overcommit=True), (), wish)
    assert fitting.paged == 0
    thrifty = plan(Budget(whole=2 * GB, free=20 * GB, overcommit=True), (), wish)
    assert not thrifty.refuse
    assert thrifty.paged == 0, "a small budget does not make the page cache small"
