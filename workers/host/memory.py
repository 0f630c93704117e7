"""Which models share the memory. Pure: what there is, what is loaded and what is wanted in; a `Plan` out.

What always holds: only idle models are unloaded, the least valuable first and no more than needed; what is then loaded
stays within every limit; the same values give the same plan. What cannot be is refused with its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from workers import Demand


class Budget(Struct, frozen=True, kw_only=True):
    """What there is, in bytes."""

    whole: int
    """What all loaded models together may take: `worker.memory`."""
    free: int
    """What the machine really has now; pages of files, which it can drop, count as free."""
    address: int | None = None
    """Address space left to this process, of which mapped files take their part too (RLIMIT_AS)."""
    private: int | None = None
    """Private memory left to this process (RLIMIT_DATA)."""
    overcommit: bool = False
    """Mapped weights may exceed what is free: they are read from the file again and again."""


class Held(Struct, frozen=True, kw_only=True):
    """One model that has memory, or has been promised some."""

    name: str
    demand: Demand
    busy: bool = False
    """It answers, or is being loaded or freed: it is waited for, never unloaded."""
    pending: bool = False
    """Its memory is promised and not taken yet."""
    waiting: int = 0
    """Requests that wait for it."""
    idle_s: float = 0.0
    load_s: float = 0.0

    @property
    def value(self) -> float:
        """What unloading it would cost: how soon it will be wanted again x seconds to load / bytes."""
        return (1 + self.waiting) / (1 + self.idle_s) * max(self.load_s, 0.001) / max(self.demand.total, 1)


class Plan(Struct, frozen=True, kw_only=True):
    """What to do so that the wanted model fits: nothing, or `unload` these, or first `wait_for` those, or give up."""

    unload: tuple[Held, ...] = ()
    wait_for: tuple[Held, ...] = ()
    refuse: str = ""
    never: bool = False
    """It would not fit if it were alone."""
    paged: int = 0
    """Bytes of its weights that will not stay in memory (`overcommit`)."""


class _Limit(Struct, frozen=True):
    """One limit: need + what the others keep <= capacity + what those bring back that go."""

    capacity: int
    need: int
    keeps: Callable[[Held], int]
    brings: Callable[[Held], int]

    def lacks(self, kept: Iterable[Held], gone: Iterable[Held]) -> int:
        return self.need + sum(map(self.keeps, kept)) - self.capacity - sum(map(self.brings, gone))


def plan(budget: Budget, held: Sequence[Held], wish: Demand | None, *, evict: bool = True) -> Plan:
    """How `wish` can be loaded; None asks only that what is held be within the budget.

    Without `evict` nothing is unloaded or waited for.
    """
    limits = _limits(budget, wish)

    def fits(gone: Sequence[Held]) -> bool:
        away = set(map(id, gone))
        kept = [h for h in held if id(h) not in away]
        return all(limit.lacks(kept, gone) <= 0 for limit in limits)

    if fits(()):
        return Plan(paged=_paged(budget, held, (), wish))
    never = wish is not None and (_size(budget, wish) > budget.whole)
    if not never and evict:
        idle = _least(sorted((h for h in held if not h.busy), key=_order), (), fits)
        if idle is not None:
            return Plan(unload=tuple(idle), paged=_paged(budget, held, idle, wish))
        unloaded = tuple(h for h in held if not h.busy)
        busy = _least(sorted((h for h in held if h.busy), key=_order), unloaded, fits)
        if busy is not None:
            return Plan(wait_for=tuple(busy), refuse=figures(budget, held, wish or Demand()))
    return Plan(refuse=figures(budget, held, wish or Demand()), never=never)


Fits = Callable[[Sequence[Held]], bool]


def _least(order: Sequence[Held], before: tuple[Held, ...], fits: Fits) -> list[Held] | None:
    """The least valuable of `order` that must go beside `before`; None when all of them would not be enough."""
    chosen: list[Held] = []
    for candidate in order:
        if fits((*before, *chosen)):
            break
        chosen.append(candidate)
    if not fits((*before, *chosen)):
        return None
    for candidate in reversed(chosen[:-1]):  # a large one may have made smaller ones unnecessary
        rest = [h for h in chosen if h is not candidate]
        if fits((*before, *rest)):
            chosen = rest
    return chosen


def _order(held: Held) -> tuple[float, str]:
    return held.value, held.name


def _size(budget: Budget, demand: Demand) -> int:
    return demand.least if budget.overcommit else demand.total


def _limits(budget: Budget, wish: Demand | None) -> list[_Limit]:
    """The budget, and for something new also what machine and process really have left."""
    want = wish or Demand()

    def size(held: Held) -> int:
        return _size(budget, held.demand)

    limits = [_Limit(budget.whole, _size(budget, want), size, lambda h: 0)]
    if wish is None:
        return limits

    def pages(held: Held) -> int:
        """Mapped weights lie among what counts as free, and should stay there."""
        return size(held) if held.pending else 0 if budget.overcommit else held.demand.mapped

    def least(held: Held) -> int:
        return 0 if held.pending else held.demand.least

    limits.append(_Limit(budget.free, _size(budget, want), pages, least))
    if budget.address is not None:
        promised: Callable[[Held], int] = lambda h: h.demand.total if h.pending else 0  # noqa: E731
        taken: Callable[[Held], int] = lambda h: 0 if h.pending else h.demand.total  # noqa: E731
        limits.append(_Limit(budget.address, want.total, promised, taken))
    if budget.private is not None:
        limits.append(_Limit(budget.private, want.least, lambda h: h.demand.least if h.pending else 0, least))
    return limits


def _paged(budget: Budget, held: Sequence[Held], gone: Sequence[Held], wish: Demand | None) -> int:
    """How far the wanted weights exceed what is free, where that is allowed."""
    if wish is None or not budget.overcommit:
        return 0
    away = set(map(id, gone))
    others = sum(h.demand.total if h.pending else h.demand.mapped for h in held if id(h) not in away)
    room = budget.free + sum(h.demand.least for h in gone if not h.pending) - others
    return max(0, min(wish.mapped, wish.total - room))


def figures(budget: Budget, held: Sequence[Held], wish: Demand) -> str:
    """`needs 4.1 GB: weights 3.9, context 0.2; budget 3.0 GB, of which 1.2 are in use by X (busy)`."""
    unit, name = (1e9, "GB") if max(wish.total, budget.whole) >= 1e9 else (1e6, "MB")

    def show(count: int) -> str:
        return f"{count / unit:.1f}"

    parts = [("weights", wish.weights), ("context", wish.state), ("compute", wish.compute)]
    text = f"needs {show(wish.total)} {name}: " + ", ".join(f"{what} {show(n)}" for what, n in parts if n)
    text += f"; budget {show(budget.whole)} {name}"
    if held:
        users = ", ".join(f"{h.name}{' (busy)' if h.busy else ''}" for h in sorted(held, key=_order))
        text += f", of which {show(sum(_size(budget, h.demand) for h in held))} are in use by {users}"
    if budget.free < budget.whole:
        text += f"; {show(max(0, budget.free))} {name} of memory are free now"
    for what, left in (("address space (ulimit -v)", budget.address), ("private memory (ulimit -d)", budget.private)):
        if left is not None:
            text += f"; {show(max(0, left))} {name} of {what} are left"
    if wish.mapped and not budget.overcommit and wish.least <= budget.whole:
        text += f"; {show(wish.mapped)} {name} of it could be read from the file over and over (worker.overcommit)"
    return text
