"""`roost doctor`."""

from __future__ import annotations

import click

from ops.commands import Place, as_json, pass_place, show_json
from schemas.errors import ConfigError

MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@click.command()
@click.option("--hash/--no-hash", "hashes", default=True, show_default=True, help="Read model files for their SHA-256.")
@as_json
@pass_place
def doctor(place: Place, hashes: bool, as_json: bool) -> int:
    """Look at this machine and installation, and say what to do about what is wrong.

    Exits 1 when something prevents Roost from running; warnings do not.

    \b
    Examples:
      roost doctor
      roost doctor --no-hash --json
    """
    from ops import doctor as examine
    from ops.machine import look
    from ops.state import read_state

    rows = examine.hardware(look(place.data)) + examine.software()
    try:
        config = place.current()
        rows += examine.ports(config, read_state(place.data)) + examine.models(config, hashes=hashes)
    except ConfigError as error:
        rows.append(examine.Row("configuration", "fail", str(place.config), error.message))
    failed = any(row.verdict == "fail" for row in rows)
    if as_json:
        show_json({"ok": not failed, "checks": rows})
        return int(failed)
    width = max(len(row.name) for row in rows)
    for row in rows:
        click.echo(f"{MARKS[row.verdict]}  {row.name.ljust(width)}  {row.found}")
        if row.advice:
            click.echo(f"      {' ' * width}  → {row.advice}")
    return int(failed)
