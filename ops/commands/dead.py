"""`roost dead`: messages that could not be handled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from ops.commands import Place, as_json, pass_place, show_json, table, wait_for, when
from schemas.errors import Rejected

if TYPE_CHECKING:
    from schemas.event import DeadLetter

LIST_MAX = 100


def plain(seq: int, letter: DeadLetter) -> dict[str, object]:
    """A dead letter for a person or a script: the payload as JSON or text where it is that."""
    row = {"seq": seq, **msgspec.to_builtins(letter)}
    try:
        row["payload"] = msgspec.json.decode(letter.payload)
    except msgspec.DecodeError:
        row["payload"] = letter.payload.decode(errors="replace")
    return row


@click.group()
def dead() -> None:
    """Look at, send again or delete messages that could not be handled. SEQ is the number that `list` shows.

    \b
    Examples:
      roost dead list
      roost dead show 12
      roost dead requeue 12
      roost dead requeue --all
      roost dead purge 12
    """


async def _letters(place: Place, limit: int) -> list[tuple[int, DeadLetter]]:
    from bus.dead import dead_letters

    async with place.bus() as bus:
        return await dead_letters(bus, limit)


@dead.command("list")
@click.option("--limit", default=LIST_MAX, show_default=True, type=click.IntRange(1, 10_000), help="At most so many.")
@as_json
@pass_place
def list_(place: Place, limit: int, as_json: bool) -> None:
    """Show the dead letters with their reasons."""
    letters = wait_for(_letters(place, limit))
    if as_json:
        show_json([plain(seq, letter) for seq, letter in letters])
    elif not letters:
        click.echo("no dead letters")
    else:
        rows = [(str(s), when(d.at), d.stream, d.code, d.reason.replace("\n", " ")[:80]) for s, d in letters]
        click.echo(table(rows, ("SEQ", "AT", "STREAM", "CODE", "REASON")))


@dead.command()
@click.argument("seq", type=int)
@as_json
@pass_place
def show(place: Place, seq: int, as_json: bool) -> None:
    """Show one dead letter in full."""
    found = [plain(s, letter) for s, letter in wait_for(_letters(place, 10_000)) if s == seq]
    if not found:
        raise Rejected(f"there is no dead letter {seq}; see `roost dead list`", code="not_found")
    if as_json:
        show_json(found[0])
        return
    for key, value in found[0].items():
        click.echo(f"{key}: {value}")


@dead.command()
@click.argument("seq", type=int, required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@as_json
@pass_place
def requeue(place: Place, seq: int | None, every: bool, as_json: bool) -> None:
    """Put a dead letter back into its queue, to be tried again from the first attempt."""
    _one_or_all(seq, every)

    async def work() -> list[int]:
        from bus.dead import dead_letters, requeue

        async with place.bus() as bus:
            wanted = [s for s, _ in await dead_letters(bus, 10_000)] if seq is None else [seq]
            for number in wanted:
                await requeue(bus, number)
            return wanted

    _done("requeued", wait_for(work()), as_json)


@dead.command()
@click.argument("seq", type=int, required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@as_json
@pass_place
def purge(place: Place, seq: int | None, every: bool, as_json: bool) -> None:
    """Delete a dead letter for good."""
    _one_or_all(seq, every)

    async def work() -> list[int]:
        from bus.dead import dead_letters, purge

        async with place.bus() as bus:
            gone = [s for s, _ in await dead_letters(bus, 10_000)] if seq is None else [seq]
            await purge(bus, seq)
            return gone

    _done("purged", wait_for(work()), as_json)


def _one_or_all(seq: int | None, every: bool) -> None:
    if (seq is None) != every:
        raise click.UsageError("give the number of one dead letter, or --all")


def _done(what: str, numbers: list[int], as_json: bool) -> None:
    if as_json:
        show_json({what: numbers})
    else:
        click.echo(f"{what} {len(numbers)} message{'s' if len(numbers) != 1 else ''}")
