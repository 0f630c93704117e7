"""`roost status`, `roost code`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ops.commands import Place, as_json, pass_place, show_json, size, table, wait_for, when
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops.status import ModelRow, Status
    from schemas.power import PowerStatus
    from schemas.update import UpdateStatus


def look(place: Place) -> Status:
    from ops.status import status

    return wait_for(status(place.config, place.current(), place.data))


def model_table(models: Sequence[ModelRow]) -> str:
    """The models for a person, with the reasons of those that are not ready, or not as configured."""
    rows = [
        (
            m.name,
            m.type,
            m.state,
            m.version or "-",
            f"{m.busy}/{m.slots}",
            str(m.context or "-"),
            size(m.memory_bytes) if m.memory_bytes else "-",
            f"{m.tokens_per_s:g}" if m.tokens_per_s else "-",
            m.reason,
        )
        for m in models
    ]
    return table(rows, ("MODEL", "TYPE", "STATE", "VERSION", "BUSY", "CONTEXT", "MEMORY", "TOKENS/S", "REASON"))


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
    found = look(place)
    if as_json:
        show_json(found)
    else:
        _print(found)
    return 0 if found.ready else 1


def power_line(machine: PowerStatus, several: bool) -> str:
    """`power:        23.4 W (rapl), level full (balanced), 1.90 tokens/J`."""
    facts = [f"{machine.watts:.1f} W ({machine.source})"] if machine.watts is not None else []
    facts.append(f"level {machine.level} ({machine.profile}{', on battery' if machine.on_battery else ''})")
    if machine.tokens_per_joule is not None:
        facts.append(f"{machine.tokens_per_joule:.2f} tokens/J")
    if machine.reason:
        facts.append(machine.reason)
    return f"power:        {f'{machine.host}: ' if several else ''}{', '.join(facts)}"


def update_table(rows: Sequence[UpdateStatus]) -> str:
    """New versions and how far they are; the machine where there are several."""
    several = len({row.site for row in rows}) > 1
    lines = [
        (
            f"{row.name} ({row.site})" if several else row.name,
            row.current or "-",
            row.phase.replace("_", " "),
            row.version or "-",
            f"{100 * min(row.done, row.size) // row.size} % of {size(row.size)}" if row.size else "-",
            when(row.until),
            row.reason,
        )
        for row in rows
    ]
    return table(lines, ("UPDATES", "SERVES", "PHASE", "VERSION", "HERE", "UNTIL", "REASON"))


def _print(found: Status) -> None:
    if found.problem:
        click.echo(f"problem:      {found.problem}")
    click.echo(f"ready:        {'yes' if found.ready else 'no'}")
    if found.started_at:
        click.echo(f"started:      {when(found.started_at)}")
    click.echo(f"page and API: {found.http or '-'}   (access code in {found.access_code_file})")
    click.echo(f"bus:          {found.nats or '-'}   (client key in {found.client_nkey})")
    click.echo(f"logs:         {found.logs}")
    for machine in found.power:
        click.echo(power_line(machine, len(found.power) > 1))
    if found.supervisor:
        rows = [
            (row.name, row.state, str(row.pid or "-"), size(row.rss_bytes), str(row.restarts), row.reason)
            for row in (found.supervisor, *found.parts)
        ]
        click.echo("\n" + table(rows, ("PART", "STATE", "PID", "MEMORY", "RESTARTS", "REASON")))
    click.echo("\n" + model_table(found.models))
    if found.updates:
        click.echo("\n" + update_table(found.updates))
    if found.streams:
        queues = [(k, str(v.messages), str(v.pending), size(v.bytes)) for k, v in found.streams.items()]
        click.echo("\n" + table(queues, ("STREAM", "MESSAGES", "PENDING", "SIZE")))
    for name, rate in found.rates.items():
        click.echo(f"\n{name.replace('_', ' ')}: {rate:g}")


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
