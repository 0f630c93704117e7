"""The commands of `roost`, one file per group, and the few things that all of them need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec
from msgspec import Struct

from ops.config import load, running, running_file
from ops.state import read_state
from schemas.config import Config

if TYPE_CHECKING:
    from bus.client import Bus

T = TypeVar("T")


class Place(Struct, frozen=True):
    """Where this command looks: the configuration file and the data folder, both absolute."""

    config: Path
    data: Path

    def current(self) -> Config:
        """What the running Roost works with, or else the file; raises `ConfigError`."""
        if read_state(self.data) is not None and running_file(self.data).exists():
            return running(running_file(self.data))
        return load(self.config)

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """A connection for one command; raises `ConfigError` when Roost is not running."""
        from bus.client import Bus
        from bus.endpoints import resolve

        config = self.current()
        bus = await Bus.connect(resolve(config, self.data), config, name="roost-cli", wait=False)
        try:
            yield bus
        finally:
            await bus.close()


pass_place = click.make_pass_decorator(Place)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def wait_for(work: Coroutine[object, object, T]) -> T:
    """Run one asynchronous command to its end."""
    return asyncio.run(work)


def show_json(value: object, *, indent: int | None = 2) -> None:
    """Print `value` (Structs and plain data) as JSON."""
    click.echo(json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=indent))


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """Rows in columns, for a person."""
    lines: list[tuple[str, ...]] = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def size(count: float) -> str:
    """Bytes for a person: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def when(at: float) -> str:
    """Unix seconds → local date and time."""
    from datetime import datetime

    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else "-"
