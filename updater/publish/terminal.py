"""What the commands of `roost release` share: options, passphrases, a progress bar, and how results are shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from schemas.errors import ConfigError
from updater.publish.keys import Keys
from updater.publish.private import PASSPHRASE_CHARS_MIN, Ask, refuse

PASSPHRASE_ENV = "ROOST_RELEASE_PASSPHRASE"  # noqa: S105
Progress = Callable[[int, int], None]

folder = click.Path(path_type=Path, file_okay=False)
file = click.Path(path_type=Path, dir_okay=False, exists=True)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
repository_option = click.option(
    "--repository",
    required=True,
    type=folder,
    envvar="ROOST_RELEASE_REPOSITORY",
    help="The repository's folder. Also ROOST_RELEASE_REPOSITORY.",
)
keys_option = click.option(
    "--keys",
    "keys_folder",
    required=True,
    type=folder,
    envvar="ROOST_RELEASE_KEYS",
    help="The folder of keys. Also ROOST_RELEASE_KEYS.",
)
passphrase_option = click.option(
    "--passphrase-file", type=file, help=f"Its first line opens the keys. Also {PASSPHRASE_ENV}; else you are asked."
)
days_option = click.option(
    "--days",
    default=30,
    show_default=True,
    type=click.IntRange(1, 3650),
    envvar="ROOST_RELEASE_DAYS",
    help="For how long updaters believe that nothing newer exists. Also ROOST_RELEASE_DAYS.",
)


def given(passphrase_file: Path | None) -> bytes | None:
    """The passphrase of a file or the environment; None when neither names one."""
    if passphrase_file is not None:
        try:
            lines = passphrase_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{passphrase_file} cannot be read: {error}") from None
        if not lines or not lines[0]:
            raise ConfigError(f"{passphrase_file}: its first line is empty; a passphrase is expected there")
        return lines[0].encode()
    named = os.environ.get(PASSPHRASE_ENV, "")
    return named.encode() if named else None


def opener(passphrase_file: Path | None) -> Ask:
    """Passphrases of files that exist; a person is asked once, for all of them."""
    known = given(passphrase_file)

    def ask(path: Path) -> bytes:
        nonlocal known
        if known is None:
            if not sys.stdin.isatty():
                refuse(path)
            known = str(click.prompt(f"Passphrase of {path.name}", hide_input=True, err=True)).encode()
        return known

    return ask


def new_passphrase(passphrase_file: Path | None) -> bytes:
    """One for new keys, long enough; a person types it twice."""
    passphrase = given(passphrase_file)
    if passphrase is None:
        if not sys.stdin.isatty():
            raise ConfigError(f"new root keys need a passphrase: give --passphrase-file or {PASSPHRASE_ENV}")
        typed = click.prompt("Passphrase of the root keys", hide_input=True, confirmation_prompt=True, err=True)
        passphrase = str(typed).encode()
    return long_enough(passphrase)


def long_enough(passphrase: bytes) -> bytes:
    if len(passphrase.decode()) < PASSPHRASE_CHARS_MIN:
        raise ConfigError(f"a passphrase has {PASSPHRASE_CHARS_MIN} characters or more; several words are good")
    return passphrase


def opened(keys_folder: Path, passphrase_file: Path | None, offline: Sequence[Path] = ()) -> Keys:
    return Keys(keys_folder, ask=opener(passphrase_file), offline=offline)


@contextmanager
def bar(label: str, *, hidden: bool) -> Iterator[Progress]:
    """A progress bar on standard error, where a person looks at it."""
    if hidden or not sys.stderr.isatty():
        yield lambda done, size: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as shown:

        def progress(done: int, size: int) -> None:
            shown.length = max(1, size)
            shown.update(done - shown.pos)

        yield progress


def show_json(value: object) -> None:
    click.echo(json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2))


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def size(count: float) -> str:
    """Bytes for a person: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def when(at: datetime | float) -> str:
    moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)
