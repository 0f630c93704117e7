"""`roost status`, `roost models`, `roost code`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ops.commands import Place, as_json, pass_place, show_json, size, table, wait_for, when
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from ops.status import Status


def _look(place: Place) -> Status:
    from ops.status import status

    return wait_for(status(place.config, place.current(), place.data))


@click.command()
@as_json
@pass_place
def status(place: Place, as_json: bool) -> int:
    """Show parts, models, queues, rates, addresses and where the credentials are.

    Exits 0 when every part is ready, 1 when not.

    \b
    Examples:
      roost status
      roost status --json | jq .streams.INBOX.pending
    """
    found = _look(place)
    if as_json:
        show_json(found)
    else:
        _print(found)
    return 0 if found.ready else 1


def _print(found: Status) -> None:
    if found.problem:
        click.echo(f"problem:      {found.problem}")
    click.echo(f"ready:        {'yes' if found.ready else 'no'}")
    if found.started_at:
        click.echo(f"started:      {when(found.started_at)}")
    click.echo(f"page and API: {found.http or '-'}   (access code in {found.access_code_file})")
    click.echo(f"bus:          {found.nats or '-'}   (client key in {found.client_nkey})")
    click.echo(f"logs:         {found.logs}")
    if found.supervisor:
        rows = [
            (row.name, row.state, str(row.pid or "-"), size(row.rss_bytes), str(row.restarts), row.reason)
            for row in (found.supervisor, *found.parts)
        ]
        click.echo("\n" + table(rows, ("PART", "STATE", "PID", "MEMORY", "RESTARTS", "REASON")))
    click.echo("\n" + _models(found))
    if found.streams:
        queues = [(k, str(v.messages), str(v.pending), size(v.bytes)) for k, v in found.streams.items()]
        click.echo("\n" + table(queues, ("STREAM", "MESSAGES", "PENDING", "SIZE")))
    for name, rate in found.rates.items():
        click.echo(f"\n{name.replace('_', ' ')}: {rate:g}")


def _models(found: Status) -> str:
    rows = [
        (m.name, m.type, m.state, m.version or "-", f"{m.busy}/{m.slots}", str(m.context or "-"), m.reason)
        for m in found.models
    ]
    return table(rows, ("MODEL", "TYPE", "STATE", "VERSION", "BUSY", "CONTEXT", "REASON"))


@click.command()
@as_json
@pass_place
def models(place: Place, as_json: bool) -> None:
    """List the models and what serves them.

    \b
    Examples:
      roost models
      roost models --json
    """
    found = _look(place)
    if as_json:
        show_json(found.models)
    else:
        click.echo(_models(found))


@click.command()
@as_json
@pass_place
def code(place: Place, as_json: bool) -> None:
    """Print the access code of the web page.

    \b
    Examples:
      roost code
    """
    file = place.data / "secrets" / "web-access-code"
    try:
        value = file.read_text().strip()
    except OSError:
        raise ConfigError(f"there is no access code in {file} yet; it is made when Roost is started first") from None
    if as_json:
        show_json({"code": value, "file": str(file)})
    else:
        click.echo(value)
