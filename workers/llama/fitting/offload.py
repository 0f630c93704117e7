"""Which layers lie on graphics cards. Pure: sizes and cards in, a number of layers out.

llama.cpp offloads from the end: the output first, then the last layers. What always holds: layers are offloaded only
where their weights and cells, and the buffers of a step, fit into what is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from schemas.errors import ConfigError
from workers.llama.fitting.sizes import Sizes

CARD_SHARE: Final = 0.92
"""Of a card's free memory; the rest is left to its driver and to other programs' next needs."""


class Card(Struct, frozen=True, kw_only=True):
    """A graphics card as llama.cpp names it, with its free memory. `shared`: that memory is the machine's."""

    name: str
    free: int
    shared: bool = False


class Share(Struct, frozen=True):
    """Bytes that lie on graphics cards instead of in the machine's memory."""

    weights: int = 0
    copied: int = 0
    state: int = 0


def away_of(count: int, state: int, sized: Sizes) -> Share:
    """What `count` layers, of cells of `state` bytes in all, take away from the machine's memory."""
    if not count:
        return Share()
    layers = sized.layers[max(len(sized.layers) + 1 - count, 0) :]
    items = sum(layer.cell_items for layer in sized.layers)
    share = sum(layer.cell_items for layer in layers) / items if items else 0
    return Share(
        weights=sum(layer.weights for layer in layers) + sized.output + sized.doubled,
        copied=sum(layer.copied for layer in layers) + sized.other_copied + sized.doubled,
        state=int(state * share),
    )


def layers_that_fit(sized: Sizes, state: int, compute: int, cards: Sequence[Card]) -> int:
    """The most layers (the output counts as one) whose weights and cells fit beside `compute` bytes on each card."""
    room = int(CARD_SHARE * sum(card.free for card in cards)) - compute * len(cards)
    for count in range(len(sized.layers) + 1, 0, -1):
        away = away_of(count, state, sized)
        if away.weights + away.state <= room:
            return count
    return 0


def cards_of(wished: Sequence[str], cards: Sequence[Card]) -> tuple[Card, ...]:
    """The cards that `models[].devices` names; all of them where it names nothing."""
    if not wished:
        return tuple(cards)
    known = {card.name: card for card in cards}
    for name in wished:
        if name != "cpu" and name not in known:
            have = ", ".join(["cpu", *known])
            raise ConfigError(f"models[].devices: there is no {name!r}; llama.cpp can compute on: {have}")
    return tuple(known[name] for name in wished if name != "cpu")
