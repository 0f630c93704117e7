"""The command `roost`: wires the command groups, each in a file of its own, imported when it is used.

Exit codes: 0 done; 1 it did not succeed (`status`: not every part is ready); 2 wrong usage; 78 the configuration
must be mended first. Errors are one sentence on standard error that says what to do.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import click

from schemas.errors import ConfigError, RoostError

EXIT_CONFIG = 78
COMMANDS = {
    "up": "ops.commands.up:up",
    "run": "ops.commands.up:run",
    "check": "ops.commands.check:check",
    "doctor": "ops.commands.doctor:doctor",
    "tune": "ops.commands.tune:tune",
    "status": "ops.commands.status:status",
    "models": "ops.commands.models:models",
    "update": "ops.commands.update:update",
    "code": "ops.commands.status:code",
    "dead": "ops.commands.dead:dead",
    "keys": "ops.commands.keys:keys",
    "chat": "ops.commands.chat:chat",
    "turns": "ops.commands.logs:turns",
    "events": "ops.commands.logs:events",
}
"""Every command of this package and where it is; the order is that of `roost --help`."""
GROUP = "roost.commands"
"""Entry points of commands that other packages bring along, such as `release`."""


class Lazy(click.Group):
    """A group whose commands are imported only when they are asked for: `roost up` must start fast and small."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(point.name for point in entry_points(group=GROUP) if point.name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name].partition(":")
            command = getattr(import_module(module), name)
        else:
            command = next((point.load() for point in entry_points(group=GROUP, name=cmd_name)), None)
        return command if isinstance(command, click.Command) else None


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    envvar="ROOST_CONFIG",
    default="config.yaml",
    type=click.Path(path_type=Path),
    help="The configuration file. Also ROOST_CONFIG.  [default: ./config.yaml]",
)
@click.option(
    "--data",
    envvar="ROOST_DATA",
    default="data",
    type=click.Path(path_type=Path),
    help="The data folder. Also ROOST_DATA.  [default: ./data]",
)
@click.version_option(package_name="roost", prog_name="roost")
@click.pass_context
def roost(ctx: click.Context, config: Path, data: Path) -> None:
    """Roost, a local-first AI switchboard.

    \b
    Examples:
      roost up                        start everything, in the foreground
      roost chat "What is a roost?"   ask one question
      roost status --json             what runs, for scripts
      roost keys create laptop        a key for the HTTP API

    \b
    Exit codes: 0 done, 1 not successful, 2 wrong usage, 78 the configuration must be mended.
    """
    from ops.commands import Place

    ctx.obj = Place(config.absolute(), data.absolute())


def main() -> None:
    """Entry point of the script `roost` and of `python -m ops.cli`."""
    try:
        code = roost.main(prog_name="roost", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except ConfigError as error:
        print(f"roost: {error.message}", file=sys.stderr)
        sys.exit(EXIT_CONFIG)
    except RoostError as error:
        print(f"roost: {error.message}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
