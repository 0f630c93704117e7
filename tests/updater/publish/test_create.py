"""Making a release: what may be in it, what it says of itself, and that a version is published once."""

from __future__ import annotations

import os
import pickle
import random
import time
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest

from schemas.errors import Rejected, Untrusted
from schemas.release import Expected, Golden
from tests.updater.publish.clients import Client, content
from tests.updater.publishing import Publisher, publisher
from updater.publish import upkeep
from updater.publish.create import create

BIG_S = 10.0
"""For 60 MB: far more than it takes (0.3 s alone), far less than an fsync for each chunk and byte by byte would."""


@pytest.fixture
def house(tmp_path: Path) -> Publisher:
    return publisher(tmp_path / "house")


def tiny_gguf(path: Path, *, fill: float = 1.0, **texts: str) -> Path:
    """A sound file of one tensor; `texts` are keys of the header, with _ for the dots after `general`."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, text in texts.items():
        writer.add_string("general." + key.replace("__", "."), text)
    writer.add_tensor("a", np.full((8, 32), fill, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def folder_with(path: Path, **files: bytes) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name.replace("__", ".")).write_bytes(data)
    return path


def make(house: Publisher, *paths: Path, version: str = "1", **options: object):  # type: ignore[no-untyped-def]
    return create(house.repository, "small", version, paths, keys=house.keys, **options)  # type: ignore[arg-type]


def test_a_gguf_file_says_its_licence_origin_and_backend(house: Publisher, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf", license="apache-2.0", source__url="https://example.org/m")
    made = make(house, path)
    assert (made.type, made.licence, made.origin) == ("llama", "apache-2.0", "https://example.org/m")
    assert [file.path for file in made.files] == ["m.gguf"]
    told = make(house, path, version="2", type="echo", licence="mine", origin="home")
    assert (told.type, told.licence, told.origin) == ("echo", "mine", "home")


def test_a_link_that_is_named_itself_is_what_it_leads_to(house: Publisher, tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "model.gguf")
    (tmp_path / "current").symlink_to("model.gguf")
    assert [file.path for file in make(house, tmp_path / "current").files] == ["model.gguf"]


def test_a_folder_of_diffusers_keeps_its_form_and_a_model_card_tells_the_licence(
    house: Publisher, tmp_path: Path
) -> None:
    model = folder_with(
        tmp_path / "m",
        model_index__json=b'{"_class_name": "StableDiffusionPipeline"}',
        README__md=b"---\nlicense: openrail++\nbase_model: org/base\n---\n# A model\n",
        __gitattributes=b"* lfs",
    )
    folder_with(model / "unet", config__json=b"{}")
    notices: list[str] = []
    made = make(house, model, notice=notices.append)
    assert [file.path for file in made.files] == ["README.md", "model_index.json", "unet/config.json"]
    assert (made.type, made.licence, made.origin) == ("diffusion", "openrail++", "org/base")
    assert notices == ["left out, because hidden: .gitattributes"]


def test_goldens_and_changelog_go_with_it(house: Publisher, tmp_path: Path) -> None:
    prompts = (Golden(prompt="hello", expect=Expected(contains=("world",))),)
    made = make(house, tiny_gguf(tmp_path / "m.gguf"), goldens=prompts, changelog="better")
    assert (made.goldens, made.changelog) == (prompts, "better")
    assert upkeep.releases(house.repository) == [made]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pytorch_model.bin", b"anything"),
        ("model.pt", b"anything"),
        ("weights.ckpt", b"anything"),
        ("modeling.py", b"import os"),
        ("lib.so", b"\x7fELF"),
        ("no-suffix", b"text"),
        ("weights.safetensors", pickle.dumps({"a": 1}, protocol=4)),
        ("weights.gguf", pickle.dumps([1, 2, 3], protocol=2)),
        ("notes.txt", b"#!/bin/sh\nrm -r ."),
        ("half.gguf", b"GGUF\x03\x00\x00\x00"),
        ("list.json", b"{not json"),
    ],
)
def test_what_may_hold_code_or_is_not_what_it_is_called_is_refused(
    house: Publisher, tmp_path: Path, name: str, data: bytes
) -> None:
    model = folder_with(tmp_path / "m", config__json=b"{}")
    (model / name).write_bytes(data)
    with pytest.raises((Rejected, Untrusted), match=name):
        make(house, model)
    assert not house.repository.exists(), "nothing was begun"


def test_an_archive_of_pickles_under_another_name_is_refused(house: Publisher, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "adapter.safetensors", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(print))
    with pytest.raises(Untrusted, match="archive"):
        make(house, tmp_path / "adapter.safetensors")


def test_refused_files_are_all_named_and_may_be_left_out(house: Publisher, tmp_path: Path) -> None:
    model = folder_with(tmp_path / "m", config__json=b"{}", a__bin=b"x", b__bin=b"y")
    with pytest.raises(Rejected, match=r"Refused: a\.bin, b\.bin; leave them out with --exclude"):
        make(house, model)
    assert [file.path for file in make(house, model, exclude=["*.bin"]).files] == ["config.json"]


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_followed(house: Publisher, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(b"mine")
    model = folder_with(tmp_path / "m", config__json=b"{}")
    (model / "inside.json").symlink_to("config.json")
    assert content(house.repository, make(house, model))["inside.json"] == b"{}"
    (model / "outside.txt").symlink_to("../secret.txt")
    with pytest.raises(Rejected, match=r"outside\.txt is a link that leaves the folder"):
        make(house, model, version="2")
    (model / "outside.txt").unlink()
    (model / "loop").symlink_to(".")
    with pytest.raises(Rejected, match="link to a folder"):
        make(house, model, version="2")
    (model / "loop").unlink()
    (model / "gone.txt").symlink_to("nowhere")
    with pytest.raises(Rejected, match="leads nowhere"):
        make(house, model, version="2")


def test_what_is_no_regular_file_is_refused_and_never_waited_for(house: Publisher, tmp_path: Path) -> None:
    model = folder_with(tmp_path / "m", config__json=b"{}")
    os.mkfifo(model / "pipe.txt")
    with pytest.raises(Rejected, match="no regular file"):
        make(house, model)


def test_two_files_of_one_name_are_refused_whatever_their_case(house: Publisher, tmp_path: Path) -> None:
    one = folder_with(tmp_path / "one", a__txt=b"1")
    other = folder_with(tmp_path / "other", A__txt=b"2")
    with pytest.raises(Rejected, match=r"would both be A\.txt"):
        make(house, one / "a.txt", other / "A.txt")


def test_a_part_of_a_split_model_is_missed(house: Publisher, tmp_path: Path) -> None:
    parts = []
    for number in (1, 2):
        path = tmp_path / f"m-0000{number}-of-00002.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint16("split.no", number - 1)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", 2)
        writer.add_tensor(f"t{number}", np.zeros((1, 32), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        parts.append(path)
    with pytest.raises(Rejected, match="parts of m do not make a whole model"):
        make(house, parts[0])
    assert len(make(house, *parts).files) == 2


@pytest.mark.parametrize(
    ("name", "version"),
    [("Small", "1"), ("../up", "1"), ("small", "../1"), ("small", ".hidden"), ("small", ""), ("small", "versions")],
)
def test_names_and_versions_that_cannot_be_are_refused(
    house: Publisher, tmp_path: Path, name: str, version: str
) -> None:
    with pytest.raises(Rejected):
        create(house.repository, name, version, [tiny_gguf(tmp_path / "m.gguf")], keys=house.keys)
    assert not house.repository.exists()


def test_a_version_is_published_once_and_never_again_after_it_was_withdrawn(house: Publisher, tmp_path: Path) -> None:
    first = make(house, tiny_gguf(tmp_path / "a.gguf", fill=1.0))
    other = tiny_gguf(tmp_path / "b.gguf", fill=2.0)
    with pytest.raises(Rejected, match="small 1 is published, and a version never changes"):
        make(house, other)
    assert upkeep.releases(house.repository) == [first]
    make(house, other, version="2")
    house.remove("small", "2")
    with pytest.raises(Rejected, match="was published and withdrawn"):
        make(house, other, version="2")
    assert make(house, other, version="3").sequence == 3


def test_nothing_and_too_much_are_refused(house: Publisher, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="1 to 512 files"):
        make(house, folder_with(tmp_path / "m"))
    with pytest.raises(Rejected, match="cannot be read"):
        make(house, tmp_path / "nowhere")
    path = tiny_gguf(tmp_path / "m.gguf")
    with pytest.raises(Rejected, match="64 golden prompts"):
        make(house, path, goldens=[Golden(prompt=str(number)) for number in range(65)])


def test_a_large_file_is_quick_and_its_change_is_stored_in_part(house: Publisher, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf")
    with path.open("ab") as file:
        file.write(random.Random(7).randbytes(60_000_000))
    seen: list[tuple[int, int]] = []
    began = time.monotonic()
    first = make(house, path, progress=lambda done, size: seen.append((done, size)))
    assert time.monotonic() - began < BIG_S
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    assert seen == sorted(seen)
    stored = sum(each.stat().st_size for each in (house.repository / "chunks").rglob("*") if each.is_file())
    assert stored == path.stat().st_size
    with path.open("r+b") as file:
        file.seek(30_000_000)
        file.write(b"changed")
    second = make(house, path, version="2")
    old = {chunk.blake3 for chunk in first.files[0].chunks}
    assert sum(chunk.size for chunk in second.files[0].chunks if chunk.blake3 not in old) < 3_000_000
    assert content(house.repository, second)["m.gguf"] == path.read_bytes()


def test_a_client_gets_what_was_published(house: Publisher, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf")
    made = make(house, path)
    client = Client(house.repository, house.root.read_bytes(), tmp_path / "state")
    assert client.releases() == {"small 1": made}
    assert content(house.repository, made) == {"m.gguf": path.read_bytes()}
