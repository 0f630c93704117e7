"""Which pictures are computed together. Pure.

What always holds: the oldest request is always in the next round, so nobody starves; a round has pictures of one key
only (size, steps, guidance …: what one call of the pipeline has in common), and no more than its key allows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

K = TypeVar("K", bound=Hashable)


class Order(Struct, Generic[K]):
    """A request that waits, and how many of its pictures are still to be computed."""

    request: str
    key: K
    pictures: int
    done: int = 0

    @property
    def left(self) -> int:
        return self.pictures - self.done


class Share(Struct, frozen=True):
    """A request's pictures in a round: those from `first` on."""

    request: str
    first: int
    count: int


def next_round(queue: Sequence[Order[K]], room: Callable[[K], int]) -> list[Share]:
    """The pictures of the next round, oldest request first. `room`: how many of a key fit."""
    waiting = [order for order in queue if order.left > 0]
    if not waiting:
        return []
    key = waiting[0].key
    free = max(1, room(key))
    shares = []
    for order in waiting:
        if order.key == key and free:
            count = min(order.left, free)
            shares.append(Share(order.request, order.done, count))
            free -= count
    return shares


def rounds_left(pictures: int, room: int) -> int:
    """Rounds that so many pictures take at least."""
    return -(-pictures // max(1, room))
