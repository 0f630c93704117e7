"""`roost check`."""

from __future__ import annotations

import click

from ops.check import check as look
from ops.commands import Place, as_json, pass_place, show_json

EXIT_CONFIG = 78


@click.command()
@as_json
@pass_place
def check(place: Place, as_json: bool) -> int:
    """Check the configuration, also the settings of each connector and backend. Nothing is started.

    Exits 0 when Roost would start with it, 78 when not.

    \b
    Examples:
      roost check
      roost --config new.yaml check --json
    """
    found = look(place.config)
    if as_json:
        show_json({"ok": found.ok, "errors": found.errors, "warnings": found.warnings})
    else:
        for warning in found.warnings:
            click.echo(f"warning: {warning}", err=True)
        for error in found.errors:
            click.echo(f"roost: {error}", err=True)
        if found.ok:
            click.echo(f"{place.config}: good")
    return 0 if found.ok else EXIT_CONFIG
