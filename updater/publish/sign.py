"""Signing a repository anew, and taking out of it what nothing leads to any more. The caller holds its lock.

What always holds: at any moment a reader finds metadata that fits together, under the root he knows and under the
newest; a writer killed at any line has changed nothing, or everything. After a rotation the old keys sign once more
beside the new ones, where they are still here, so that there is no moment at which either root would be refused.
"""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from schemas.errors import ConfigError, RoostError, Untrusted
from updater.publish import disk
from updater.publish.keys import Keys, parsed
from updater.publish.private import file_name
from updater.publish.repository import HASH, TIMESTAMP, Metas, Repository, T, decoded, root_path, target_path

TIMESTAMP_DAYS = 30
SNAPSHOT_DAYS = 90
TARGETS_DAYS = 365
METADATA_KEPT = 10
"""Older versions that a slow reader may still be led to."""


def begin(folder: Path, keys: Keys) -> Repository:
    """A repository in `folder` that `keys` may write to; raises `ConfigError` or `Untrusted` when it is another's."""
    repository = Repository(folder)
    held = repository.roots()
    strange = [] if held else [path.name for path in folder.iterdir() if path.name != disk.LOCK]
    if set(strange) - {"metadata", "targets", "chunks"}:
        raise ConfigError(f"{folder} is no repository, and it is not empty; name a new folder")
    if len(held) > len(keys.roots) and held[: len(keys.roots)] == keys.roots:
        raise ConfigError(
            f"{folder} has {len(held)} roots and the keys in {keys.folder} have {len(keys.roots)}: "
            "these keys are an old copy; use the newest"
        )
    if keys.roots[: len(held)] != held:
        raise Untrusted(f"{folder} belongs to other keys than those in {keys.folder}")
    if held and repository.begun:
        repository.metas()
    return repository


def targets_of(repository: Repository) -> Targets:
    """What is signed now, to be changed and committed."""
    return deepcopy(repository.metas().targets.signed) if repository.begun else Targets()


def commit(repository: Repository, keys: Keys, targets: Targets | None = None, *, days: int = TIMESTAMP_DAYS) -> Metas:
    """Sign `targets` (None: the same as before) and all that leads to them; the timestamp is good for `days`.

    Raises `ConfigError` when a key is not here.
    """
    held = repository.roots()
    newest = keys.newest
    last = parsed(held[-1]).signed if held else newest.signed
    pending = keys.roots[len(held) :]
    before = repository.metas() if repository.begun else None
    until = datetime.now(UTC) + timedelta(days=days)
    whole = before is not None and not pending and before.signed_for(newest.signed)

    def sign(payload: T, version: int, lifetime_days: int) -> Metadata[T]:
        payload.version = version
        payload.expires = datetime.now(UTC) + timedelta(days=lifetime_days)
        return signed(payload, keys, newest.signed, last)

    files: list[tuple[str, bytes]] = []
    if before is not None and whole and targets is None and before.targets.signed.expires > until:
        targets_meta, targets_data = before.targets, before.data[0]
    else:
        version = before.targets.signed.version + 1 if before else 1
        targets_meta = sign(targets or targets_of(repository), version, max(TARGETS_DAYS, 2 * days))
        targets_data = targets_meta.to_bytes()
        files.append((f"metadata/{version}.targets.json", targets_data))
    if before is not None and not files and before.snapshot.signed.expires > until:
        snapshot_meta, snapshot_data = before.snapshot, before.data[1]
    else:
        listed = {"targets.json": MetaFile.from_data(targets_meta.signed.version, targets_data, [HASH])}
        version = before.snapshot.signed.version + 1 if before else 1
        snapshot_meta = sign(Snapshot(meta=listed), version, max(SNAPSHOT_DAYS, 2 * days))
        snapshot_data = snapshot_meta.to_bytes()
        files.append((f"metadata/{version}.snapshot.json", snapshot_data))
    leads = MetaFile.from_data(snapshot_meta.signed.version, snapshot_data, [HASH])
    timestamp_meta = sign(Timestamp(snapshot_meta=leads), before.timestamp.signed.version + 1 if before else 1, days)
    timestamp_data = timestamp_meta.to_bytes()
    files.append((TIMESTAMP, timestamp_data))

    data = (targets_data, snapshot_data, timestamp_data)
    metas = Metas(newest, timestamp_meta, snapshot_meta, targets_meta, tuple(keys.roots), data)
    roots = [(root_path(len(held) + number), root) for number, root in enumerate(pending, 1)]
    disk.make(repository.folder / "metadata")
    for path, content in in_order(metas, last if held else None, files, roots):
        disk.write(repository.folder / path, content)
    return metas


def in_order(
    metas: Metas, known: Root | None, files: list[tuple[str, bytes]], roots: list[tuple[str, bytes]]
) -> list[tuple[str, bytes]]:
    """The order of writing where readers know the root `known` (None: there are none) so that none of them is refused.

    `files` come with the timestamp last. New roots come after it when it is good under the old root too.
    """
    if known is not None and metas.signed_for(known):
        return [*files, *roots]
    return [*files[:-1], *roots, files[-1]]


def signed(payload: T, keys: Keys, newest: Root, last: Root) -> Metadata[T]:
    """`payload` signed as `newest` asks for, and as `last` does where its keys are still here."""
    role = payload.type
    meta = Metadata(payload)
    done: set[str] = set()
    for root in (newest, last):
        for signer in keys.signers(root, role) if root is newest or root.roles[role] != newest.roles[role] else ():
            if signer.public_key.keyid not in done:
                meta.sign(signer, append=True)
                done.add(signer.public_key.keyid)
    result = newest.get_verification_result(role, meta.signed_bytes, meta.signatures)
    if not result:
        names = ", ".join(file_name(role, keyid) for keyid in sorted(result.unsigned))
        raise ConfigError(f"{keys.folder}: the key that signs the {role} is not here: {names}")
    return meta


def needed(repository: Repository, metas: Metas) -> set[str]:
    """Paths of all that a reader may be led to: by the timestamp of now, or by one that he read a while ago."""
    paths = {path for path, _ in metas.files} | {root_path(number) for number in range(1, len(metas.roots) + 1)}
    paths |= {chunk.path for chunk in repository.chunks(metas.targets.signed).values()}
    kept = [metas.targets.signed]
    for role, meta in (("targets", metas.targets), ("snapshot", metas.snapshot)):
        for version in range(max(1, meta.signed.version - METADATA_KEPT), meta.signed.version):
            older = f"metadata/{version}.{role}.json"
            paths.add(older)
            if role == "targets":
                with suppress(RoostError):
                    kept.append(decoded(repository.read(older), Targets, older).signed)
    return paths | {target_path(file) for targets in kept for file in targets.targets.values()}


def sweep(folder: Path, keep: set[str]) -> int:
    """Delete what is not to be kept: leavings of killed writers, old metadata, withdrawn releases. Returns bytes."""
    freed = 0
    for top in ("metadata", "targets", "chunks"):
        for path in sorted((folder / top).rglob("*")):
            if path.is_file() and path.relative_to(folder).as_posix() not in keep:
                freed += path.stat().st_size
                path.unlink()
    return freed
