"""`roost keys`: API keys for programs that speak HTTP."""

from __future__ import annotations

import click
from msgspec import to_builtins

from ops.commands import Place, as_json, pass_place, show_json, table, wait_for, when


@click.group()
def keys() -> None:
    """Make, list and revoke keys for the HTTP API.

    \b
    Examples:
      roost keys create laptop
      roost keys list --json
      roost keys revoke laptop
    """


@keys.command()
@click.argument("name")
@as_json
@pass_place
def create(place: Place, name: str, as_json: bool) -> None:
    """Make a key called NAME and print it, alone. It is stored hashed: nobody can show it again."""

    async def work() -> str:
        from bus.keys import create

        async with place.bus() as bus:
            return await create(bus, name)

    key = wait_for(work())
    if as_json:
        show_json({"name": name, "key": key})
    else:
        click.echo(key)


@keys.command("list")
@as_json
@pass_place
def list_(place: Place, as_json: bool) -> None:
    """Show all keys, without their secrets."""

    async def work() -> list[dict[str, object]]:
        from bus.keys import list_keys

        async with place.bus() as bus:
            rows = await list_keys(bus)
            return [{k: v for k, v in to_builtins(row).items() if k not in ("sha256", "v")} for row in rows]

    rows = wait_for(work())
    if as_json:
        show_json(rows)
    elif not rows:
        click.echo("no keys yet; make one with: roost keys create NAME")
    else:
        lines = [(str(r["name"]), str(r["id"]), when(float(str(r["created_at"])))) for r in rows]
        click.echo(table(lines, ("NAME", "ID", "CREATED")))


@keys.command()
@click.argument("name")
@as_json
@pass_place
def revoke(place: Place, name: str, as_json: bool) -> int:
    """Take the key NAME back; it stops working within two seconds."""

    async def work() -> bool:
        from bus.keys import revoke

        async with place.bus() as bus:
            return await revoke(bus, name)

    found = wait_for(work())
    if as_json:
        show_json({"name": name, "revoked": found})
    elif found:
        click.echo(f"revoked {name}")
    else:
        click.echo(f"roost: there is no key named {name!r}; see `roost keys list`", err=True)
    return 0 if found else 1
