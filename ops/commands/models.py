"""`roost models`: what serves which model; reload and unload by hand."""

from __future__ import annotations

import click
import msgspec

from bus import subjects
from ops.commands import Place, as_json, pass_place, show_json, wait_for
from ops.commands.status import look, model_table
from schemas.errors import ConfigError, RoostError
from schemas.model import ModelOrder, ModelTold, WorkerStatus

ORDER_S = 1_800.0
"""Loading a large model from a slow disk takes minutes."""


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the models and what serves them; load one again, or free its memory.

    Changes of `models` in the configuration need no command: a running Roost takes them up by itself.

    \b
    Examples:
      roost models
      roost models list --json
      roost models reload text-generation
      roost models unload text-generation
    """
    if context.invoked_subcommand is None:
        place = context.find_object(Place)
        assert place is not None
        _show(place, as_json)


@models.command("list")
@as_json
@pass_place
def list_(place: Place, as_json: bool) -> None:
    """Show the models with state, version, use, memory and pace."""
    _show(place, as_json)


@models.command()
@click.argument("name", required=False, default="")
@as_json
@pass_place
def reload(place: Place, name: str, as_json: bool) -> int:
    """Load the model NAME again from the file behind its `path`; without NAME, all of them in turn.

    Nothing is interrupted: what runs ends on the old one, and a file that cannot be loaded leaves the old one serving.
    """
    return _order(place, ModelOrder(do="reload", model=name), as_json)


@models.command()
@click.argument("name")
@as_json
@pass_place
def unload(place: Place, name: str, as_json: bool) -> int:
    """Free the memory of the model NAME when its last answer is finished; the next request loads it again."""
    return _order(place, ModelOrder(do="unload", model=name), as_json)


def _show(place: Place, as_json: bool) -> None:
    found = look(place)
    if as_json:
        show_json(found.models)
    else:
        click.echo(model_table(found.models))


def _order(place: Place, order: ModelOrder, as_json: bool) -> int:
    told = wait_for(_send(place, order))
    if as_json:
        show_json(told)
    for row in () if as_json else told:
        click.echo(f"{row.model} {row.text} ({row.worker})" if row.ok else f"{row.model}: {row.text} ({row.worker})")
    return 0 if all(row.ok for row in told) else 1


async def _send(place: Place, order: ModelOrder) -> list[ModelTold]:
    """Ask the workers one after the other, so that not all of them are without the model at once."""
    known = {model.name for model in place.current().models}
    told: list[ModelTold] = []
    async with place.bus() as bus:
        rows = await bus.table("WORKERS").entries()
        workers = [msgspec.json.decode(row, type=WorkerStatus) for row in rows.values()]
        known |= {name for worker in workers for name in worker.models}
        if order.model and order.model not in known:
            raise ConfigError(f"there is no model {order.model!r}; there are: {', '.join(sorted(known))}")
        asked = [w for w in workers if not order.model or order.model in w.models]
        if not asked:
            raise ConfigError("no worker has it at the moment; `roost status` shows the parts")
        for worker in asked:
            try:
                answer = await bus.request(subjects.models(worker.id), msgspec.json.encode(order), ORDER_S)
            except RoostError as error:
                told.append(ModelTold(model=order.model or "all", worker=worker.id, ok=False, text=error.message))
                continue
            told += msgspec.json.decode(answer, type=list[ModelTold])
    return told
