"""`roost release`: the group; each command is imported when it is used, because signing needs much."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = {
    "keys": "updater.publish.keys_commands:keys",
    "create": "updater.publish.release_commands:create",
    "list": "updater.publish.release_commands:list_",
    "check": "updater.publish.release_commands:check",
    "push": "updater.publish.push_command:push",
    "refresh": "updater.publish.release_commands:refresh",
    "remove": "updater.publish.release_commands:remove",
    "goldens": "updater.publish.goldens_command:goldens",
}


class Late(click.Group):
    """A group that knows its commands by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module, _, name = COMMANDS.get(cmd_name, "").partition(":")
        command = getattr(import_module(module), name) if module else None
        return command if isinstance(command, click.Command) else None


@click.group(cls=Late)
def release() -> None:
    """Publish versions of models: signed, in pieces of which updaters fetch only what they lack.

    \b
    Examples:
      roost release keys create --to keys
      roost release create NAME 1.0 model.gguf --repository site --keys keys --goldens goldens.yaml
      roost release push --repository site /srv/www/models
      roost release refresh --repository site --keys keys
    """
