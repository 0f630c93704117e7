"""`roost turns` and `roost events`: what the bus has recorded."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click
import msgspec

from ops.commands import Place, as_json, pass_place, wait_for, when

if TYPE_CHECKING:
    from bus.contract import Message

SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class Since(click.ParamType[float]):
    """A moment: Unix seconds, an ISO date, or how long ago (`90s`, `2h`, `7d`)."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        if span := SPAN.fullmatch(text):
            return time.time() - float(span[1]) * SECONDS[span[2]]
        try:
            return float(text)
        except ValueError:
            pass
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            self.fail(f"{text!r}: expected Unix seconds, a date such as 2026-01-31T08:00, or a span such as 2h", param)


@click.group()
def turns() -> None:
    """Finished exchanges: the log that replay and tuning read.

    \b
    Examples:
      roost turns export --since 24h > turns.jsonl
      roost turns export --since 2026-01-31 --format jsonl
    """


@turns.command()
@click.option("--since", type=Since(), default=None, help="Unix seconds, ISO date, or a span such as 2h or 7d.")
@click.option("--format", "form", type=click.Choice(["jsonl"]), default="jsonl", show_default=True)
@pass_place
def export(place: Place, since: float | None, form: str) -> None:
    """Print turns, oldest first, one JSON object a line."""

    async def work() -> None:
        from bus import subjects
        from bus.streams import TURNS

        async with place.bus() as bus:
            async for message in bus.read(TURNS, subjects.TURNS_ALL, since):
                click.echo(message.data.replace(b"\n", b" "))

    wait_for(work())


@click.group()
def events() -> None:
    """What happens: models, parts, alerts.

    \b
    Examples:
      roost events tail
      roost events tail --since 1h --json
    """


@events.command()
@click.option("--since", type=Since(), default=None, help="Begin with the events since then.")
@click.option("--no-follow", is_flag=True, help="Stop at the end instead of waiting for more.")
@as_json
@pass_place
def tail(place: Place, since: float | None, no_follow: bool, as_json: bool) -> None:
    """Print events as they happen, until Ctrl-C."""

    def show(subject: str, data: bytes) -> None:
        try:
            body = msgspec.json.decode(data, type=dict[str, object])
        except msgspec.MsgspecError:
            body = {"text": data.decode(errors="replace")}
        if as_json:
            click.echo(msgspec.json.encode({"subject": subject, **body}))
        else:
            at = body.pop("at", 0.0)
            told = "  ".join(f"{key}={value}" for key, value in body.items() if key != "v")
            click.echo(f"{when(at if isinstance(at, float) else 0.0)}  {subject.removeprefix('roost.event.')}  {told}")

    async def work() -> None:
        from bus import subjects
        from bus.streams import EVENTS

        async def seen(message: Message) -> None:
            show(message.subject, message.data)

        async with place.bus() as bus:
            if not no_follow:
                await bus.subscribe(subjects.EVENTS_ALL, seen)
            if since is not None or no_follow:
                async for stored in bus.read(EVENTS, subjects.EVENTS_ALL, since):
                    show(stored.subject, stored.data)
            if not no_follow:
                await asyncio.Event().wait()

    try:
        wait_for(work())
    except KeyboardInterrupt:
        return
