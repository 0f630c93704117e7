"""How a model is loaded: window, cells, KV type, batch, repacking, layers on graphics cards, threads.

Pure: a header, settings and what the machine has in; a `Plan` with its figures out. What always holds: what the
operator named is taken as it is; the rest is chosen to fit the limit at the least cost in speed; where nothing fits,
the plan is the smallest there is, and whoever asked decides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from schemas.errors import ConfigError
from schemas.gguf import Header
from workers import Demand
from workers.llama.fitting.concede import Draft, fit, padded, steps
from workers.llama.fitting.offload import Card, Share, away_of, cards_of, layers_that_fit
from workers.llama.fitting.sizes import CELL_BOOKS, Sizes, sizes

WINDOW_MAX: Final = 8_192
"""Window where the operator names none: long chats fit, and its memory stays modest on small machines."""
WINDOW_UNKNOWN: Final = 2_048
"""Window of a model file that does not say what it was trained for."""
BATCH: Final = 512
CELLS_PER_SLOT: Final = 1_024
CELL_BYTES_MAX: Final = 1_073_741_824
"""Memory for cells where the operator names no number: a window is always granted, more only below this."""
IDLE_SEQUENCES_PER_SLOT: Final = 3
SEQUENCES_MAX: Final = 128
"""llama.cpp knows 256; each costs a row of logits."""
WANTS_LEAST: Final = 16
"""As in `native`: tokens of a batch behind which may be sampled, where there are few sequences."""
NO_FLASH: Final = frozenset({"grok"})
"""Architectures for which llama.cpp turns flash attention off."""
FLASH: Final = {None: "flash attention where possible", True: "flash attention on", False: "flash attention off"}
DEFAULT_INSTRUCTIONS: Final = ("avx2", "avx512", "neon", "dotprod")
"""Assumed where llama.cpp was not asked: all that can be repacked counts as memory of its own."""
OPEN: Final = ("context", "cache", "threads", "batch", "kv_type", "repack", "flash", "gpu_layers", "mmap")


class Site(Struct, frozen=True, kw_only=True):
    """What a plan needs to know of the machine and of what llama.cpp was built with."""

    threads: int
    instructions: tuple[str, ...] = DEFAULT_INSTRUCTIONS
    repacks: bool = True
    cards: tuple[Card, ...] = ()


class Wishes(Struct, frozen=True, kw_only=True):
    """What the operator, or else a measurement on this machine, named; None is open."""

    context: int | None = None
    cache: int | None = None
    threads: int | None = None
    batch: int | None = None
    kv_type: str | None = None
    repack: bool | None = None
    flash: bool | None = None
    gpu_layers: int | None = None
    mmap: bool | None = None
    devices: tuple[str, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """`window`: tokens of one conversation; `cells`: of all; `cell_bytes`: memory of one cell."""

    window: int
    trained: int
    cells: int
    sequences: int
    threads: int
    cell_bytes: int
    tuned: bool = False
    """Whether `threads` comes from a measurement."""
    batch: int = BATCH
    kv_type: str = "f16"
    repack: bool = True
    mmap: bool = True
    flash: bool | None = None
    """None lets llama.cpp decide; it takes it wherever it can."""
    gpu_layers: int = 0
    devices: tuple[str, ...] = ()
    """Cards to use, by llama.cpp's names; empty: none."""
    pages: int = 0
    """RAM for idle conversations outside the cells."""
    demand: Demand = Demand()

    @property
    def remedy_window(self) -> str:
        """What the operator can do about a prompt that does not fit."""
        if self.trained > self.window:
            return f"raise models[].context (this model was trained for {self.trained})"
        return f"choose a model with a longer context than {self.window} in models[].path"

    @property
    def remedy_memory(self) -> str:
        """What the operator can do when there is no memory for the context."""
        size = self.cells * self.cell_bytes // 1_000_000
        return (
            f"its context of {self.cells} tokens needs {size} MB: "
            "lower models[].context or models[].cache, or set kv_type: q8_0"
        )


def wishes_of(settings: object, measured: object = None) -> Wishes:
    """The settings' part that a plan looks at; what the operator left open is taken as `measured`, where it was."""

    def named(name: str) -> Any:
        value = getattr(settings, name, None)
        return getattr(measured, name, None) if value is None else value

    return Wishes(devices=tuple(getattr(settings, "devices", ())), **{name: named(name) for name in OPEN})


def plan(
    header: Header,
    settings: object,
    slots: int,
    *,
    site: Site | None = None,
    limit: int | None = None,
    measured: object = None,
    pages: int = 0,
    beside: int = 0,
    adapters: Sequence[Header] = (),
) -> Plan:
    """Choose how to load the model within `limit` bytes (None: without one).

    `measured`: what `roost tune` found; `pages`: RAM that idle conversations may take outside the cells; `beside`: what
    else must fit into the limit; `adapters`: those that are loaded with it. Raises `ConfigError` for a device that is
    not there, and for settings that llama.cpp cannot combine.
    """
    site = site or Site(threads=len(os.sched_getaffinity(0)))
    wishes, fixed = wishes_of(settings, measured), wishes_of(settings)
    if wishes.flash is False and wishes.kv_type == "q8_0":
        if fixed.kv_type == "q8_0" and fixed.flash is False:
            raise ConfigError("kv_type: q8_0 needs flash attention; leave out `flash: false`, or set kv_type: f16")
        wishes = replace(wishes, flash=fixed.flash, kv_type=fixed.kv_type)
    cards = cards_of(wishes.devices, site.cards)
    trained = header.number("context_length")
    window = wishes.context or min(trained or WINDOW_UNKNOWN, WINDOW_MAX)
    sized = {repack: sizes(header, site.instructions, repack=repack and site.repacks) for repack in (True, False)}
    kv_type = wishes.kv_type or "f16"
    fitting = CELL_BYTES_MAX // max(sized[True].cell_bytes(kv_type), 1)
    repack = site.repacks if wishes.repack is None else wishes.repack
    draft = Draft(
        window=window,
        cells=padded(max(window, wishes.cache or min(slots * CELLS_PER_SLOT, fitting))),
        batch=wishes.batch or BATCH,
        kv_type=kv_type,
        pages=pages,
        repack=repack,
    )
    sequences = min(slots * (1 + IDLE_SEQUENCES_PER_SLOT) + 2, max(SEQUENCES_MAX, slots + 2))
    flash = False if header.text("general.architecture") in NO_FLASH else wishes.flash

    def weighed(chosen: Draft) -> Plan:
        made = Plan(
            window=chosen.window,
            trained=trained,
            cells=chosen.cells,
            sequences=sequences,
            threads=wishes.threads or site.threads,
            tuned=fixed.threads is None and wishes.threads is not None,
            cell_bytes=sized[chosen.repack].cell_bytes(chosen.kv_type),
            batch=chosen.batch,
            kv_type=chosen.kv_type,
            repack=chosen.repack,
            mmap=wishes.mmap is not False,
            flash=flash,
            pages=chosen.pages,
        )
        made = offloaded(made, sized[chosen.repack], cards, wishes.gpu_layers)
        return weigh(made, sized[chosen.repack], cards, sum(adapter.weight_bytes for adapter in adapters))

    if limit is None:
        return weighed(draft)
    room = limit - beside
    chosen, given_up = fit(draft, steps(fixed, sized[draft.repack]), lambda d: weighed(d).demand.total <= room)
    made = weighed(chosen)
    if made.demand.total > room and made.demand.mapped < made.demand.weights and made.mmap and fixed.repack is None:
        made = weighed(replace(chosen, repack=False))
    if made.demand.total > room:
        given_up = ["the least there is"]
    if given_up:
        what = f"{made.demand.what}; for {limit / 1e6:.0f} MB: {', '.join(given_up)}"
        made = replace(made, demand=replace(made.demand, what=what))
    return made


def weigh(made: Plan, sized: Sizes, cards: Sequence[Card], adapters: int = 0) -> Plan:
    """The plan with the bytes that it takes of the machine's memory; `adapters`: those of LoRA, never mapped."""
    away = (
        away_of(made.gpu_layers, made.cells * made.cell_bytes, sized)
        if cards and not all(card.shared for card in cards)
        else Share()
    )
    weights = sized.weights + sized.doubled - away.weights
    copied = max(sized.copied + sized.doubled - away.copied, 0)
    mapped = max(weights - copied, 0) if made.mmap else 0
    state = made.cells * (made.cell_bytes + CELL_BOOKS) - away.state + made.sequences * sized.recurrent + made.pages
    wants = min(max(made.sequences, WANTS_LEAST), made.batch)
    compute = sized.books + sized.compute_bytes(
        batch=made.batch,
        cells=made.cells,
        sequences=made.sequences,
        flash=made.flash is not False,
        wants=wants,
    )
    share = f"{100 * copied / weights:.0f} %" if weights else "none"
    parts = [
        f"context {made.window}, {made.cells} cells of {made.kv_type}, batch {made.batch}",
        f"{share} of the weights repacked" if copied else f"weights {'mapped' if made.mmap else 'read'} from the file",
        FLASH[made.flash],
        f"{made.threads} thread{'s' if made.threads != 1 else ''}{' as tuned' if made.tuned else ''}",
    ]
    if made.gpu_layers:
        parts.append(f"{made.gpu_layers} of {len(sized.layers) + 1} layers on {', '.join(made.devices)}")
    demand = Demand(weights=weights + adapters, mapped=mapped, state=state, compute=compute, what=", ".join(parts))
    return replace(made, demand=demand)


def offloaded(made: Plan, sized: Sizes, cards: Sequence[Card], wished: int | None) -> Plan:
    """As many layers on the cards as the operator said (-1: all), or as fit into their free memory."""
    every = len(sized.layers) + 1
    if not cards or wished == 0:
        return made
    compute = sized.compute_bytes(
        batch=made.batch, cells=made.cells, sequences=made.sequences, flash=made.flash is not False
    )
    if wished is None:
        count = layers_that_fit(sized, made.cells * made.cell_bytes, compute, cards)
    else:
        count = every if wished < 0 else min(wished, every)
    return replace(made, gpu_layers=count, devices=tuple(card.name for card in cards)) if count else made
