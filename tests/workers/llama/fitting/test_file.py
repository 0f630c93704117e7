"""Which file a path means, and what is said when it means none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from schemas.errors import ConfigError, Untrusted
from workers.llama.fitting.file import header, model_file, version


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


def split(folder: Path, count: int = 3, **wrong: dict[str, object]) -> list[Path]:
    """A model in several files as llama.cpp's gguf-split writes them: only the first tells of the model."""
    import numpy as np
    from gguf import GGUFWriter

    paths = []
    for n in range(count):
        writer = GGUFWriter(None, "llama")
        if n == 0:
            writer.add_context_length(2048)
            writer.add_head_count_kv([4, 2])
        else:
            writer.kv_data[0].pop("general.architecture")
        said = {"split.no": n, "split.count": count, "split.tensors.count": count, **wrong.get(f"part{n}", {})}
        for key, value in said.items():
            writer.add_uint16(key, int(value))  # type: ignore[call-overload]
        writer.add_tensor(f"blk.{n}.attn_norm.weight", np.ones(8 * (n + 1), dtype=np.float32))
        path = folder / f"big-{n + 1:05d}-of-{count:05d}.gguf"
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths


def test_a_model_in_several_files_is_one_model(tmp_path: Path) -> None:
    paths = split(tmp_path)
    for named in (tmp_path, *paths[:1]):
        assert model_file(named) == paths[0].resolve()
    found = header(model_file(tmp_path))
    assert [tensor.name for tensor in found.tensors] == [f"blk.{n}.attn_norm.weight" for n in range(3)]
    assert found.weight_bytes == 4 * (8 + 16 + 24)
    assert found.each("attention.head_count_kv", 2) == (4, 2)
    before = version(paths[0])
    with paths[2].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    assert version(paths[0]) != before


def test_any_part_may_be_named_even_behind_links_to_files_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    for n, path in enumerate(split(tmp_path)):
        blob = path.rename(tmp_path / "blobs" / str(n))
        (tmp_path / "snapshot" / path.name).symlink_to(blob)
    first = tmp_path / "snapshot" / "big-00001-of-00003.gguf"
    assert model_file(tmp_path / "snapshot") == model_file(first.with_name("big-00002-of-00003.gguf")) == first
    assert len(header(first).tensors) == 3


def test_a_missing_part_is_named_with_the_remedy(tmp_path: Path) -> None:
    split(tmp_path)[1].unlink()
    for named in (tmp_path, tmp_path / "big-00001-of-00003.gguf"):
        with pytest.raises(ConfigError, match=r"split into 3 files, and big-00002-of-00003.gguf is missing; fetch"):
            model_file(named)


@pytest.mark.parametrize(
    "wrong", [{"part1": {"split.no": 2}}, {"part2": {"split.count": 4}}, {"part0": {"split.tensors.count": 9}}]
)
def test_parts_of_different_models_are_not_joined(tmp_path: Path, wrong: dict[str, dict[str, object]]) -> None:
    with pytest.raises(Untrusted, match="again"):
        header(split(tmp_path, **wrong)[0])


def test_a_single_part_under_another_name_is_no_model(tmp_path: Path) -> None:
    alone = split(tmp_path)[0].rename(tmp_path / "alone.gguf")
    with pytest.raises(Untrusted, match=r"number 0 \(from 0\) of 3"):
        header(alone)
