"""What a plan gives up when memory is short, and in which order. Pure.

What always holds: nothing that the operator named is given up, but RAM for pages, which only spares recomputation; and
nothing that need not be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from workers.llama.fitting.sizes import Sizes

CELL_PAD: Final = 256
"""llama.cpp makes cells in such lots."""


class Fixed(Protocol):
    """What the operator named; None is open."""

    @property
    def context(self) -> int | None: ...
    @property
    def cache(self) -> int | None: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def kv_type(self) -> str | None: ...
    @property
    def flash(self) -> bool | None: ...


class Draft(Struct, frozen=True, kw_only=True):
    """The part of a plan that gives way when memory is short."""

    window: int
    cells: int
    batch: int
    kv_type: str
    pages: int
    repack: bool


Step = tuple[str, Callable[[Draft], Draft]]


def steps(fixed: Fixed, sized: Sizes) -> list[Step]:
    """What to give up, the cheapest in speed first; nothing that the operator named, which is in `fixed`."""

    def window(most: int) -> Callable[[Draft], Draft]:
        def narrower(draft: Draft) -> Draft:
            least = min(draft.window, most)
            return replace(draft, window=least, cells=draft.cells if fixed.cache else min(draft.cells, padded(least)))

        return narrower

    def batch(most: int) -> Callable[[Draft], Draft]:
        return lambda draft: replace(draft, batch=min(draft.batch, most))

    fewer_cells: list[Step] = [
        ("half the cells", lambda d: replace(d, cells=max(padded(d.window), padded(d.cells // 2)))),
        ("one window of cells", lambda d: replace(d, cells=padded(d.window))),
    ]
    open_cells = fixed.cache is None
    open_batch = fixed.batch is None
    quantise = fixed.kv_type is None and sized.quantises and fixed.flash is not False
    every: list[tuple[bool, Step]] = [
        (True, ("a quarter of the pages", lambda d: replace(d, pages=d.pages // 4))),
        (open_cells, fewer_cells[0]),
        (open_batch, ("batch 256", batch(256))),
        (open_cells, fewer_cells[1]),
        (True, ("no pages", lambda d: replace(d, pages=0))),
        (quantise, ("q8_0 cells", lambda d: replace(d, kv_type="q8_0"))),
        (open_batch, ("batch 128", batch(128))),
        (fixed.context is None, ("context 4096", window(4_096))),
        (fixed.context is None, ("context 2048", window(2_048))),
        (open_batch, ("batch 64", batch(64))),
    ]
    return [step for allowed, step in every if allowed]


def fit(draft: Draft, ladder: Sequence[Step], fits: Callable[[Draft], bool]) -> tuple[Draft, list[str]]:
    """The draft with as few of `ladder` as it takes to fit, the costliest avoided first; all of them if it never does.

    Returns it with the names of what was given up.
    """

    def after(taken: Sequence[Step]) -> Draft:
        made = draft
        for _, step in taken:
            made = step(made)
        return made

    taken: list[Step] = []
    for step in ladder:
        if fits(after(taken)):
            break
        taken.append(step)
    if fits(after(taken)):
        for step in reversed(taken[:]):
            without = [other for other in taken if other is not step]
            if fits(after(without)):
                taken = without
    return after(taken), [name for name, _ in taken]


def padded(cells: int) -> int:
    """Cells as llama.cpp will make them."""
    return -(-cells // CELL_PAD) * CELL_PAD
