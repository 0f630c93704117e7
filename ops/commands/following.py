"""Follows what an updater does in the table UPDATES, until what was asked for serves, and shows it to a person."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from ops.commands import Place, size, when
from schemas.errors import RoostError
from schemas.update import UpdateStatus, UpdateTold

if TYPE_CHECKING:
    from bus.client import Bus

LOOK_S = 0.25
SILENT_S = 30.0
"""An updater rewrites its rows at least every ten seconds while it lives."""
WAITS_S = 15.0
"""A version that waits for memory or a worker for this long is not waited for."""
ENDS = ("idle", "failed", "watching")
"""It serves, or will not."""
BAR = 24


async def settled(bus: Bus, place: Place, told: UpdateTold, shown: Progress) -> UpdateTold:
    """Follow the rows of `told` in the table UPDATES until every version serves or will not; say how it went."""
    wanted = {row.name: row.version if row.phase == "rolling_back" else row.pinned for row in told.rows}
    rows = {row.name: row for row in told.rows}
    by_hand = {name for model in place.current().models if not model.rollout.auto for name in _of(told, model.name)}
    seen_at = waits_at = time.monotonic()
    while held := [row for name, row in rows.items() if not _ended(row, wanted[name])]:
        if not all(row.phase == "staged" and row.reason for row in held):
            waits_at = time.monotonic()
        elif all(row.name in by_hand for row in held) or time.monotonic() - waits_at > WAITS_S:
            break
        await asyncio.sleep(LOOK_S)
        try:
            found = {name: await bus.table("UPDATES").get(f"{name}.{row.site}") for name, row in rows.items()}
        except RoostError:
            found = {}
        if found and all(found.values()):
            seen_at = time.monotonic()
            rows = {name: msgspec.json.decode(row, type=UpdateStatus) for name, row in found.items() if row}
        elif time.monotonic() - seen_at > SILENT_S:
            return UpdateTold(ok=False, text="the updater is not heard of any more; `roost status` shows the parts")
        shown.show(list(rows.values()))
    ok = all(_well(row, wanted[name], name in by_hand) for name, row in rows.items())
    return UpdateTold(ok=ok, text="\n".join(_line(row) for row in rows.values()), rows=tuple(rows.values()))


def _of(told: UpdateTold, model: str) -> list[str]:
    return [row.name for row in told.rows if model in row.models]


def _ended(row: UpdateStatus, wanted: str) -> bool:
    """A version that is still watched when another one is asked for makes room at once."""
    return row.phase in ENDS and not (row.phase == "watching" and wanted not in ("", row.current))


def _well(row: UpdateStatus, wanted: str, by_hand: bool) -> bool:
    """After a rollback or a pin it counts what serves; else that nothing failed or waits but for the operator."""
    if wanted:
        return row.current == wanted
    return row.phase in ("idle", "watching") or (row.phase == "staged" and by_hand)


def _line(row: UpdateStatus) -> str:
    """`text-generation: fetching 1.4.0 [#####.....]  52 %, 12.0 MB/s, 3.1 MB new` and the like."""
    if row.phase in ("idle", "watching"):
        what = f"{row.current or 'nothing of the source'} serves"
        if row.until:
            what += f", and is compared with the version before it until {when(row.until)}"
        if row.newest not in ("", row.current):
            what += f"; the newest is {row.newest}"
        return f"{row.name}: {what}{f' ({row.reason})' if row.reason else ''}"
    line = f"{row.name}: {row.phase.replace('_', ' ')} {row.version}".rstrip()
    if row.phase == "fetching" and row.size:
        share = min(1.0, row.done / row.size)
        line += f" [{'#' * int(BAR * share):.<{BAR}}] {100 * share:3.0f} % of {size(row.size)}"
        line += f", {size(row.per_s)}/s" if row.per_s else ""
    if row.until:
        line += f", until {when(row.until)}"
    return f"{line}{f' ({row.reason})' if row.reason else ''}"


class Progress:
    """All rows in one line of a terminal; elsewhere a line for each change of phase."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._said: dict[str, str] = {}
        self._drawn = False

    def show(self, rows: Sequence[UpdateStatus]) -> None:
        if self._quiet:
            return
        if self._terminal:
            click.echo(f"\r\x1b[K{' | '.join(_line(row) for row in rows if row.phase not in ENDS)}", err=True, nl=False)
            self._drawn = True
            return
        for row in (row for row in rows if row.phase not in ENDS):
            if self._said.get(row.name) != (now := f"{row.phase} {row.version} {row.reason}"):
                self._said[row.name] = now
                click.echo(_line(row), err=True)

    def end(self) -> None:
        if self._drawn:
            click.echo("\r\x1b[K", err=True, nl=False)
