"""`roost release push`: sends a repository to where updaters fetch."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click
from msgspec import Struct

from bus.contract import Bus
from schemas.errors import ConfigError, RoostError
from schemas.update import ReleasePublished
from updater.disk import on_disk
from updater.publish import push as pushing
from updater.publish import terminal
from updater.publish.places import Store, place_of
from updater.publish.running import Running


class Sent(Struct, frozen=True):
    """What a push did, and whether the Roost of this machine was told."""

    to: str
    files: int
    bytes: int
    newest: dict[str, str]
    told: bool


@click.command()
@click.argument("to")
@terminal.repository_option
@click.option(
    "--connections", default=pushing.CONNECTIONS, show_default=True, type=click.IntRange(1, 64), help="At once."
)
@click.option("--all", "everything", is_flag=True, help="Ask for every piece, also of releases that TO lists already.")
@terminal.as_json
@click.pass_context
def push(context: click.Context, to: str, repository: Path, connections: int, everything: bool, as_json: bool) -> None:
    """Send a repository to TO: a folder, https://… (by PUT), or `bus`, the object store of the running Roost.

    Only what TO lacks is sent; after an interruption, run it again. A web server gets the token in
    ROOST_RELEASE_TOKEN (Authorization: Bearer). The Roost of this machine, if one runs, looks for updates at once.

    \b
    Examples:
      roost release push --repository site /srv/www/models
      roost release push --repository site https://models.example.org/roost
      roost release push --repository site bus
    """
    with terminal.bar("sending", hidden=as_json) as progress:
        sent = asyncio.run(_push(context.obj, to, repository, connections, everything, progress))
    if as_json:
        terminal.show_json(sent)
    else:
        told = "; the Roost here was told" if sent.told else ""
        click.echo(f"sent {sent.files} files ({terminal.size(sent.bytes)}) to {sent.to}{told}")


async def _push(
    running: object, to: str, repository: Path, connections: int, everything: bool, progress: terminal.Progress
) -> Sent:
    here = running if isinstance(running, Running) else None
    if to == "bus":
        if here is None:
            raise ConfigError("bus: no Roost is configured here")
        async with here.bus() as bus:
            store = Store(bus)
            done = await pushing.push(
                repository, store, connections=connections, everything=everything, progress=progress
            )
            await _tell(bus, done.newest)
        return Sent(store.where, done.files, done.bytes, done.newest, True)
    place = place_of(to)
    with on_disk(Path(to)):
        done = await pushing.push(repository, place, connections=connections, everything=everything, progress=progress)
    told = False
    if here is not None:
        try:
            async with here.bus() as bus:
                await _tell(bus, done.newest)
                told = True
        except RoostError:  # none runs here: updaters look by themselves
            pass
    return Sent(place.where, done.files, done.bytes, done.newest, told)


async def _tell(bus: Bus, newest: dict[str, str]) -> None:
    for name, version in newest.items():
        await bus.event("release", "published", body=ReleasePublished(name=name, version=version, at=time.time()))
