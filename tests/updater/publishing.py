"""A publisher for tests: real keys and a real repository in a folder, made by the code behind `roost release`.

house = publisher(tmp_path)
house.release("small", "1", {"model.gguf": data})
# house.repository is the folder to fetch from, house.root the root.json that an installation is given
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.release import Golden, Release
from updater.publish import create as creating
from updater.publish import keys as keeping
from updater.publish import upkeep


class Publisher:
    """Keys without passphrases, and one repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = keeping.create(folder / "keys", passphrase=None, root_keys=2, threshold=1)
        self.repository = folder / "repository"

    @property
    def root(self) -> Path:
        """The newest root.json."""
        return self.keys.folder / "root.json"

    def release(
        self,
        name: str,
        version: str,
        files: Mapping[str, bytes | Path],
        goldens: Sequence[Golden] = (),
        **options: Any,
    ) -> Release:
        """Publish `files`: their paths in the release, and bytes or a file to take them from."""
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            for path, content in files.items():
                place = Path(made) / path
                place.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    shutil.copyfile(content, place)
                else:
                    place.write_bytes(content)
            return creating.create(
                self.repository, name, version, [Path(made)], keys=self.keys, goldens=goldens, **options
            )

    def remove(self, name: str, version: str) -> None:
        upkeep.remove(self.repository, name, version, keys=self.keys)

    def refresh(self, days: int = 30) -> None:
        """Sign anew. A negative number of days makes metadata that has expired."""
        upkeep.refresh(self.repository, self.keys, days=days)

    def rotate(self, role: str) -> None:
        """A new online key; it counts from the next `release` or `refresh` on."""
        keeping.rotate(self.keys, [role])


def publisher(folder: Path) -> Publisher:
    """Keys and an empty place for a repository in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return Publisher(folder)
