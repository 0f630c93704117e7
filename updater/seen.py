"""The newest versions of a repository's metadata that were ever accepted: below them nothing is, whatever else is lost.

python-tuf keeps the metadata itself, does not force it to the disk, and takes unreadable files for absent ones: after
a power cut or with garbage in its folder it would accept an old repository again. So the version numbers are kept
apart, written before a refresh returns, in two copies that no kill can damage together. When both are there and
neither can be read, refusing is all that is safe.

A publisher who changes the keys of timestamp or snapshot begins counting anew (TUF specification, 5.3.11: else a
stolen key could block updates for ever with a huge number). The root's own number counts on regardless, so that
nobody but the holders of root keys can bring this about.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec
from msgspec import Struct
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from schemas.errors import Untrusted
from updater.disk import written

COPIES = ("seen.json", "seen-again.json")
BYTES_MAX = 4_096


class Seen(Struct, frozen=True, kw_only=True):
    """Version numbers, and a mark of the keys under which timestamp and snapshot count theirs."""

    root: int
    keys: str
    timestamp: int
    snapshot: int
    targets: int
    v: int = 1


def older(now: Seen, before: Seen) -> str:
    """What of `now` is older than `before`, as a sentence; empty when nothing is."""
    roles = ("root", "timestamp", "snapshot", "targets") if now.keys == before.keys else ("root",)
    for role in roles:
        given, had = getattr(now, role), getattr(before, role)
        if given < had:
            return f"its {role} has number {given}, and number {had} was here before"
    return ""


def of(root: bytes, timestamp: bytes, snapshot: bytes, targets: bytes) -> Seen:
    """The numbers of metadata that was verified."""
    newest: Root = Metadata[Root].from_bytes(root).signed
    return Seen(
        root=newest.version,
        keys=_mark(newest),
        timestamp=Metadata[Timestamp].from_bytes(timestamp).signed.version,
        snapshot=Metadata[Snapshot].from_bytes(snapshot).signed.version,
        targets=Metadata[Targets].from_bytes(targets).signed.version,
    )


def load(folder: Path) -> Seen | None:
    """What was saved, or None where nothing ever was; raises `Untrusted` when it cannot be read any more."""
    found = False
    for name in COPIES:
        try:
            with (folder / name).open("rb") as file:
                found = True
                return msgspec.json.decode(file.read(BYTES_MAX), type=Seen)
        except FileNotFoundError:
            continue
        except (OSError, msgspec.DecodeError):
            found = True
    if not found:
        return None
    raise Untrusted(
        f"{folder / COPIES[0]} and its copy cannot be read, so an old repository could not be told from a new one; "
        f"if the disk is sound and you trust updates.source now, remove the folder {folder} and check again",
        code="state",
    )


def save(folder: Path, seen: Seen) -> None:
    """Durable in both copies when it returns; mends one that was lost or damaged."""
    for name in COPIES:
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            shutil.rmtree(folder / name)
        written(folder / name, msgspec.json.encode(seen))


def _mark(root: Root) -> str:
    keys = [
        [role, sorted(repr(sorted(root.keys[keyid].keyval.items())) for keyid in root.roles[role].keyids)]
        for role in (Timestamp.type, Snapshot.type)
    ]
    return hashlib.sha256(msgspec.json.encode(keys)).hexdigest()[:32]
