"""Which file a path means, and what is said when it means none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from schemas.errors import ConfigError, Untrusted
from workers.llama.file import header, model_file, version


def test_a_file_a_folder_and_a_link_mean_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "releases" / "1"
    folder.mkdir(parents=True)
    file = folder / "m.gguf"
    file.write_bytes(b"x")
    (folder / "README.md").write_text("about it")
    (tmp_path / "current").symlink_to("releases/1")
    (tmp_path / "link.gguf").symlink_to(file)
    assert {model_file(p) for p in (file, folder, tmp_path / "current", tmp_path / "link.gguf")} == {file.resolve()}


@pytest.mark.parametrize("names", [[], ["a.gguf", "b.gguf"], ["a.bin"]])
def test_a_folder_without_exactly_one_model_is_the_operators_mistake(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match="exactly one"):
        model_file(tmp_path)


@pytest.mark.parametrize("path", [None, Path("/no/such/file.gguf")])
def test_no_file_is_the_operators_mistake(path: Path | None) -> None:
    with pytest.raises(ConfigError, match="path"):
        model_file(path)


def test_a_link_in_a_circle_is_the_operators_mistake(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ConfigError):
        model_file(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"not a model", b"GGUF" + bytes(20)])
def test_a_file_that_is_no_model_names_itself_and_the_remedy(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    with pytest.raises(Untrusted, match=r"m\.gguf .* again"):
        header(file)


def test_the_version_follows_the_contents(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"one")
    assert version(file) == hashlib.sha256(b"one").hexdigest()[:12]
    other = tmp_path / "n.gguf"
    other.write_bytes(b"two")
    other.replace(file)
    assert version(file) == hashlib.sha256(b"two").hexdigest()[:12]
