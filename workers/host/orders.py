"""Orders to one model that must be carried out one after the other, between the steps of `served`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from schemas.errors import Disconnected, RoostError, Untrusted
from schemas.model import ModelOrder, ModelTold

CODES = frozenset({"no_memory", "bad_model"})


class Orders:
    """First come, first served; whoever gave an order waits for how it went."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[ModelOrder, asyncio.Future[ModelTold]]] = deque()
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def give(self, order: ModelOrder, wake: Callable[[], object]) -> ModelTold:
        """Have it carried out; raises `RoostError` when it did not succeed."""
        if self._closed:
            raise Disconnected("the worker is stopping")
        done: asyncio.Future[ModelTold] = asyncio.get_running_loop().create_future()
        self._waiting.append((order, done))
        wake()
        return await done

    async def obey(self, carry_out: Callable[[ModelOrder], Awaitable[ModelTold]]) -> None:
        """Carry out the oldest."""
        order, done = self._waiting.popleft()
        try:
            told = await carry_out(order)
        except RoostError as error:
            if not done.done():
                done.set_exception(error)
        else:
            if not done.done():
                done.set_result(told)
        finally:
            if not done.done():
                done.cancel()

    def close(self) -> None:
        """Nobody carries out any more."""
        self._closed = True
        for _, done in self._waiting:
            done.cancel()


def refused(model: str, worker: str, error: RoostError) -> ModelTold:
    """An order that was not carried out, as it is told."""
    code = "bad_model" if isinstance(error, Untrusted) else error.code if error.code in CODES else "unavailable"
    return ModelTold(model=model, worker=worker, text=error.message, ok=False, code=code)
