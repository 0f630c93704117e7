"""`roost release create`, `list`, `check`, `refresh` and `remove`: what happens in a repository's folder."""

from __future__ import annotations

from pathlib import Path

import click

from schemas.errors import ConfigError
from schemas.release import Release
from updater.disk import on_disk
from updater.publish import create as creating
from updater.publish import terminal, upkeep
from updater.publish.goldens import read_goldens
from updater.publish.repository import Repository

SOON_DAYS = 60
"""A root that ends within so many days is spoken of."""


@click.command()
@click.argument("name")
@click.argument("version")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@terminal.repository_option
@terminal.keys_option
@click.option("--type", "kind", default="", help="The backend: llama, diffusion …  [default: what the files are]")
@click.option("--goldens", type=terminal.file, help="Golden prompts; see `roost release goldens`.")
@click.option("--changelog", default="", help="What is new, or @FILE.")
@click.option("--licence", default="", help="[default: what the files say]")
@click.option("--origin", default="", help="Where the weights come from.  [default: what the files say]")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out files of a folder, such as '*.bin'.")
@terminal.days_option
@terminal.passphrase_option
@terminal.as_json
def create(
    name: str,
    version: str,
    paths: tuple[Path, ...],
    repository: Path,
    keys_folder: Path,
    kind: str,
    goldens: Path | None,
    changelog: str,
    licence: str,
    origin: str,
    exclude: tuple[str, ...],
    days: int,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Publish PATHS as VERSION of the model NAME in a repository, which is made if it is not there.

    PATHS is a GGUF file, all parts of a split one, or a folder: of diffusers, or a LoRA adapter. A version never
    changes once it is published. NAME is what updaters have their slots named: models/NAME/current.

    \b
    Examples:
      roost release create chat 1.0 model-Q4_K_M.gguf --repository site --keys keys --goldens goldens.yaml
      roost release create paint 2026-11-23 stable-diffusion --exclude '*.bin' --repository site --keys keys
      roost release create chat 1.1 tuned.gguf --changelog @CHANGES.md --repository site --keys keys
    """
    notices: list[str] = []
    held = terminal.opened(keys_folder, passphrase_file)
    prompts = read_goldens(goldens) if goldens else ()
    with terminal.bar(f"{name} {version}", hidden=as_json) as progress, on_disk(repository):
        made = creating.create(
            repository, name, version, paths,
            keys=held, type=kind, goldens=prompts, changelog=_text(changelog), licence=licence, origin=origin,
            exclude=exclude, days=days, progress=progress, notice=notices.append,
        )  # fmt: skip
    if not prompts:
        notices.append("no golden prompts: nothing tells a broken model from a sound one; see: roost release goldens")
    if not made.licence:
        notices.append("the files name no licence; give it with --licence")
    notices += upkeep.soon(Repository(repository).metas().root, SOON_DAYS)
    if as_json:
        terminal.show_json({**_row(made), "files": len(made.files), "notices": notices})
        return
    for notice in notices:
        terminal.warn(notice)
    click.echo(f"published {name} {version} ({terminal.size(made.size)}) in {repository}")
    click.echo("send it with: roost release push")


@click.command("list")
@terminal.repository_option
@terminal.as_json
def list_(repository: Path, as_json: bool) -> None:
    """Show the releases of a repository.

    \b
    Examples:
      roost release list --repository site
    """
    metas = Repository(repository).metas()
    found = upkeep.releases(repository)
    if as_json:
        expires = {meta.signed.type: meta.signed.expires.isoformat() for meta in (metas.root, metas.timestamp)}
        terminal.show_json({"releases": [_row(each) for each in found], "expires": expires})
        return
    rows = [
        (each.name, each.version, terminal.size(each.size), terminal.when(each.created_at), each.licence or "-")
        for each in found
    ]
    click.echo(terminal.table(rows, ("NAME", "VERSION", "SIZE", "PUBLISHED", "LICENCE")) if rows else "no releases")
    click.echo(f"updaters believe this until {terminal.when(metas.timestamp.signed.expires)}")


@click.command()
@terminal.repository_option
@terminal.keys_option
@terminal.days_option
@terminal.passphrase_option
@terminal.as_json
def refresh(repository: Path, keys_folder: Path, days: int, passphrase_file: Path | None, as_json: bool) -> None:
    """Sign a repository anew before its timestamp expires, or after its keys were renewed or rotated.

    \b
    Examples:
      roost release refresh --repository site --keys keys && roost release push --repository site TO
    """
    with on_disk(repository):
        metas = upkeep.refresh(repository, terminal.opened(keys_folder, passphrase_file), days=days)
    until = metas.timestamp.signed.expires
    notices = upkeep.soon(metas.root, SOON_DAYS)
    if as_json:
        terminal.show_json({"expires": until.isoformat(), "root": metas.root.signed.version, "notices": notices})
        return
    for notice in notices:
        terminal.warn(notice)
    click.echo(f"{repository} is good until {terminal.when(until)}; send it with: roost release push")


@click.command()
@click.argument("repository", type=terminal.folder)
@click.option("--root", type=terminal.file, help="A root.json that you trust: the repository must be its owner's.")
@terminal.as_json
def check(repository: Path, root: Path | None, as_json: bool) -> int:
    """Verify a whole repository: signatures, expiry, and every piece of every file.

    \b
    Examples:
      roost release check site
      roost release check /srv/www/models --root keys/root.json
    """
    trust = root.read_bytes() if root else None
    with terminal.bar("checking", hidden=as_json) as progress:
        found = upkeep.check(repository, trust, progress)
    if as_json:
        terminal.show_json({"ok": not found.problems, **{f: getattr(found, f) for f in found.__struct_fields__}})
    elif found.problems:
        click.echo("\n".join(f"roost: {problem}" for problem in found.problems), err=True)
    else:
        click.echo(
            f"{repository} is sound: {found.releases} releases, {found.chunks} chunks, {terminal.size(found.size)}"
        )
    return 1 if found.problems else 0


@click.command()
@click.argument("name")
@click.argument("version")
@terminal.repository_option
@terminal.keys_option
@terminal.days_option
@terminal.passphrase_option
@terminal.as_json
def remove(
    name: str, version: str, repository: Path, keys_folder: Path, days: int, passphrase_file: Path | None, as_json: bool
) -> None:
    """Withdraw VERSION of NAME: updaters no longer find it, and what only it needed is deleted.

    Who has it in use keeps it. The version cannot be published again.

    \b
    Examples:
      roost release remove chat 1.1 --repository site --keys keys
    """
    held = terminal.opened(keys_folder, passphrase_file)
    with on_disk(repository):
        freed = upkeep.remove(repository, name, version, keys=held, days=days)
    if as_json:
        terminal.show_json({"name": name, "version": version, "freed": freed})
    else:
        click.echo(f"withdrew {name} {version}, {terminal.size(freed)} deleted; send that with: roost release push")


def _text(changelog: str) -> str:
    if not changelog.startswith("@"):
        return changelog
    try:
        return Path(changelog[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--changelog {changelog}: {error}") from None


def _row(made: Release) -> dict[str, object]:
    names = ("name", "version", "sequence", "size", "type", "licence", "origin", "created_at", "changelog")
    return {**{name: getattr(made, name) for name in names}, "goldens": len(made.goldens)}
