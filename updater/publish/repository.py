"""A repository folder as its publisher reads it: everything of it is verified before it is believed.

    metadata/   <n>.root.json, <n>.targets.json, <n>.snapshot.json, timestamp.json      TUF
    targets/    <name>/<sha256>.versions.json, <name>/<sha256>.<version>.json           Versions, Release
    chunks/     <first two digits>/<BLAKE3>                                             pieces of files

What always holds: `timestamp.json` says what the repository is; files that nothing leads to from there are not part of
it. Whether metadata has expired is not asked here: a publisher must be able to mend that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from schemas.errors import ConfigError, Untrusted
from schemas.release import Chunk, Release, Versions, check_release, release_target, versions_target
from updater.publish.keys import chain, parsed

T = TypeVar("T", Timestamp, Snapshot, Targets)
TIMESTAMP = "metadata/timestamp.json"
HASH = "sha256"


class Metas(Struct, frozen=True):
    """The signed state: the newest root and what the timestamp leads to; as it was when it was read."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    roots: tuple[bytes, ...]
    """The chain, from version 1 on."""
    data: tuple[bytes, bytes, bytes]
    """Targets, snapshot and timestamp as they are on the disk."""

    def signed_for(self, root: Root) -> bool:
        """Whether somebody who knows only `root` would accept all three."""
        return all(
            root.get_verification_result(role, meta.signed_bytes, meta.signatures)
            for role, meta in (("timestamp", self.timestamp), ("snapshot", self.snapshot), ("targets", self.targets))
        )

    @property
    def files(self) -> list[tuple[str, bytes]]:
        """Path and bytes of the metadata, without roots, in the order in which it may be written."""
        targets, snapshot = self.targets.signed.version, self.snapshot.signed.version
        paths = (f"metadata/{targets}.targets.json", f"metadata/{snapshot}.snapshot.json", TIMESTAMP)
        return list(zip(paths, self.data, strict=True))


class Repository:
    """One folder. `trust`: a root that its chain must contain, byte for byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def roots(self) -> list[bytes]:
        """The chain of roots, verified."""
        files: list[bytes] = []
        while (path := self.folder / root_path(len(files) + 1)).is_file():
            files.append(path.read_bytes())
        return chain(files)

    @property
    def begun(self) -> bool:
        """Whether anything was ever published here."""
        return (self.folder / TIMESTAMP).is_file()

    def metas(self, trust: bytes | None = None) -> Metas:
        """The signed state; raises `Untrusted`, or `ConfigError` when there is no repository."""
        roots = self.roots()
        if not roots or not self.begun:
            raise ConfigError(f"{self.folder} is no repository; `roost release create` makes one")
        if trust is not None and trust not in roots:
            raise Untrusted(
                f"{self.folder} belongs to other keys: the root that is trusted is not among its {len(roots)}"
            )
        root = parsed(roots[-1])
        known = [parsed(data).signed for data in reversed(roots)]
        timestamp, timestamp_data = self._meta(TIMESTAMP, Timestamp, known)
        snapshot, snapshot_data = self._listed(timestamp.signed.snapshot_meta, "snapshot", Snapshot, known)
        listed = snapshot.signed.meta.get("targets.json")
        if listed is None:
            raise Untrusted(f"{self.folder}: the snapshot does not name the targets")
        targets, targets_data = self._listed(listed, "targets", Targets, known)
        data = (targets_data, snapshot_data, timestamp_data)
        return Metas(root, timestamp, snapshot, targets, tuple(roots), data)

    def _listed(self, listed: MetaFile, role: str, kind: type[T], known: list[Root]) -> tuple[Metadata[T], bytes]:
        path = f"metadata/{listed.version}.{role}.json"
        meta, data = self._meta(path, kind, known)
        try:
            listed.verify_length_and_hashes(data)
        except RepositoryError as error:
            raise Untrusted(f"{self.folder / path} was altered: {error}") from None
        if meta.signed.version != listed.version:
            raise Untrusted(f"{self.folder / path} calls itself version {meta.signed.version}")
        return meta, data

    def _meta(self, path: str, kind: type[T], known: list[Root]) -> tuple[Metadata[T], bytes]:
        """Signed by what any root of the chain asks for: after a rotation, the old signature is a publisher's too."""
        data = self.read(path)
        meta: Metadata[T] = decoded(data, kind, str(self.folder / path))
        if not any(root.get_verification_result(kind.type, meta.signed_bytes, meta.signatures) for root in known):
            raise Untrusted(f"{self.folder / path} is not signed by enough of this repository's {kind.type} keys")
        return meta, data

    def read(self, path: str) -> bytes:
        """A file of the repository; raises `Untrusted` when it is not there, for something said that it is."""
        try:
            return (self.folder / path).read_bytes()
        except OSError as error:
            raise Untrusted(f"{self.folder / path} cannot be read: {error.strerror}", code="missing") from None

    def target(self, targets: Targets, path: str) -> bytes:
        """A target's bytes, as long and with the hash that `targets` says."""
        file = targets.targets[path]
        data = self.read(target_path(file))
        try:
            file.verify_length_and_hashes(data)
        except RepositoryError as error:
            raise Untrusted(f"{self.folder / target_path(file)} was altered: {error}") from None
        return data

    def names(self, targets: Targets) -> list[str]:
        """Models that have a list of versions."""
        return sorted(path.rpartition("/")[0] for path in targets.targets if path.endswith("/versions.json"))

    def versions(self, targets: Targets, name: str) -> tuple[str, ...]:
        path = versions_target(name)
        if path not in targets.targets:
            return ()
        return self._decoded(self.target(targets, path), path, Versions).versions

    def release(self, targets: Targets, name: str, version: str) -> Release:
        """One release, checked; raises `ConfigError` when there is none of this name and version."""
        path = release_target(name, version)
        if path not in targets.targets or version not in self.versions(targets, name):
            raise ConfigError(f"{self.folder} has no release {name} {version}; see: roost release list")
        release = self._decoded(self.target(targets, path), path, Release)
        if (release.name, release.version) != (name, version):
            raise Untrusted(f"{self.folder}: {path} is the release {release.name} {release.version}")
        check_release(release)
        return release

    def releases(self, targets: Targets) -> Iterator[Release]:
        """All releases, by name, the oldest first."""
        for name in self.names(targets):
            for version in self.versions(targets, name):
                yield self.release(targets, name, version)

    def chunks(self, targets: Targets) -> dict[str, Chunk]:
        """Every chunk that some release needs, by its BLAKE3."""
        return {
            chunk.blake3: chunk
            for release in self.releases(targets)
            for file in release.files
            for chunk in file.chunks
        }  # fmt: skip

    def _decoded(self, data: bytes, path: str, kind: type[D]) -> D:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            raise Untrusted(f"{self.folder}: {path} is not what it should be: {error}") from None


D = TypeVar("D", Release, Versions)


def decoded(data: bytes, kind: type[T], place: str) -> Metadata[T]:
    """Metadata of one kind out of its bytes, unverified; raises `Untrusted`."""
    try:
        meta: Metadata[T] = Metadata.from_bytes(data)
    except (DeserializationError, RepositoryError) as error:
        raise Untrusted(f"{place} is no metadata: {error}") from None
    signed: Signed = meta.signed
    if signed.type != kind.type:
        raise Untrusted(f"{place} is {signed.type} metadata, not {kind.type}")
    return meta


def target_file(path: str, data: bytes) -> TargetFile:
    return TargetFile(len(data), {HASH: hashlib.sha256(data).hexdigest()}, path)


def target_path(file: TargetFile) -> str:
    """Where a target is: its name comes after its hash, so that old and new are there together."""
    folder, _, name = file.path.rpartition("/")
    return f"targets/{folder}/{file.hashes[HASH]}.{name}"


def root_path(version: int) -> str:
    return f"metadata/{version}.root.json"
