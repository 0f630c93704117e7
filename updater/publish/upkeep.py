"""What a repository needs over the years: fresh signatures, releases withdrawn, and a look at every byte."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from blake3 import blake3
from msgspec import Struct
from tuf.api.metadata import Metadata, Root

from schemas.errors import RoostError
from schemas.release import Release, Versions, release_target
from updater.publish import disk
from updater.publish.create import listed
from updater.publish.keys import Keys
from updater.publish.repository import Metas, Repository
from updater.publish.sign import TIMESTAMP_DAYS, begin, commit, needed, sweep, targets_of

Progress = Callable[[int, int], None]


class Checked(Struct, frozen=True):
    """What was looked at, and what is wrong with it."""

    releases: int
    chunks: int
    size: int
    """Bytes of the chunks."""
    problems: tuple[str, ...]


def refresh(repository: Path, keys: Keys, *, days: int = TIMESTAMP_DAYS) -> Metas:
    """Sign the timestamp anew, and with it what ends before it or is signed by keys of an older root."""
    place = Repository(repository)
    place.metas()
    with disk.locked(repository):
        metas = commit(begin(repository, keys), keys, days=days)
        sweep(repository, needed(place, metas))
    return metas


def remove(repository: Path, name: str, version: str, *, keys: Keys, days: int = TIMESTAMP_DAYS) -> int:
    """Withdraw a release, and delete the chunks that no other needs; returns the bytes freed."""
    Repository(repository).metas()
    with disk.locked(repository):
        place = begin(repository, keys)
        targets = targets_of(place)
        release = place.release(targets, name, version)
        left = tuple(each for each in place.versions(targets, name) if each != version)
        del targets.targets[release_target(name, version)]
        listed(place, targets, Versions(name=name, versions=left), release.sequence, (version,))
        metas = commit(place, keys, targets, days=days)
        return sweep(repository, needed(place, metas))


def releases(repository: Path) -> list[Release]:
    """All releases, verified, by name, the oldest first."""
    place = Repository(repository)
    return list(place.releases(place.metas().targets.signed))


def check(repository: Path, trust: bytes | None = None, progress: Progress = lambda done, size: None) -> Checked:
    """Verify everything as an updater would, and go on after a fault; raises when not even the metadata holds."""
    place = Repository(repository)
    metas = place.metas(trust)
    problems = [] if metas.signed_for(metas.root.signed) else [
        "the metadata is signed by keys of an older root; run: roost release refresh"
    ]  # fmt: skip
    for meta in (metas.root, metas.timestamp, metas.snapshot, metas.targets):
        if meta.signed.is_expired():
            kind, at = meta.signed.type, meta.signed.expires
            remedy = "roost release keys renew" if kind == "root" else "roost release refresh"
            problems.append(f"the {kind} expired at {at:%Y-%m-%d %H:%M} UTC; run: {remedy}")
    found: list[Release] = []
    targets = metas.targets.signed
    for name in place.names(targets):
        for version in place.versions(targets, name):
            try:
                found.append(place.release(targets, name, version))
            except RoostError as error:
                problems.append(error.message)
    chunks = {chunk.blake3: chunk for release in found for file in release.files for chunk in file.chunks}
    size, done = sum(chunk.size for chunk in chunks.values()), 0
    for chunk in chunks.values():
        path = repository / chunk.path
        try:
            sound = blake3(path.read_bytes()).hexdigest() == chunk.blake3
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
        else:
            if not sound:
                problems.append(f"{path} was altered; `roost release create` with a file that has this piece mends it")
        done += chunk.size
        progress(done, size)
    return Checked(len(found), len(chunks), size, tuple(problems))


def soon(root: Metadata[Root], days: int) -> list[str]:
    """A root that expires within `days`, as a sentence: without it every updater stops fetching."""
    if not root.signed.is_expired(datetime.now(UTC) + timedelta(days=days)):
        return []
    at = root.signed.expires
    return [f"the root expires at {at:%Y-%m-%d %H:%M} UTC; renew it with the root keys: roost release keys renew"]
