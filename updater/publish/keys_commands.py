"""`roost release keys`: make, show, renew and rotate a publisher's keys."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import click
from msgspec import Struct
from tuf.api.metadata import Root

from schemas.errors import ConfigError
from updater.publish import disk, terminal
from updater.publish import keys as keeping
from updater.publish.keys import ONLINE, Keys
from updater.publish.private import ID_CHARS, is_encrypted

offline_option = click.option(
    "--offline",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where root keys are, such as a USB stick. May be given several times.",
)
root_days_option = click.option(
    "--days", default=keeping.ROOT_DAYS, show_default=True, type=click.IntRange(1, 3650), help="Until the root expires."
)


@click.group()
def keys() -> None:
    """Make and keep the keys that sign releases: root keys offline, the others where you publish.

    \b
    Examples:
      roost release keys create --to keys
      roost release keys show --keys keys
      roost release keys renew --keys keys --offline /media/stick
      roost release keys rotate timestamp --keys keys --offline /media/stick
    """


@keys.command()
@click.option("--to", required=True, type=terminal.folder, help="The new folder.")
@click.option("--root-keys", default=keeping.ROOT_KEYS, show_default=True, help="How many root keys.")
@click.option("--threshold", default=keeping.THRESHOLD, show_default=True, help="How many of them a root needs.")
@root_days_option
@terminal.passphrase_option
@click.option("--online-passphrase-file", type=terminal.file, help="Its first line is to protect the online keys too.")
@terminal.as_json
def create(
    to: Path,
    root_keys: int,
    threshold: int,
    days: int,
    passphrase_file: Path | None,
    online_passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make all keys and the first root.

    With three root keys and a threshold of two, any one may be lost, and one that is stolen is worth nothing.

    \b
    Examples:
      roost release keys create --to keys
      roost release keys create --to keys --root-keys 5 --threshold 3 --passphrase-file FILE
    """
    made = keeping.create(
        to,
        passphrase=terminal.new_passphrase(passphrase_file),
        online_passphrase=_online(online_passphrase_file),
        root_keys=root_keys,
        threshold=threshold,
        days=days,
    )
    if as_json:
        terminal.show_json(_shown(made))
        return
    click.echo(
        f"The keys are in {to}.\n"
        f"  take offline      {to / 'offline'}: {root_keys} root keys, {threshold} of which sign a root. Copy them to\n"
        "                    media that you keep apart, and delete them here. Losing "
        f"{root_keys - threshold + 1} of them cannot be mended.\n"
        f"  stays             {to / 'online'}, {to / 'roots'}: what `roost release` signs with\n"
        f"  give to others    {to / 'root.json'}: those who install set `updates.root` to it; it holds no secret,\n"
        "                    and must come to them on a way that they trust\n"
        f"The root expires at {terminal.when(made.newest.signed.expires)}; renew it before: roost release keys renew"
    )


@keys.command()
@terminal.keys_option
@terminal.as_json
def show(keys_folder: Path, as_json: bool) -> None:
    """Show which keys count, until when, and which of them are here.

    \b
    Examples:
      roost release keys show --keys keys
    """
    held = Keys(keys_folder)
    shown = _shown(held)
    if as_json:
        terminal.show_json(shown)
        return
    click.echo(f"root {shown.version}, expires at {terminal.when(held.newest.signed.expires)}")
    lines = [
        (row.role, row.id, f"{row.threshold} of {row.keys}", row.file or "not here", "passphrase" * row.protected)
        for row in shown.counting
    ]
    click.echo(terminal.table(lines, ("ROLE", "KEY", "NEEDED", "FILE", "PROTECTED BY")))
    if shown.replaced:
        click.echo(f"replaced; delete them once every repository was refreshed: {', '.join(shown.replaced)}")


@keys.command()
@terminal.keys_option
@offline_option
@root_days_option
@terminal.passphrase_option
@terminal.as_json
def renew(keys_folder: Path, offline: tuple[Path, ...], days: int, passphrase_file: Path | None, as_json: bool) -> None:
    """Sign a new root with the same keys and a later expiry. It takes effect with `roost release refresh`.

    \b
    Examples:
      roost release keys renew --keys keys --offline /media/stick
    """
    with _alone(keys_folder):
        held = terminal.opened(keys_folder, passphrase_file, offline)
        root = keeping.renew(held, days=days)
        held.hand_out()
    _told(held, root, as_json)


@keys.command()
@click.argument("role", type=click.Choice(("root", *ONLINE, "online")))
@terminal.keys_option
@offline_option
@click.option(
    "--old", default="", help="The key that goes, by the beginning of its id. Needed where there are several."
)
@root_days_option
@terminal.passphrase_option
@click.option("--online-passphrase-file", type=terminal.file, help="Its first line protects the new online keys.")
@terminal.as_json
def rotate(
    role: str,
    keys_folder: Path,
    offline: tuple[Path, ...],
    old: str,
    days: int,
    passphrase_file: Path | None,
    online_passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Put a new key in the place of one of ROLE's, signed by the root keys; `online` replaces all three online keys.

    It takes effect with `roost release refresh`.

    \b
    Examples:
      roost release keys rotate online --keys keys --offline /media/stick
      roost release keys rotate root --old 3f9c --keys keys --offline /media/stick
    """
    with _alone(keys_folder):
        held = terminal.opened(keys_folder, passphrase_file, offline)
        passphrase = _online(online_passphrase_file)
        if role == "root":
            passphrase = terminal.new_passphrase(passphrase_file)
        elif passphrase is None and any(held.encrypted(each) for each in ONLINE):
            raise ConfigError("the online keys have a passphrase: give --online-passphrase-file for the new ones")
        roles = ONLINE if role == "online" else (role,)
        root = keeping.rotate(held, roles, old=old, passphrase=passphrase, days=days)
        held.hand_out()
    _told(held, root, as_json)


def _told(held: Keys, root: Root, as_json: bool) -> None:
    if as_json:
        terminal.show_json(_shown(held))
        return
    click.echo(
        f"root {root.version} is signed and expires at {terminal.when(root.expires)}.\n"
        "Now run `roost release refresh` and `roost release push` for every repository. "
        "Those who have an older root.json need no new one."
    )


def _online(passphrase_file: Path | None) -> bytes | None:
    if passphrase_file is None:
        return None
    passphrase = terminal.given(passphrase_file)
    return terminal.long_enough(passphrase) if passphrase is not None else None


def _alone(folder: Path) -> AbstractContextManager[None]:
    Keys(folder)
    return disk.locked(folder)


class KeyRow(Struct, frozen=True):
    """One key that counts; `file` is empty where its private half is not here."""

    role: str
    id: str
    threshold: int
    keys: int
    file: str
    protected: bool


class Shown(Struct, frozen=True):
    """A folder of keys."""

    folder: str
    root: str
    version: int
    expires: str
    counting: tuple[KeyRow, ...]
    replaced: tuple[str, ...]
    """Files of keys that no longer count."""


def _shown(held: Keys) -> Shown:
    root = held.newest.signed
    files = {(file.role, file.id): file.path for file in held.files()}
    counting = []
    for role in ("root", *ONLINE):
        keyids = root.roles[role].keyids
        for keyid in keyids:
            path = files.pop((role, keyid[:ID_CHARS]), None)
            protected = path is not None and is_encrypted(path)
            where = str(path) if path else ""
            counting.append(KeyRow(role, keyid[:ID_CHARS], root.roles[role].threshold, len(keyids), where, protected))
    return Shown(
        folder=str(held.folder),
        root=str(held.folder / "root.json"),
        version=root.version,
        expires=root.expires.isoformat(),
        counting=tuple(counting),
        replaced=tuple(str(path) for path in files.values()),
    )
