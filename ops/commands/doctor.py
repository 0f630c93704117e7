"""`roost doctor`."""

from __future__ import annotations

from collections.abc import Sequence

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
    from ops import fitness, inference, updates
    from ops.machine import look
    from ops.state import read_state
    from schemas.machine import ModelDemand

    here, built = inference.told(inference.hardware), inference.told(inference.build)
    rows = examine.hardware(look(place.data)) + fitness.machine(here)
    rows += examine.software() + fitness.llama(built, here)
    demands: Sequence[ModelDemand] | inference.Silent = ()
    try:
        config = place.current()
        rows += examine.ports(config, read_state(place.data)) + examine.models(config, hashes=hashes)
        rows += updates.rows(config)
        demands = inference.told(lambda: inference.demands(config, place.data))
        rows += fitness.plans(demands)
    except ConfigError as error:
        rows.append(examine.Row("configuration", "fail", str(place.config), error.message))
    failed = any(row.verdict == "fail" for row in rows)
    if as_json:
        plain = {"machine": here, "llama_cpp": built, "plans": demands}
        known = {k: v for k, v in plain.items() if not isinstance(v, inference.Silent)}
        threads = {} if isinstance(here, inference.Silent) else {"threads": here.cpu.threads}
        show_json({"ok": not failed, "checks": rows, **known, **threads})
        return int(failed)
    width = max(len(row.name) for row in rows)
    for row in rows:
        click.echo(f"{MARKS[row.verdict]}  {row.name.ljust(width)}  {row.found}")
        if row.advice:
            click.echo(f"      {' ' * width}  → {row.advice}")
    return int(failed)
