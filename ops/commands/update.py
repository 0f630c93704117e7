"""`roost update`: new versions of the models, by asking this machine's updater."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from bus import subjects
from bus.site import site
from ops.commands import Place, as_json, pass_place, show_json, table, wait_for, when
from ops.commands.following import Progress, settled
from schemas.errors import ConfigError, Retryable, RoostError
from schemas.update import UpdateOrder, UpdateStatus, UpdateTold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bus.client import Bus

ANSWER_S = 150.0
"""An updater answers a check when the source has, which has a time-out of its own; everything else at once."""

name_argument = click.argument("name")
wait_option = click.option("--wait", is_flag=True, help="Show the progress until it serves or has failed.")


@click.group()
def update() -> None:
    """Take new versions of models into use, go back to old ones, and see what happened.

    NAME is the folder of the slots: of `path: models/NAME/current` in the configuration.

    \b
    Examples:
      roost update check --wait
      roost update status
      roost update rollback text-generation --reason "answers in French"
      roost update pin text-generation 1.4.0
      roost update history text-generation
    """


@update.command()
@click.argument("name", required=False, default="")
@wait_option
@as_json
@pass_place
def check(place: Place, name: str, wait: bool, as_json: bool) -> int:
    """Ask the source for something newer now, of the model NAME or of all, and begin to take it into use.

    With --wait it returns when the new version serves. It is then compared with the one before for `rollout.watch_s`.

    \b
    Examples:
      roost update check
      roost update check text-generation --wait
    """
    return _order(place, UpdateOrder(do="check", name=name), as_json, wait=wait)


@update.command()
@as_json
@pass_place
def status(place: Place, as_json: bool) -> int:
    """Show version, newest version, progress and pin of every model that has slots.

    \b
    Examples:
      roost update status
      roost update status --json | jq '.rows[].phase'
    """
    told = wait_for(_ask(place, UpdateOrder(do="status")))
    if as_json:
        show_json(told)
    else:
        click.echo(_rows(told.rows))
    return 0 if told.ok else 1


@update.command()
@name_argument
@wait_option
@as_json
@pass_place
def apply(place: Place, name: str, wait: bool, as_json: bool) -> int:
    """Take the version of NAME that is on the disk and waits into use; needed where `rollout.auto` is false.

    \b
    Examples:
      roost update apply text-generation --wait
    """
    return _order(place, UpdateOrder(do="apply", name=name), as_json, wait=wait)


@update.command()
@name_argument
@click.option("--to", "version", default="", metavar="VERSION", help="By default the version before.")
@click.option("--reason", default="", help="For the history; why.")
@as_json
@pass_place
def rollback(place: Place, name: str, version: str, reason: str, as_json: bool) -> int:
    """Let an earlier version of NAME serve again. The version that it leaves is blocked until `unblock`.

    \b
    Examples:
      roost update rollback text-generation
      roost update rollback text-generation --to 1.3.0 --reason "answers in French"
    """
    order = UpdateOrder(do="rollback", name=name, version=version, reason=reason)
    return _order(place, order, as_json, wait=True)


@update.command()
@name_argument
@click.argument("version", required=False, default="")
@wait_option
@as_json
@pass_place
def pin(place: Place, name: str, version: str, wait: bool, as_json: bool) -> int:
    """Keep NAME at VERSION, or at the one that serves; nothing newer is taken until `unpin`.

    \b
    Examples:
      roost update pin text-generation
      roost update pin text-generation 1.3.0 --wait
    """
    return _order(place, UpdateOrder(do="pin", name=name, version=version), as_json, wait=wait)


@update.command()
@name_argument
@as_json
@pass_place
def unpin(place: Place, name: str, as_json: bool) -> int:
    """Let NAME follow its source again.

    \b
    Examples:
      roost update unpin text-generation
    """
    return _order(place, UpdateOrder(do="unpin", name=name), as_json)


@update.command()
@name_argument
@click.argument("version")
@as_json
@pass_place
def unblock(place: Place, name: str, version: str, as_json: bool) -> int:
    """Permit VERSION of NAME again, which was refused or rolled back.

    \b
    Examples:
      roost update unblock text-generation 1.4.0
    """
    return _order(place, UpdateOrder(do="unblock", name=name, version=version), as_json)


@update.command()
@name_argument
@as_json
@pass_place
def history(place: Place, name: str, as_json: bool) -> int:
    """Show what happened to NAME, the newest last, with what is blocked and what lies on the disk.

    \b
    Examples:
      roost update history text-generation
      roost update history text-generation --json | jq '.history[-1].seconds'
    """
    told = wait_for(_ask(place, UpdateOrder(do="history", name=name)))
    if as_json:
        show_json(told)
        return 0 if told.ok else 1
    if not told.ok:
        raise RoostError(told.text)
    rows = [
        (
            when(change.at),
            change.what.replace("_", " "),
            change.version,
            change.previous,
            change.by,
            ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in change.seconds.items()),
            change.reason,
        )
        for change in told.history
    ]
    click.echo(table(rows, ("WHEN", "WHAT", "VERSION", "BEFORE", "BY", "TIMES", "REASON")))
    for version, reason in told.blocked.items():
        click.echo(f"blocked: {version} ({reason})")
    click.echo(f"on the disk: {', '.join(told.versions) or '-'}")
    return 0


# -- asking -----------------------------------------------------------------------------------------------------


def _order(place: Place, order: UpdateOrder, as_json: bool, *, wait: bool = False) -> int:
    told = wait_for(_carried_out(place, order, wait=wait, quiet=as_json))
    if as_json:
        show_json(told)
    elif told.ok:
        click.echo(told.text)
    elif told.text:
        click.echo(f"roost: {told.text}", err=True)
    return 0 if told.ok else 1


async def _ask(place: Place, order: UpdateOrder) -> UpdateTold:
    async with place.bus() as bus:
        return await _asked(bus, place, order)


async def _carried_out(place: Place, order: UpdateOrder, *, wait: bool, quiet: bool) -> UpdateTold:
    """What the updater answers; with `wait`, what became of it."""
    async with place.bus() as bus:
        told = await _asked(bus, place, order)
        if not told.ok or not wait:
            return told
        shown = Progress(quiet=quiet)
        try:
            return await settled(bus, place, told, shown)
        finally:
            shown.end()


async def _asked(bus: Bus, place: Place, order: UpdateOrder) -> UpdateTold:
    """Raises `ConfigError` where no updater is configured, `Retryable` where it does not answer."""
    here = site(place.data)
    try:
        answer = await bus.request(subjects.updater(here), msgspec.json.encode(order), ANSWER_S)
    except Retryable:
        if place.current().updates is None:
            raise ConfigError(
                "no updater runs: the configuration has no `updates:`; give it `source` and `root` there "
                "(docs/operate.md, Updates)"
            ) from None
        raise Retryable("the updater does not answer; `roost status` shows whether it runs", code="no_answer") from None
    return msgspec.json.decode(answer, type=UpdateTold)


def _rows(rows: Sequence[UpdateStatus]) -> str:
    lines = [
        (
            row.name,
            row.current or "-",
            row.newest or "-",
            row.phase.replace("_", " "),
            row.version or "-",
            f"{100 * row.done // row.size} %" if row.size else "-",
            row.pinned or "-",
            ", ".join(row.models),
            row.reason,
        )
        for row in rows
    ]
    return table(lines, ("NAME", "SERVES", "NEWEST", "PHASE", "VERSION", "HERE", "PINNED", "MODELS", "REASON"))
