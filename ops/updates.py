"""Can models be updated as configured? Rows for `roost doctor`: source, root of trust, slots, space.

Looks and changes nothing. What always holds: only a look at the disk and one small request with a time-out; that the
source is trustworthy is for the updater to find out, each time.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ops.doctor import GB, Row
from schemas.config import Config
from schemas.strict import NAME, bytes_of
from schemas.update import UpdatesConfig

SOURCE_S = 5.0
SOON = timedelta(days=14)
FILE_BYTES_MAX = 4_000_000
METADATA = "metadata/timestamp.json"
"""Every repository has it, and it is small."""


def rows(config: Config, now: datetime | None = None) -> list[Row]:
    """What there is to say; one row where updates are not configured."""
    if config.updates is None:
        return [Row("updates", "ok", "not configured: models change when you change their files")]
    found = [_source(config.updates), _root(config.updates, now or datetime.now(UTC))]
    slots = folders(config)
    if not slots:
        advice = "let a model's `path` be models/NAME/current, where NAME is its name in the source"
        return [*found, Row("update slots", "warn", "no model has slots", advice)]
    for folder in slots:
        found += [_slot(folder), *_blocked(folder)]
    return [*found, _space(config.updates, slots)]


def folders(config: Config) -> list[Path]:
    """Folders with slots: those that a path of the configuration names as `…/<name>/current`."""
    paths = [Path(p) for m in config.models for p in (m.path, *(adapter.path for adapter in m.lora)) if p]
    return list(dict.fromkeys(p.parent for p in paths if p.name == "current" and NAME.fullmatch(p.parent.name)))


# -- source and trust -------------------------------------------------------------------------------------------------


def _source(updates: UpdatesConfig) -> Row:
    name, source = "update source", updates.source
    if source == "bus":
        return Row(name, "ok", "the bus's object store RELEASES; looked at while Roost runs")
    if "://" in source:
        return _server(name, source)
    folder = Path(source)
    if not folder.is_dir():
        return Row(name, "warn", f"{folder} is no folder", "mount it, or correct `updates.source`")
    if not (folder / METADATA).is_file():
        return Row(name, "warn", f"{folder} has no {METADATA}", "`roost release push` fills it; or correct the path")
    return Row(name, "ok", str(folder))


def _server(name: str, source: str) -> Row:
    parts = urlsplit(source)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.scheme not in ("http", "https"):
        return Row(name, "warn", shown, "a source is a folder, https://…, http:// on this machine, or bus")
    if parts.scheme == "http" and not _here(parts.hostname or ""):
        return Row(name, "warn", shown, "http:// is for this machine only; use https://")
    handlers = [urllib.request.ProxyHandler({})] if _here(parts.hostname or "") else []
    opener = urllib.request.build_opener(*handlers)
    request = urllib.request.Request(f"{source.rstrip('/')}/{METADATA}")  # noqa: S310  the scheme was looked at
    if token := os.environ.get("ROOST_UPDATES_TOKEN", "").strip():
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with opener.open(request, timeout=SOURCE_S) as answer:
            json.loads(answer.read(FILE_BYTES_MAX))
    except urllib.error.HTTPError as error:
        error.close()
        advice = "set ROOST_UPDATES_TOKEN" if error.code in (401, 403) else "correct `updates.source`"
        return Row(name, "warn", f"{shown} answers {error.code} for {METADATA}", advice)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Row(
            name, "warn", f"{shown} cannot be read: {reason}", "see whether the server runs and the address is right"
        )
    return Row(name, "ok", shown)


def _here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _root(updates: UpdatesConfig, now: datetime) -> Row:
    name, file = "update root", Path(updates.root)
    again = "get root.json from the publisher again, on a way that you trust, and name it in `updates.root`"
    try:
        with file.open("rb") as stream:
            signed = json.loads(stream.read(FILE_BYTES_MAX))["signed"]
        if signed["_type"] != "root":
            return Row(name, "warn", f"{file} is the role {signed['_type']!r} and not root", again)
        expires = datetime.fromisoformat(signed["expires"]).astimezone(UTC)
    except OSError as error:
        return Row(name, "warn", f"{file} cannot be read: {error.strerror}", again)
    except (ValueError, KeyError, TypeError):
        return Row(name, "warn", f"{file} is no root metadata of TUF", again)
    told = f"version {signed.get('version')}, until {expires:%Y-%m-%d}"
    if expires <= now:
        advice = "the updater follows newer ones of the source; where there is none, the publisher must sign one"
        return Row(name, "warn", f"{told}: expired", advice)
    return Row(name, "warn" if expires - now < SOON else "ok", told, "it ends soon" if expires - now < SOON else "")


# -- slots ------------------------------------------------------------------------------------------------------------


def _slot(folder: Path) -> Row:
    name, link = f"slot {folder.name}", folder / "current"
    if not os.path.lexists(link):
        return Row(name, "warn", f"{link} is not there yet", "`roost update check` fetches the newest version")
    if not link.is_symlink():
        kind = "folder" if link.is_dir() else "file"
        advice = f"move it to {folder}/releases/VERSION/ and make `current` a link to that, so that it can be updated"
        return Row(name, "warn", f"{link} is a {kind} and no link", advice)
    target = link.readlink()
    if not link.exists():
        advice = f"`roost update rollback {folder.name}` takes another version, `roost update check` fetches one"
        return Row(name, "warn", f"{link} names {target}, which is gone", advice)
    if target.parent.name != "releases" or link.resolve().parent.parent != folder.resolve():
        advice = f"updates need a link to {folder}/releases/VERSION"
        return Row(name, "warn", f"{link} names {target}, which is no release", advice)
    there = sorted(p.name for p in (folder / "releases").iterdir() if p.is_dir() and not p.name.startswith("."))
    return Row(name, "ok", f"{target.name} serves; on the disk: {', '.join(there)}")


def _blocked(folder: Path) -> list[Row]:
    """Versions that were rolled back or refused, and whether the record can be read."""
    name, file = f"slot {folder.name}", folder / "updates.json"
    try:
        state: Any = json.loads(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [Row(name, "warn", f"{file} cannot be read: {error}", "the updater makes it anew from the links")]
    blocked = state.get("blocked", {}) if isinstance(state, Mapping) else {}
    return [
        Row(name, "warn", f"{version} is blocked: {reason}", f"`roost update unblock {folder.name} {version}`")
        for version, reason in (blocked.items() if isinstance(blocked, Mapping) else ())
    ]


def _space(updates: UpdatesConfig, slots: list[Path]) -> Row:
    """Room for one more release as large as the largest that serves."""
    left = bytes_of(updates.free_bytes_min, 0)
    largest = max((_size(folder / "current") for folder in slots), default=0)
    there = next((p for p in (slots[0], *slots[0].parents) if p.is_dir()), Path("/"))
    free = shutil.disk_usage(there).free
    told = f"{free / GB:.1f} GB free; a version takes {largest / GB:.1f} GB, {left / GB:.1f} GB must stay free"
    if free < largest + left:
        return Row("update space", "warn", told, "free some space, or lower `updates.keep`")
    return Row("update space", "ok", told)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
