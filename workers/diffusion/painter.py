"""The painter: the one thread on which everything of torch runs, and which can be made to stop between two steps.

It knows no pipeline. A work is a function that calls `pause` after each of its steps; the lane lets it go on with
`step`, and gets what it brought. Being one thread, it has one pool of computing threads, which inherit its priority
because it starts them; it inherits that of whoever makes it. What always holds: a work is on its way or done, never
both; whoever waits here waits for a limited time at once; after `close` no thread is left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

CLOSE_S = 60.0
"""What is being computed is left at the next part of the model, which takes seconds at most."""
HANDOVER_S = 600.0
"""A painter whose next step nobody asks for in this time gives up its work."""
TICK_S = 5.0


class GivenUp(BaseException):
    """The work is to end without a result. Not an `Exception`: no library may take it for a fault and go on."""


class Work(Generic[T]):
    """What is done in steps; `result` or `error` once it is `done`."""

    def __init__(self, run: Callable[[Callable[[], None]], T]) -> None:
        self._run = run
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = False
        self.steps = 0

    def perform(self, pause: Callable[[], None]) -> None:
        try:
            self.result = self._run(pause)
        except GivenUp:
            self.error = GivenUp()  # without its frames, which hold what was computed
        except BaseException as error:  # noqa: BLE001  told to whoever waits for it
            self.error = error


class Painter:
    """Made, used and closed on one thread at a time: the lane's."""

    def __init__(self, name: str = "painter") -> None:
        self._changed = threading.Condition()
        self._work: Work[Any] | None = None
        self._may_go = False
        self._stop = False
        self._closing = False
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    # -- for the lane ------------------------------------------------------------------------------------------

    def call(self, function: Callable[[], T]) -> T:
        """Run it on the painter's thread to its end; raises what it raises."""
        work = Work(lambda _pause: function())
        self.begin(work)
        while not self.step(TICK_S):
            pass
        if work.error is not None:
            raise work.error
        return work.result  # type: ignore[return-value]

    def begin(self, work: Work[Any]) -> None:
        """Take on a work; it starts with the first `step`."""
        with self._changed:
            if self._work is not None or self._closing:
                raise RuntimeError("the painter has a work already, or is closed")
            self._work, self._stop, self._may_go = work, False, False

    def step(self, wait_s: float) -> bool:
        """Let the work go on to its next pause or its end, and wait for that for so long; whether it has ended.

        It goes on also when nobody waits any more; the next `step` waits again.
        """
        with self._changed:
            work = self._work
            if work is None:
                return True
            if not self._thread.is_alive():
                work.error, work.done = RuntimeError("the painter's thread has ended"), True
            seen = work.steps
            if not work.done:
                self._may_go = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: work.done or work.steps > seen, wait_s)
            if work.done:
                self._work = None
            return work.done

    def give_up(self) -> None:
        """End the work that is on its way at its next pause or `look`."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread; what is on its way is given up."""
        with self._changed:
            self._closing = self._stop = True
            self._changed.notify_all()
        self._thread.join(CLOSE_S)

    # -- on the painter's thread -------------------------------------------------------------------------------

    def look(self, *_: Any, **__: Any) -> None:
        """Raises `GivenUp` when the work is not wanted any more; cheap, for the middle of a step."""
        if self._stop and threading.current_thread() is self._thread:
            raise GivenUp

    def _live(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._may_go, TICK_S)
                if self._closing:
                    self._end()
                    return
                work = self._work
                if work is None or work.done or not self._may_go:
                    continue
            work.perform(self._pause)
            with self._changed:
                work.done, self._may_go = True, False
                self._changed.notify_all()

    def _end(self) -> None:
        if self._work is not None and not self._work.done:
            self._work.error, self._work.done = GivenUp(), True
        self._changed.notify_all()

    def _pause(self) -> None:
        """After a step: wait until the next one is wanted."""
        with self._changed:
            assert self._work is not None
            self._work.steps += 1
            self._may_go = False
            self._changed.notify_all()
            wanted = self._changed.wait_for(lambda: self._may_go or self._stop, HANDOVER_S)
            if self._stop or not wanted:
                raise GivenUp
