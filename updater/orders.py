"""Carries out what the operator and `ops` ask of this site's updater, on `roost.updater.<site>`.

What always holds: every order is answered, at once but for `check`, which waits for the source within a limit; what
takes longer is seen in the table UPDATES, which knows of an order before its answer is sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from bus.contract import Bus, Message
from schemas.errors import ConfigError, Rejected, Retryable, RoostError
from schemas.update import UpdateOrder, UpdateStatus, UpdateTold
from updater import asked
from updater.check import Check
from updater.plan import Seen
from updater.report import Report
from updater.state import SlotState
from updater.way import Way

log = logging.getLogger("roost.updater")

CHECK_S = 120.0
"""A source that has not answered by then goes on being asked; the row tells how it went."""
OPEN_S = 5.0
"""At the start: until the slot is ours and its state is known."""
SETTLE_S = 1.0
"""After a check or an order: until the row says what it led to."""


class Orders:
    """All orders to one updater. `ways` are the slots that are configured now."""

    def __init__(self, bus: Bus, ways: Mapping[str, Way], check: Check, report: Report) -> None:
        self._bus = bus
        self._ways = ways
        self._check = check
        self._report = report

    async def answer(self, message: Message) -> None:
        """Carry one order out, and say how it went."""
        try:
            order = msgspec.json.decode(message.data, type=UpdateOrder)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            told = UpdateTold(ok=False, text=f"an order that cannot be read: {error}")
        else:
            told = await self.obey(order)
        if message.reply:
            await self._bus.send(message.reply, msgspec.json.encode(told))

    async def obey(self, order: UpdateOrder) -> UpdateTold:
        """How it went; never raises for what is wrong with the order or the slot."""
        if order.do not in ("status", "history"):  # whoever only looks may look every second
            log.info("%s asks to %s %s %s", order.by, order.do, order.name, order.version)
        try:
            if order.do == "status":
                return UpdateTold(rows=self._rows(self._named(order.name)))
            if order.do == "check":
                return await self._asked(order)
            return await self._one(order)
        except RoostError as error:
            return UpdateTold(ok=False, text=error.message)
        except Exception:
            log.exception("the order to %s %s", order.do, order.name)
            return UpdateTold(ok=False, text="an error inside the updater; its log has more")

    def _named(self, name: str) -> list[Way]:
        """The slot of that name, or the only one that a model of that name uses; without a name, all."""
        if not name:
            return list(self._ways.values())
        found = [self._ways[name]] if name in self._ways else [w for w in self._ways.values() if name in w.slot.models]
        if not found:
            there = ", ".join(self._ways) or "none; `path: models/NAME/current` of a model makes one"
            raise ConfigError(f"{name!r} has no slots here; there are: {there}")
        if len(found) > 1:
            names = ", ".join(way.slot.name for way in found)
            raise Rejected(f"the model {name!r} uses several slots, name one of them: {names}", code="several")
        return found

    def _rows(self, ways: list[Way]) -> tuple[UpdateStatus, ...]:
        return tuple(way.status() for way in ways)

    async def _asked(self, order: UpdateOrder) -> UpdateTold:
        ways = self._named(order.name)
        try:
            async with asyncio.timeout(CHECK_S):
                await self._check.now()
        except TimeoutError:
            return UpdateTold(ok=False, text="the source has not answered yet", rows=self._rows(ways))
        for way in ways:
            await _opened(way)
            way.poke()
            await way.planned(SETTLE_S)
            way.show_now()
        await self._report.write()
        rows = self._rows(ways)
        wrong = self._check.reason or "; ".join(way.trouble for way in ways if way.trouble)
        return UpdateTold(ok=not wrong, text=wrong or "\n".join(_line(row) for row in rows), rows=rows)

    async def _one(self, order: UpdateOrder) -> UpdateTold:
        if not order.name and order.do != "history":
            raise Rejected("say which model", code="no_name")
        way = self._named(order.name)[0] if self._ways else None
        if way is None:
            raise ConfigError("no model has slots here; `path: models/NAME/current` makes them")
        await _opened(way)
        if order.do != "history":
            await way.change(_change(order))
            way.poke()
            await way.planned(SETTLE_S)
            if order.do == "apply":
                way.show(way.status().phase)  # without the reason, which was that it waited for this
            else:
                way.show_now()
            await self._report.write()
        state, seen = way.state, await way.see()
        return UpdateTold(
            text=_said(order, way),
            rows=(way.status(),),
            history=state.history,
            blocked=state.blocked,
            versions=tuple(sorted(seen.installed)),
        )


async def _opened(way: Way) -> None:
    try:
        async with asyncio.timeout(OPEN_S):
            await way.open.wait()
    except TimeoutError:
        raise Retryable(way.trouble or f"{way.slot.folder} is not looked at yet; try again", code="closed") from None


def _change(order: UpdateOrder) -> Callable[[SlotState, Seen], SlotState]:
    """What the order makes of a state."""
    match order.do:
        case "apply":
            return lambda state, seen: asked.applied(state, order.by)
        case "rollback":
            return lambda state, seen: asked.rolled_back(state, seen, order.version, order.reason, order.by)
        case "pin":
            return lambda state, seen: asked.pinned(state, seen, order.version, order.by)
        case "unpin":
            return lambda state, seen: asked.unpinned(state, seen.now, order.by)
        case "unblock":
            return lambda state, seen: asked.unblocked(state, order.version)
        case _:
            raise Rejected(f"{order.do} is no order for one model", code="order")


def _said(order: UpdateOrder, way: Way) -> str:
    name, state = way.slot.name, way.state
    match order.do:
        case "rollback" if state.swap is not None and state.swap.back:
            return f"{name}: back from {state.swap.previous} to {state.swap.version}"
        case "rollback":
            return f"{name}: {state.history[-1].version} is blocked; {way.current or 'nothing'} goes on serving"
        case "pin":
            return f"{name}: pinned to {state.pinned}"
        case "unpin":
            return f"{name}: follows the source again"
        case "unblock":
            return f"{name}: {order.version} is permitted again"
        case "apply":
            return f"{name}: {state.swap.version if state.swap else ''} is taken into use"
        case _:
            return ""


def _line(row: UpdateStatus) -> str:
    what = f"{row.phase.replace('_', ' ')} {row.version}".strip()
    if row.phase == "idle":
        newer = f", the newest is {row.newest}" if row.newest not in ("", row.current) else ""
        what = f"{row.current or 'nothing of the source'} serves{newer}"
    return f"{row.name}: {what}{f' ({row.reason})' if row.reason else ''}"
