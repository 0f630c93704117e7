"""Sessions in one process, with faults on demand, for tests: what `bus.contract.Sessions` promises, without a server.

`MemoryStore` is the server, a `MemorySessions` one process's connection. Each step is atomic, as the scripts of
`bus.scripts` are; nothing is sealed and nothing ages.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from bus.contract import Begun
from bus.memory import Faults
from schemas.errors import Retryable
from schemas.message import RequestState, State
from schemas.session import Entry, SessionInfo

if TYPE_CHECKING:
    from bus import contract

T = TypeVar("T")
TITLE_CHARS = 80
DONE = ("answered", "dead")
Slot = tuple[str, str]
"""Channel and conversation."""


class _Row(Struct):
    """One request."""

    state: State | None = None
    document: RequestState | None = None
    worker: str = ""
    cancelled: bool = False
    mark: str = ""


class MemoryStore:
    """What the processes of a test share."""

    def __init__(self, faults: Faults | None = None, now: Callable[[], float] = time.time) -> None:
        self.faults = faults or Faults(rng=random.Random(0))  # noqa: S311  not a secret
        self.now = now
        self.rows: dict[tuple[Slot, str], _Row] = {}
        self.histories: dict[Slot, list[Entry]] = {}
        self.owners: dict[Slot, str] = {}
        self.forgotten: dict[Slot, float] = {}
        self.at: dict[tuple[str, str], str] = {}
        self.open: dict[Slot, dict[tuple[str, str], float]] = {}
        self.lists: dict[Slot, dict[str, SessionInfo]] = {}
        self.sent: set[str] = set()


class MemorySessions:
    """One process's connection; the methods are described in `bus.sessions.Sessions`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._cut = False

    def cut(self) -> None:
        """The process is killed: nothing that it does from now on has an effect."""
        self._cut = True

    async def close(self) -> None:
        self.cut()

    async def _step(self, step: Callable[[], T]) -> T:
        """Do one atomic step, some time after it was asked for and before its answer is here."""
        faults = self._store.faults
        await asyncio.sleep(faults.delay_s())
        if self._cut:
            raise Retryable("sessions: the server does not answer: cut", code="sessions_unavailable")
        fails = faults.happens(faults.fail_sessions)
        if fails and faults.rng.random() < 0.5:
            raise Retryable("sessions: the server does not answer: injected", code="sessions_unavailable")
        value = step()
        await asyncio.sleep(faults.delay_s())
        if fails:
            raise Retryable("sessions: the server does not answer: injected", code="sessions_unavailable")
        return value

    def _row(self, channel: str, conversation: str, request: str) -> _Row:
        return self._store.rows.setdefault(((channel, conversation), request), _Row())

    def _at(self, channel: str, request: str) -> str:
        return self._store.at.get((channel, request), request)

    def _point(self, state: RequestState) -> None:
        if state.conversation != state.id:
            self._store.at[state.channel, state.id] = state.conversation

    # -- Sessions ---------------------------------------------------------------------------------------------

    async def accept(self, state: RequestState) -> None:
        def step() -> None:
            self._point(state)
            row = self._row(state.channel, state.conversation, state.id)
            if row.state is None:
                row.state, row.document = "queued", state
            people = self._store.open.setdefault((state.channel, state.sender), {})
            people[state.conversation, state.id] = state.updated_at

        await self._step(step)

    async def find(self, channel: str, request: str) -> RequestState | None:
        return await self._step(lambda: self._read(channel, self._at(channel, request), request))

    def _read(self, channel: str, conversation: str, request: str) -> RequestState | None:
        row = self._store.rows.get(((channel, conversation), request))
        if row is None or row.state is None or row.document is None:
            return None
        reply = row.document.reply if row.state in DONE else None
        return replace(row.document, state=row.state, reply=reply)

    async def cancel(self, channel: str, request: str) -> None:
        def step() -> None:
            self._row(channel, self._at(channel, request), request).cancelled = True

        await self._step(step)

    async def begin(self, state: RequestState, worker: str, *, stateful: bool, force: bool = False) -> Begun:
        def step() -> Begun:
            slot, row = (state.channel, state.conversation), self._row(state.channel, state.conversation, state.id)
            if row.state in DONE:
                return Begun(reply=row.document.reply if row.document is not None else None)
            owner = row.worker or (self._store.owners.get(slot, "") if stateful else "")
            if owner and owner != worker and not force:
                return Begun(owner=owner)
            row.state, row.worker, row.document = "running", worker, row.document or state
            if not stateful:
                return Begun(cancelled=row.cancelled)
            self._store.owners[slot] = worker
            return Begun(cancelled=row.cancelled, history=tuple(self._store.histories.get(slot, ())))

        return await self._step(step)

    async def reopen(self, state: RequestState, mark: str) -> None:
        def step() -> None:
            row = self._row(state.channel, state.conversation, state.id)
            if row.mark != mark:
                row.state, row.mark = "queued", mark

        await self._step(step)

    async def finish(self, state: RequestState, entries: Sequence[Entry], *, drop: int = 0) -> RequestState:
        def step() -> RequestState:
            slot, row = (state.channel, state.conversation), self._row(state.channel, state.conversation, state.id)
            if row.state in DONE and row.document is not None:
                return row.document
            row.state, row.document = state.state, state
            forgotten = self._store.forgotten.get(slot)
            if entries and not (forgotten is not None and entries[0].at <= forgotten):
                history = self._store.histories.setdefault(slot, [])
                history.extend(entries)
                del history[:drop]
            return state

        return await self._step(step)

    async def settle(self, state: RequestState, *, title: str = "") -> None:
        def step() -> None:
            self._point(state)
            people = (state.channel, state.sender)
            self._store.open.get(people, {}).pop((state.conversation, state.id), None)
            if (state.channel, state.conversation) in self._store.histories:
                lines = self._store.lists.setdefault(people, {})
                kept = lines[state.conversation].title if state.conversation in lines else title[:TITLE_CHARS]
                lines[state.conversation] = SessionInfo(
                    conversation=state.conversation, title=kept, updated_at=state.updated_at
                )

        await self._step(step)

    async def open_requests(self, channel: str, sender: str) -> list[RequestState]:
        def step() -> list[RequestState]:
            people = self._store.open.get((channel, sender), {})
            states = [self._read(channel, *key) for key in sorted(people, key=lambda key: people[key])]
            return [state for state in states if state is not None and state.state not in DONE]

        return await self._step(step)

    async def history(self, channel: str, conversation: str) -> tuple[Entry, ...]:
        return await self._step(lambda: tuple(self._store.histories.get((channel, conversation), ())))

    async def conversations(self, channel: str, sender: str) -> list[SessionInfo]:
        def step() -> list[SessionInfo]:
            lines = self._store.lists.get((channel, sender), {}).values()
            return sorted(lines, key=lambda line: line.updated_at, reverse=True)

        return await self._step(step)

    async def forget(self, channel: str, conversation: str, sender: str) -> None:
        def step() -> None:
            self._store.forgotten[channel, conversation] = self._store.now()
            self._store.histories.pop((channel, conversation), None)
            self._store.lists.get((channel, sender), {}).pop(conversation, None)

        await self._step(step)

    async def truncate(self, channel: str, conversation: str, request: str) -> None:
        def step() -> None:
            history = self._store.histories.get((channel, conversation), [])
            for i, entry in enumerate(history):
                if entry.request == request:
                    del history[i:]
                    if not history:
                        del self._store.histories[channel, conversation]
                    return

        await self._step(step)

    async def was_sent(self, request: str) -> bool:
        return await self._step(lambda: request in self._store.sent)

    async def mark_sent(self, marks: Sequence[str]) -> None:
        await self._step(lambda: self._store.sent.update(marks))


if TYPE_CHECKING:
    _kept: type[contract.Sessions] = MemorySessions
