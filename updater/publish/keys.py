"""A publisher's keys: a folder with offline root keys, online keys, and the chain of signed roots.

    KEYS/offline/root-<id>.pem      sign roots, nothing else; to be kept apart, where no network is
    KEYS/online/<role>-<id>.pem     sign releases: targets, snapshot, timestamp
    KEYS/roots/<version>.root.json  which keys count, and how many of them; public
    KEYS/root.json                  the newest of these: what those who install are given

What always holds: a root is in the chain only when it is signed as the root before it and it itself ask for, and a key
is on the disk before a root names it: a process killed at any line leaves keys that work.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Role, Root
from tuf.api.serialization import DeserializationError

from schemas.errors import ConfigError, Rejected, RoostError, Untrusted
from updater.disk import sync_folder
from updater.publish import disk
from updater.publish.private import ID_CHARS, Ask, file_name, is_encrypted, read_private, refuse, write_private

ONLINE = ("targets", "snapshot", "timestamp")
ROOT_DAYS = 365
ROOT_KEYS = 3
THRESHOLD = 2


class PrivateFile(Struct, frozen=True):
    """Where a key's private half is, and whose it is."""

    role: str
    id: str
    path: Path


class Keys:
    """One folder of keys. `offline`: other folders in which root keys may be; `ask` gives passphrases."""

    def __init__(self, folder: Path, *, ask: Ask = refuse, offline: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._ask = ask
        self._places = [folder / "online", folder / "offline"]
        self._places += [place for given in offline for place in (given, given / "offline")]
        self.roots = chain(_root_files(folder))
        """Every root as it is on the disk, from version 1 on."""

    @property
    def newest(self) -> Metadata[Root]:
        return parsed(self.roots[-1])

    def files(self) -> list[PrivateFile]:
        """Private keys that are here now."""
        found = []
        for place in self._places:
            for path in sorted(place.glob("*-*.pem")) if place.is_dir() else ():
                role, _, mark = path.stem.rpartition("-")
                found.append(PrivateFile(role, mark, path))
        return found

    def signers(self, root: Root, role: str) -> list[CryptoSigner]:
        """Those of `role`'s keys whose files are here; asks for a passphrase where one has it."""
        files = {file.id: file.path for file in self.files() if file.role == role}
        wanted = [root.keys[keyid] for keyid in root.roles[role].keyids]
        return [self._signer(files[key.keyid[:ID_CHARS]], key) for key in wanted if key.keyid[:ID_CHARS] in files]

    def _signer(self, path: Path, key: Key) -> CryptoSigner:
        private = read_private(path, self._ask)
        public = SSlibKey.from_crypto(private.public_key())
        if not isinstance(key, SSlibKey) or public.keyval != key.keyval:
            raise ConfigError(f"{path} is not the key that its name says; put the right file there")
        return CryptoSigner(private, key)

    def encrypted(self, role: str) -> bool:
        return any(is_encrypted(file.path) for file in self.files() if file.role == role)

    def add(self, root: Metadata[Root]) -> Root:
        """Sign `root` with all root keys that are here, and make it the newest; raises `Rejected` if they do not do."""
        before = self.newest.signed
        for signer in {
            s.public_key.keyid: s for s in (*self.signers(before, "root"), *self.signers(root.signed, "root"))
        }.values():
            root.sign(signer, append=True)
        result = root.signed.get_root_verification_result(before, root.signed_bytes, root.signatures)
        if not result:
            lacking = max(result.first.missing, result.second.missing)
            names = ", ".join(file_name("root", keyid) for keyid in sorted(result.unsigned))
            raise Rejected(
                f"signatures that a new root lacks: {lacking}, of the keys {names}, which are not here; "
                "name the folder in which they are with --offline",
                code="keys_missing",
            )
        data = root.to_bytes()
        path = self.folder / "roots" / f"{root.signed.version}.root.json"
        disk.write(path, data)
        self.roots = [*self.roots, data]
        self.hand_out()
        return root.signed

    def hand_out(self) -> None:
        """Have `root.json` be the newest root, also where a process was killed before it was."""
        path = self.folder / "root.json"
        if not path.is_file() or path.read_bytes() != self.roots[-1]:
            disk.write(path, self.roots[-1])


def create(
    folder: Path,
    *,
    passphrase: bytes | None,
    online_passphrase: bytes | None = None,
    root_keys: int = ROOT_KEYS,
    threshold: int = THRESHOLD,
    days: int = ROOT_DAYS,
) -> Keys:
    """Make all keys and the first root in `folder`, which must be new or empty. None: keys without a passphrase."""
    if not 1 <= threshold <= root_keys <= 16:
        raise Rejected(f"a threshold of {threshold} with {root_keys} root keys cannot be: 1 to all of 1 to 16 keys")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Rejected(f"{folder} is not empty; keys are never overwritten: name a new folder", code="exists")
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = folder.with_name(f".{folder.name}.incoming")
    shutil.rmtree(making, ignore_errors=True)
    for each in (making, making / "offline", making / "online", making / "roots"):
        each.mkdir(mode=0o700)
    owners = [write_private(making / "offline", "root", passphrase) for _ in range(root_keys)]
    public = {"root": [owner.public_key for owner in owners]}
    public |= {role: [write_private(making / "online", role, online_passphrase).public_key] for role in ONLINE}
    root = Root(
        expires=_expiry(days),
        keys={key.keyid: key for keys in public.values() for key in keys},
        roles={role: Role([key.keyid for key in keys], 1) for role, keys in public.items()},
    )
    root.roles["root"].threshold = threshold
    signed = Metadata(root)
    for owner in owners:
        signed.sign(owner, append=True)
    disk.write(making / "roots" / "1.root.json", signed.to_bytes())
    disk.write(making / "root.json", signed.to_bytes())
    os.rename(making, folder)
    sync_folder(folder.parent)
    return Keys(folder, ask=lambda path: passphrase or refuse(path))


def renew(keys: Keys, *, days: int = ROOT_DAYS) -> Root:
    """The same keys in a new root that expires `days` from now."""
    return keys.add(_next(keys, days))


def rotate(
    keys: Keys, roles: Sequence[str], *, old: str = "", passphrase: bytes | None = None, days: int = ROOT_DAYS
) -> Root:
    """Put a new key in the place of one of each role's: of the only one, or of the one whose id begins with `old`."""
    root = _next(keys, days)
    going = {role: _which(root.signed, role, old) for role in roles}
    made: list[Path] = []
    try:
        for role, keyid in going.items():
            folder = keys.folder / ("offline" if role == "root" else "online")
            folder.mkdir(mode=0o700, exist_ok=True)
            new = write_private(folder, role, passphrase).public_key
            made.append(folder / file_name(role, new.keyid))
            root.signed.revoke_key(keyid, role)
            root.signed.add_key(new, role)
        return keys.add(root)
    except RoostError:
        for path in made:
            path.unlink()
        raise


def _which(root: Root, role: str, old: str) -> str:
    held = root.roles[role].keyids
    matching = [keyid for keyid in held if keyid.startswith(old)]
    if len(matching) != 1:
        names = ", ".join(keyid[:ID_CHARS] for keyid in held)
        raise Rejected(f"name the {role} key that goes by the beginning of its id; there are {names}", code="which_key")
    return matching[0]


def chain(files: Iterable[bytes]) -> list[bytes]:
    """The same roots, once each is found to be signed by itself and the one before; raises `Untrusted`."""
    before: Root | None = None
    checked = []
    for number, data in enumerate(files, 1):
        root = parsed(data)
        if root.signed.version != number:
            raise Untrusted(f"root {number} calls itself version {root.signed.version}")
        if not root.signed.get_root_verification_result(before, root.signed_bytes, root.signatures):
            raise Untrusted(f"root {number} is not signed by enough of its keys")
        before = root.signed
        checked.append(data)
    return checked


def parsed(data: bytes) -> Metadata[Root]:
    try:
        root: Metadata[Root] = Metadata.from_bytes(data)
    except (DeserializationError, RepositoryError) as error:
        raise Untrusted(f"this is no root metadata: {error}") from None
    if root.signed.type != "root":
        raise Untrusted(f"this is {root.signed.type} metadata, not root")
    return root


def _root_files(folder: Path) -> list[bytes]:
    files: list[bytes] = []
    while (path := folder / "roots" / f"{len(files) + 1}.root.json").is_file():
        files.append(path.read_bytes())
    if not files:
        raise ConfigError(
            f"{folder} is no folder of release keys; make one with: roost release keys create --to FOLDER"
        )
    return files


def _next(keys: Keys, days: int) -> Metadata[Root]:
    root: Metadata[Root] = Metadata(copy.deepcopy(keys.newest.signed))
    root.signed.version += 1
    root.signed.expires = _expiry(days)
    return root


def _expiry(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)
