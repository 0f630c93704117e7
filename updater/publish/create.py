"""A new release: files are checked, cut and stored, described, and signed.

What always holds: a version that was published, or withdrawn, is never published again with other bytes; nothing of a
release is signed before all its chunks are on the disk; the same files cost no second copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from blake3 import blake3
from tuf.api.metadata import Targets

from schemas.errors import Rejected, RoostError
from schemas.release import (
    Chunk,
    Golden,
    Release,
    ReleaseFile,
    Versions,
    check_release,
    release_target,
    versions_target,
)
from updater.formats import check
from updater.publish import disk
from updater.publish.collect import collect
from updater.publish.cut import cut
from updater.publish.describe import check_parts, describe
from updater.publish.keys import Keys
from updater.publish.repository import Repository, target_file, target_path
from updater.publish.sign import TIMESTAMP_DAYS, begin, commit, targets_of

Progress = Callable[[int, int], None]
"""Bytes that are done, and all."""
Notice = Callable[[str], None]
RESERVED = "versions"
"""As a version it would take the place of `versions.json`."""


def create(
    repository: Path,
    name: str,
    version: str,
    paths: Sequence[Path],
    *,
    keys: Keys,
    type: str = "",
    goldens: Sequence[Golden] = (),
    changelog: str = "",
    licence: str = "",
    origin: str = "",
    exclude: Sequence[str] = (),
    days: int = TIMESTAMP_DAYS,
    progress: Progress = lambda done, size: None,
    notice: Notice = lambda text: None,
) -> Release:
    """Publish `paths` as `version` of `name` in the folder `repository`, which is made when it is not there."""
    plain = ReleaseFile(path="a.gguf", size=0, sha256="", chunks=())
    _sound(Release(name=name, version=version, files=(plain,), created_at=0, goldens=tuple(goldens)))
    files = collect(paths, exclude, notice)
    for relative, path in files:
        check(path, relative)
    check_parts(files)
    said = describe(files)
    disk.make(repository.absolute())
    with disk.locked(repository):
        place = begin(repository, keys)
        targets = targets_of(place)
        unused(targets, name, version)
        stored = store(place, targets, files, progress)
        release = Release(
            name=name,
            version=version,
            files=stored,
            created_at=time.time(),
            sequence=last_sequence(targets, name) + 1,
            type=type or said.type,
            goldens=tuple(goldens),
            changelog=changelog,
            licence=licence or said.licence,
            origin=origin or said.origin,
        )
        _sound(release)
        versions = (*place.versions(targets, name), version)
        add(place, targets, release_target(name, version), msgspec.json.encode(release))
        listed(place, targets, Versions(name=name, versions=versions), release.sequence)
        commit(place, keys, targets, days=days)
    return release


def _sound(release: Release) -> None:
    """What an updater would refuse is the publisher's mistake here."""
    if release.version == RESERVED:
        raise Rejected(f"{RESERVED!r} is no version; take a number or a date", code="release")
    try:
        check_release(release)
    except RoostError as error:
        raise Rejected(error.message, code=error.code) from None


def unused(targets: Targets, name: str, version: str) -> None:
    """Raise `Rejected` when there is, or was, such a release."""
    remembered = memory(targets, name)
    there = release_target(name, version) in targets.targets
    if there or version in remembered.withdrawn:
        state = "is published" if there else "was published and withdrawn"
        raise Rejected(
            f"{name} {version} {state}, and a version never changes; publish a new one (the last is number "
            f"{remembered.sequence})",
            code="exists",
        )


def store(
    repository: Repository, targets: Targets, files: Sequence[tuple[str, Path]], progress: Progress
) -> tuple[ReleaseFile, ...]:
    """Cut the files; write the chunks that are not there yet, and have them on the disk."""
    whole = sum(path.stat().st_size for _, path in files)
    known = set(repository.chunks(targets))
    fresh: dict[Path, None] = {}
    done = 0

    def keep(chunk: Chunk, data: memoryview) -> None:
        nonlocal done
        path = repository.folder / chunk.path
        if not there(path, chunk):
            disk.make(path.parent)
            disk.write(path, data, flush=False)
            fresh[path] = None
        elif chunk.blake3 not in known:
            fresh[path] = None
        done += chunk.size
        progress(done, whole)

    stored = []
    for relative, path in files:
        found = cut(path, keep=keep)
        stored.append(ReleaseFile(path=relative, size=found.size, sha256=found.sha256, chunks=found.chunks))
    disk.flush_all(fresh)
    return tuple(stored)


def there(path: Path, chunk: Chunk) -> bool:
    """Whether a chunk's file is whole. It is read: it may be a killed writer's, or have been damaged since."""
    try:
        return path.stat().st_size == chunk.size and blake3(path.read_bytes()).hexdigest() == chunk.blake3
    except OSError:
        return False


def add(repository: Repository, targets: Targets, path: str, data: bytes) -> None:
    """Write a target and have `targets` list it."""
    file = target_file(path, data)
    place = repository.folder / target_path(file)
    disk.make(place.parent)
    disk.write(place, data)
    targets.targets[path] = file


class Memory(msgspec.Struct, frozen=True):
    """What must outlive releases: kept as custom data of the list of versions."""

    sequence: int = 0
    withdrawn: tuple[str, ...] = ()


def memory(targets: Targets, name: str) -> Memory:
    file = targets.targets.get(versions_target(name))
    return msgspec.convert(file.custom if file is not None and file.custom else {}, Memory)


def last_sequence(targets: Targets, name: str) -> int:
    return memory(targets, name).sequence


def listed(
    repository: Repository, targets: Targets, versions: Versions, sequence: int, withdrawn: Sequence[str] = ()
) -> None:
    """Write the list of a model's versions; `withdrawn` are added to those that were."""
    before = memory(targets, versions.name)
    add(repository, targets, versions_target(versions.name), msgspec.json.encode(versions))
    after = Memory(max(sequence, before.sequence), (*before.withdrawn, *withdrawn))
    targets.targets[versions_target(versions.name)].unrecognized_fields["custom"] = msgspec.to_builtins(after)
