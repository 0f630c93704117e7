"""What those who hold a repository, or some of its keys, could do to it. For tests."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata

from tests.updater.publishing import Publisher
from updater.publish.repository import Repository, target_file, target_path
from updater.publish.sign import begin, commit, targets_of

Change = Callable[[Any], None]


def copied(house: Publisher, name: str) -> Path:
    """The repository as it is now, kept for later."""
    to = house.folder / name
    shutil.copytree(house.repository, to)
    return to


def put_back(house: Publisher, kept: Path) -> None:
    shutil.rmtree(house.repository)
    shutil.copytree(kept, house.repository)


def newest(house: Publisher, role: str) -> Path:
    """The newest metadata file of a role in the repository."""
    folder = house.repository / "metadata"
    if role == "timestamp":
        return folder / "timestamp.json"
    return max(folder.glob(f"*.{role}.json"), key=lambda path: int(path.name.partition(".")[0]))


def altered(path: Path) -> None:
    """Change what is signed (it never expires), and leave the signatures and the length as they are."""
    path.write_bytes(re.sub(rb'("expires": ?")20..', rb"\g<1>2099", path.read_bytes(), count=1))


def resigned(path: Path, change: Change, house: Publisher, to: Path | None = None) -> bytes:
    """Change what is signed and sign it with this publisher's keys, as somebody could who has stolen them."""
    meta: Metadata[Any] = Metadata.from_file(str(path))
    change(meta.signed)
    meta.signatures.clear()
    for signer in house.keys.signers(house.keys.newest.signed, meta.signed.type):
        meta.sign(signer, append=True)
    (to or path).write_bytes(meta.to_bytes())
    return meta.to_bytes()


def published(house: Publisher, path: str, data: bytes) -> None:
    """Sign `data` as the target at `path`, whatever it is: what a publisher's mistake, or thief, could do."""
    place = begin(house.repository, house.keys)
    targets = targets_of(place)
    targets.targets[path] = target_file(path, data)
    file = house.repository / target_path(targets.targets[path])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    commit(place, house.keys, targets)


def target(house: Publisher, path: str) -> Path:
    """The file in which a target lies."""
    repository = Repository(house.repository)
    return house.repository / target_path(repository.metas().targets.signed.targets[path])
