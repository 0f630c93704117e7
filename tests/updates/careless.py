"""A publisher who signs whatever there is: what `roost release create` refuses, and an updater has to survive."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from schemas.release import Golden, Release, Versions, release_target
from tests.updater.publishing import Publisher
from updater.publish import create as creating
from updater.publish import disk
from updater.publish.sign import begin, commit, targets_of


def signed(
    house: Publisher,
    name: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    goldens: Sequence[Golden] = (),
    change: Callable[[Release], Release] = lambda release: release,
) -> Release:
    """Publish `files`, unchecked, as a release with valid signatures, after `change` has made of it what it likes."""
    house.repository.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=house.folder) as folder, disk.locked(house.repository):
        there = []
        for number, (path, content) in enumerate(files.items()):
            (Path(folder) / str(number)).write_bytes(content)
            there.append((path, Path(folder) / str(number)))
        place = begin(house.repository, house.keys)
        targets = targets_of(place)
        release = change(
            Release(
                name=name,
                version=version,
                files=creating.store(place, targets, there, lambda done, size: None),
                created_at=time.time(),
                sequence=creating.last_sequence(targets, name) + 1,
                goldens=tuple(goldens),
            )
        )
        versions = (*place.versions(targets, name), version)
        creating.add(place, targets, release_target(name, version), msgspec.json.encode(release))
        creating.listed(place, targets, Versions(name=name, versions=versions), release.sequence)
        commit(place, house.keys, targets)
    return release


def withdrawn(house: Publisher, name: str, version: str) -> None:
    """Take a release back that nobody's `roost release` can read."""
    with disk.locked(house.repository):
        place = begin(house.repository, house.keys)
        targets = targets_of(place)
        versions = tuple(known for known in place.versions(targets, name) if known != version)
        del targets.targets[release_target(name, version)]
        creating.listed(place, targets, Versions(name=name, versions=versions), 0, (version,))
        commit(place, house.keys, targets)
