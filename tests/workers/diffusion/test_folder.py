"""A pipeline's folder, before anything of it is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigError, RoostError, Untrusted
from schemas.picture import Drawn
from schemas.release import RELEASE_FILE
from tests.tools.pipelines import edited
from tests.workers.diffusion.asked import ask, loaded
from workers.diffusion import folder
from workers.diffusion.version import version

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tiny_pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


def test_a_whole_folder_tells_its_parts_and_their_weights(tiny_pipeline: Path) -> None:
    found = folder.look(tiny_pipeline)
    assert found.kind == "StableDiffusionPipeline"
    assert {part.name for part in found.parts if part.weights} == {"unet", "vae", "text_encoder"}
    assert found.denoiser is not None
    assert found.denoiser.config["block_out_channels"] == [16, 32]
    files = sum(part.weights.largest_bytes for part in found.parts if part.weights)
    assert 0.8 * files < found.size(4) < files
    assert found.size(2) < 0.6 * found.size(4)


def test_a_link_is_followed_and_messages_call_it_as_the_operator_does(copy: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(copy)
    assert folder.look(link).path == copy
    shutil.rmtree(copy / "vae")
    with pytest.raises(ConfigError, match=r"current: its part 'vae' is missing"):
        folder.look(link)


def cut(name: Path) -> Callable[[Path], None]:
    def harm(copy: Path) -> None:
        (copy / name).write_bytes((copy / name).read_bytes()[:-100])

    return harm


def index(**changes: object) -> Callable[[Path], None]:
    return lambda copy: edited(copy / "model_index.json", **changes)


def remove(*names: str) -> Callable[[Path], None]:
    def harm(copy: Path) -> None:
        for name in names:
            path = copy / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    return harm


def write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda copy: (copy / name).write_bytes(data) and None


def pickle(copy: Path) -> None:
    (copy / UNET).rename(copy / "unet" / "diffusion_pytorch_model.bin")


def only_checkpoint(copy: Path) -> None:
    (copy / "model_index.json").unlink()
    (copy / "v1-5-pruned.safetensors").write_bytes(b"x")


HARM: list[tuple[str, Callable[[Path], None], type[RoostError], str]] = [
    ("half a file", cut(UNET), Untrusted, "is not a whole safetensors file.*copy or fetch it again"),
    ("an empty file", write(str(UNET), b""), Untrusted, "the file is empty"),
    ("a web page", write(str(UNET), b"<!DOCTYPE html> not found"), Untrusted, "is not a whole safetensors file"),
    ("no weights", remove(str(UNET)), ConfigError, "unet holds no weights"),
    ("pickled weights", pickle, Untrusted, r"only as a pickle \(diffusion_pytorch_model.bin\).*convert it"),
    ("no part", remove("text_encoder"), ConfigError, "part 'text_encoder' is missing; copy the whole folder"),
    ("no configuration", remove("vae/config.json"), ConfigError, "vae/config.json is missing"),
    ("no vocabulary", remove("tokenizer"), ConfigError, "part 'tokenizer' is missing"),
    ("no scheduler", remove("scheduler/scheduler_config.json"), ConfigError, "scheduler_config.json is missing"),
    ("no index", remove("model_index.json"), ConfigError, "has no model_index.json"),
    ("a checkpoint", only_checkpoint, ConfigError, "v1-5-pruned.safetensors and no model_index.json.*from_single_file"),
    ("half an index", cut(Path("model_index.json")), Untrusted, "is not what it should be"),
    ("an index of numbers", write("model_index.json", b"[1, 2]"), Untrusted, "is not what it should be"),
    ("a deep index", write("model_index.json", b'{"a":' * 100_000), Untrusted, "is not what it should be"),
    ("a huge index", write("model_index.json", b" " * 2_000_000), Untrusted, "more than 1000000 bytes"),
    ("custom code", index(_class_name=["pipeline", "Mine"]), Untrusted, "custom code is not run"),
    ("no class", index(_class_name=None), Untrusted, "names no class"),
    ("another library", index(unet=["os", "System"]), Untrusted, "'os' is neither diffusers nor transformers"),
    ("a module of its own", index(unet=["my_unet", "Net"]), Untrusted, "no other code is run"),
    ("a class that is none", index(unet=["diffusers", "utils.run"]), Untrusted, "expected a library and a class"),
    ("a part outside", index(**{"../../etc": ["diffusers", "VQModel"]}), Untrusted, "is no name of a part"),
    ("code by transformers", lambda c: edited(c / "vae" / "config.json", auto_map={"a": "b"}), Untrusted, "auto_map"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "kind", "sentence"), [h[1:] for h in HARM], ids=[h[0] for h in HARM])
def test_a_folder_that_cannot_be_used_is_refused_with_the_place_and_the_remedy(
    harm: Callable[[Path], None], kind: type[RoostError], sentence: str, copy: Path
) -> None:
    harm(copy)
    with pytest.raises(kind, match=sentence) as caught:
        folder.look(copy)
    assert str(copy) in caught.value.message
    if kind is Untrusted:
        assert caught.value.code == "model_file"


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("model.ckpt", Untrusted, "is a pickle"),
        ("model.safetensors", ConfigError, "is a single checkpoint; a folder with a model_index.json is wanted"),
        ("model.txt", ConfigError, "is a file; a model of type diffusion is a folder"),
    ],
)
def test_a_single_file_is_no_pipeline(tmp_path: Path, name: str, kind: type[RoostError], sentence: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(kind, match=sentence):
        folder.look(tmp_path / name)


def test_a_missing_folder_and_no_path_at_all_are_the_operators_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        folder.look(tmp_path / "missing")
    with pytest.raises(ConfigError, match="needs `path`"):
        folder.look(None)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match="no such folder"):
        folder.look(tmp_path / "loop")


def test_a_pickle_beside_safetensors_is_never_read_and_does_no_harm(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not even a pickle")
    before = folder.look(copy)
    assert before.denoiser is not None
    assert before.denoiser.weights is not None
    assert before.denoiser.weights.files == (copy / UNET,)


def test_a_variant_is_taken_where_there_is_nothing_else(copy: Path) -> None:
    assert folder.look(copy).variant == ""
    (copy / UNET).rename(copy / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert folder.look(copy).variant == "fp16"


def test_all_parts_of_split_weights_must_be_there(copy: Path) -> None:
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    data = (copy / UNET).read_bytes()
    (copy / UNET).unlink()
    (copy / "unet" / names[0]).write_bytes(data)
    with pytest.raises(ConfigError, match="split into 2 files, and 1 of 2 is missing"):
        folder.look(copy)
    (copy / "unet" / names[1]).write_bytes(data)
    with pytest.raises(ConfigError, match="its index"):
        folder.look(copy)
    place = copy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    place.write_text(json.dumps({"weight_map": {"a": names[0], "b": "../../../etc/passwd"}}))
    with pytest.raises(Untrusted, match="names other files than there are"):
        folder.look(copy)
    place.write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    found = folder.look(copy).denoiser
    assert found is not None
    assert found.weights is not None
    assert [file.name for file in found.weights.files] == names


def test_the_version_is_that_of_what_is_loaded(copy: Path) -> None:
    first = version(folder.look(copy))
    assert len(first) == 12
    (copy / "README.md").write_text("no part of the model")
    assert version(folder.look(copy)) == first
    edited(copy / "scheduler" / "scheduler_config.json", beta_end=0.013)
    second = version(folder.look(copy))
    assert second != first
    data = bytearray((copy / UNET).read_bytes())
    data[-1] ^= 1
    (copy / UNET).write_bytes(data)
    assert version(folder.look(copy)) not in (first, second)


def test_a_verified_release_is_not_read_again(copy: Path) -> None:
    found = folder.look(copy)
    size = (copy / UNET).stat().st_size
    told = [{"path": UNET.as_posix(), "size": size, "sha256": "f" * 64}]
    before = version(found)
    (copy / RELEASE_FILE).write_text(json.dumps({"files": told}))
    assert version(found) != before
    told[0]["size"] = size + 1
    (copy / RELEASE_FILE).write_text(json.dumps({"files": told}))
    assert version(found) == before


def test_a_folder_tells_how_its_maker_would_draw_and_settings_come_first(copy: Path) -> None:
    (copy / folder.ADVICE).write_text('{"steps": 2, "guidance": 0, "scheduler": "euler"}')
    assert version(folder.look(copy)) != version(folder.look(remade(copy)))
    finished = drawn(copy, steps=None)
    assert (finished.steps, finished.guidance, finished.scheduler) == (2, 0.0, "euler")
    finished = drawn(copy, steps=4, guidance=3.0)
    assert (finished.steps, finished.guidance, finished.scheduler) == (4, 3.0, "euler")


def remade(copy: Path) -> Path:
    """The same without advice."""
    other = Path(shutil.copytree(copy, copy.with_name("plain")))
    (other / folder.ADVICE).unlink()
    return other


def drawn(path: Path, **settings: Any) -> Drawn:
    backend = loaded(path, **settings)
    try:
        made = ask(backend).pictures[0].drawn
        assert made is not None
        return made
    finally:
        backend.close()


@pytest.mark.parametrize("text", ['{"steps": 0}', '{"sampler": "euler"}', "[]", "{", '{"guidance": "much"}'])
def test_advice_that_cannot_be_read_is_named(copy: Path, text: str) -> None:
    (copy / folder.ADVICE).write_text(text)
    with pytest.raises(RoostError, match=r"roost\.json"):
        folder.look(copy)
