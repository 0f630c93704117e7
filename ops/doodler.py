"""The starter image model: a release that lies in the repository, put in place as the updater would put it.

What always holds: a folder under `releases/` is whole, and every file of it has the hash that its RELEASE.json names; a
model that the operator has put in place of the starter is never touched. An earlier starter makes way for this one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import msgspec

from ops.starter import point
from schemas.errors import RoostError, Untrusted
from schemas.release import RELEASE_FILE, Release, check_release

SOURCE = Path(__file__).resolve().parents[1] / "workers" / "diffusion" / "doodler" / "weights"
STARTER = "starter"
"""What the versions of all starters begin with; a dash and the day of the training follow."""
CHUNK_BYTES = 1 << 20


def release_of(source: Path) -> Release:
    """What the folder's RELEASE.json says, checked; raises `RoostError` where there is none, or `Untrusted`."""
    try:
        release = msgspec.json.decode((source / RELEASE_FILE).read_bytes(), type=Release)
    except OSError as error:
        raise RoostError(f"{source / RELEASE_FILE}: {error.strerror}; is this a whole checkout?") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Untrusted(f"{source / RELEASE_FILE}: {error}; check the file out anew") from None
    check_release(release)
    return release


def copied(release: Release, source: Path, target: Path) -> None:
    """Copy the release's files, and none other, into the empty folder `target`; raises `Untrusted` for a wrong one."""
    for file in release.files:
        there = target / file.path
        there.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with (source / file.path).open("rb") as read, there.open("wb") as write:
            while chunk := read.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                write.write(chunk)
            write.flush()
            os.fsync(write.fileno())
        if (size, digest.hexdigest()) != (file.size, file.sha256):
            raise Untrusted(f"{source / file.path} is not the file that was released; check it out anew (git checkout)")
    with (target / RELEASE_FILE).open("wb") as write:
        write.write((source / RELEASE_FILE).read_bytes())
        write.flush()
        os.fsync(write.fileno())


def install(models: Path, source: Path = SOURCE) -> str:
    """Put the starter image model under `models` unless the operator's own is there; returns what was done."""
    release = release_of(source)
    current, target = models / "current", models / "releases" / release.version
    ours = _starter(current, release)
    if (models / "model_index.json").exists() or (current.exists() and not ours):
        return f"{models} has a model of your own; left as it is"
    if target.exists():
        point(current, target, anew=ours)
        return f"the starter image model is in place: {target}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as folder:
        try:
            (Path(folder) / "whole").mkdir()
            copied(release, source, Path(folder) / "whole")
        except OSError as error:
            raise RoostError(f"{error.filename}: {error.strerror}; the starter image model was not installed") from None
        (Path(folder) / "whole").replace(target)
    point(current, target, anew=ours)
    return f"installed the starter image model: {target}"


def _starter(current: Path, release: Release) -> bool:
    """Whether the link names a release of the starter, this one or an earlier."""
    try:
        found = release_of(current) if current.is_symlink() else None
    except RoostError:
        return False
    return found is not None and found.name == release.name and found.version.partition("-")[0] == STARTER


def main() -> None:
    """`python -m ops.doodler [FOLDER]`."""
    parser = argparse.ArgumentParser(description="Install the starter image model.")
    parser.add_argument("models", nargs="?", default="models/stable-diffusion", type=Path)
    try:
        print(install(parser.parse_args().models))
    except RoostError as error:
        print(f"starter image model: {error.message}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
