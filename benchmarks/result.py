"""Rows of results, and the table that shows them."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import uvloop
from msgspec import Struct


class Row(Struct, frozen=True, kw_only=True):
    """One measured number. `goal` is a bound in the row's unit; `least` says on which side of it is good."""

    benchmark: str
    what: str
    value: float
    unit: str
    goal: float | None = None
    least: bool = True

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.least else self.value <= self.goal


Run = Callable[[bool], Awaitable[list[Row]]]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the (unsorted) values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(rows: Sequence[Row]) -> str:
    """For a person: one line for each row."""
    lines = [("benchmark", "what", "measured", "goal", "")]
    for row in rows:
        goal = "" if row.goal is None else f"{'≥' if row.least else '≤'} {row.goal:g}"
        mark = {None: "", True: "ok", False: "MISSED"}[row.met]
        lines.append((row.benchmark, row.what, f"{row.value:,.2f} {row.unit}", goal, mark))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[4]]) for line in lines)


def note(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


def main(*runs: Run) -> None:
    """Command line of one or of all benchmarks. A missed goal is told and is no failure."""
    parser = argparse.ArgumentParser(description="Measure, and compare with the goals.")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: rough numbers")
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    options = parser.parse_args()
    rows: list[Row] = []
    for run in runs:
        rows += uvloop.run(_guarded(run, options.quick))
    if options.json:
        print(json.dumps([msgspec.to_builtins(row) | {"met": row.met} for row in rows], indent=2))
    else:
        print(table(rows))


async def _guarded(run: Run, quick: bool) -> list[Row]:
    """A benchmark that cannot run here says why and leaves the others alone."""
    try:
        return await run(quick)
    except Unavailable as error:
        note(f"{run.__module__}: skipped: {error}")
        return []
    except Exception as error:  # noqa: BLE001  the rows of the others are worth having
        note(f"{run.__module__}: FAILED")
        traceback.print_exception(error)  # with what is inside of a group, which its own text does not tell
        return []


class Unavailable(Exception):
    """Something this benchmark needs is not here; the text says what."""
