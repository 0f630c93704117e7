"""`roost up` and `roost run`."""

from __future__ import annotations

import logging
import os
import sys

import click

from ops.commands import Place, pass_place
from schemas.errors import ConfigError


@click.command()
@pass_place
def up(place: Place) -> int:
    """Start everything in the foreground; Ctrl-C finishes what has begun and stops it all.

    Prints one line to standard output when every part is ready. Logs are in DATA/logs.

    \b
    Examples:
      roost up
      roost --config /etc/roost/config.yaml --data /var/lib/roost up
    """
    from ops.up import main

    return main(place.config, place.data)


@click.command()
@click.argument("part")
@pass_place
def run(place: Place, part: str) -> int:
    """Run one PART (connectors, worker …) in this process; `roost up` does this for each.

    \b
    Examples:
      roost run worker        a second worker beside a running Roost
    """
    from importlib.metadata import entry_points

    from ops.config import for_part
    from ops.logs import LOG_FORMAT

    parts = entry_points(group="roost.parts")
    if part not in parts.names:
        raise ConfigError(f"there is no part {part!r}; installed are: {', '.join(sorted(parts.names))}")
    logging.basicConfig(
        level=os.environ.get("ROOST_LOG", "INFO").upper(), format=LOG_FORMAT, stream=sys.stderr, force=True
    )
    os.environ["ROOST_DATA"] = str(place.data)
    code: int = parts[part].load()(for_part(place.config), place.data)
    return code
