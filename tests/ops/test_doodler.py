"""The starter image model: the release of the repository is put in place whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from ops.doodler import install
from schemas.errors import RoostError, Untrusted
from schemas.release import Chunk, Release, ReleaseFile

FILES = {"model_index.json": b"{}", "unet/weights.safetensors": b"weights", "tokenizer/merges.txt": b""}


def weights(folder: Path, version: str = "starter-2026-11-29") -> Path:
    files = []
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        chunks = (Chunk("0" * 64, len(data)),) if data else ()
        files.append(ReleaseFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), chunks=chunks))
    release = Release(name="painter", version=version, files=tuple(files), created_at=0.0, type="diffusion")
    (folder / "RELEASE.json").write_bytes(msgspec.json.encode(release))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return weights(tmp_path / "weights")


def test_the_release_is_put_in_place_and_linked(tmp_path: Path, source: Path) -> None:
    models = tmp_path / "models" / "painter"
    (source / "notes.pt").write_bytes(b"no part of the release")
    assert "installed" in install(models, source)
    assert (models / "current").readlink() == Path("releases/starter-2026-11-29")
    found = {str(p.relative_to(models / "current")) for p in (models / "current").rglob("*") if p.is_file()}
    assert found == {*FILES, "RELEASE.json"}
    assert "in place" in install(models, source)


@pytest.mark.parametrize("damage", ["altered", "cut", "absent", "outside"])
def test_a_damaged_release_is_refused_and_leaves_nothing(tmp_path: Path, source: Path, damage: str) -> None:
    file = source / "unet" / "weights.safetensors"
    if damage == "altered":
        file.write_bytes(b"Weights")
    elif damage == "cut":
        file.write_bytes(b"weight")
    elif damage == "absent":
        file.unlink()
    else:
        told = (source / "RELEASE.json").read_bytes()
        (source / "RELEASE.json").write_bytes(told.replace(b"unet/weights", b"../u/weights"))
    with pytest.raises((RoostError, Untrusted)):
        install(tmp_path / "models", source)
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file() or path.is_symlink()]


@pytest.mark.parametrize("own", ["model_index.json", "current/model_index.json"])
def test_a_model_of_the_operators_own_is_left_as_it_is(tmp_path: Path, source: Path, own: str) -> None:
    models = tmp_path / "models"
    (models / own).parent.mkdir(parents=True)
    (models / own).write_text("{}")
    assert "left as it is" in install(models, source)
    assert not (models / "releases").exists()


@pytest.mark.parametrize("earlier", ["starter", "starter-2026-01-02"])
def test_an_earlier_starter_makes_way_and_a_later_release_of_somebody_else_does_not(
    tmp_path: Path, source: Path, earlier: str
) -> None:
    models = tmp_path / "models"
    install(models, weights(tmp_path / "earlier", earlier))
    assert (models / "current").readlink() == Path("releases", earlier)
    assert "installed" in install(models, source)
    assert (models / "current").readlink() == Path("releases/starter-2026-11-29")
    assert {path.name for path in (models / "releases").iterdir()} == {earlier, "starter-2026-11-29"}

    (models / "current").unlink()
    (models / "current").symlink_to(Path("releases", earlier))
    assert "in place" in install(models, source)
    assert (models / "current").readlink() == Path("releases/starter-2026-11-29")

    (models / "current").unlink()
    theirs = weights(models / "releases" / "7", "7")
    (models / "current").symlink_to(theirs)
    assert "left as it is" in install(models, source)
    assert (models / "current").resolve() == theirs.resolve()
