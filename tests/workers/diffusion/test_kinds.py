"""Pipelines of other kinds, by their model_index.json alone; and folders that look whole and are not."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from schemas.config import AdapterConfig
from schemas.errors import ConfigError, Rejected, Untrusted
from tests.tools import pipelines
from tests.workers.diffusion.asked import SMALL, ask, job, loaded, picture, png, serve
from workers.diffusion import DiffusionSettings, folder, loading, sizes
from workers.diffusion.painter import GivenUp
from workers.diffusion.pipeline import Pipeline, Stroke
from workers.diffusion.wishes import Key

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tiny_pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


@pytest.mark.parametrize(
    ("kind", "own", "starts"),
    [
        ("sdxl", "euler", True),
        ("flux", "flow_euler", True),
        ("chroma", "flow_euler", False),
        ("lcm", "lcm", True),
    ],
)
def test_other_pipelines_draw_too(kind: str, own: str, starts: bool, tmp_path: Path) -> None:
    backend = loaded(pipelines.make(tmp_path / kind, kind))
    try:
        told = serve(backend, job("a", seed=1), job("b", seed=2), job("c", seed=1))
        first, second, third = (picture(told[r].finished) for r in "abc")
        assert abs(first - second).max() > 5
        assert abs(first - third).max() <= 1
        assert told["a"].finished.pictures[0].drawn.scheduler == own
        assert all(progress.preview for progress in told["a"].progress)
        assert ("files" in backend.abilities) is starts
        finished = ask(backend, files=(png(),), strength=0.7)
        if starts:
            assert picture(finished).shape == (64, 64, 3)
        else:
            assert isinstance(finished.error, Rejected)
            assert finished.error.message.startswith("attachments: ")
        assert isinstance(ask(backend, size="72x64").error, Rejected) is (kind in ("flux", "chroma"))
    finally:
        backend.close()


def test_a_latent_consistency_model_does_all_steps_from_a_picture_too(tmp_path: Path) -> None:
    backend = loaded(pipelines.make(tmp_path / "lcm", "lcm"), steps=None)
    try:
        assert len(serve(backend, job())["r"].progress) == 4, "the pipeline's own number"
        red, blue = png(colour="red"), png(colour="blue")
        told = serve(backend, job(files=(red,), strength=0.1, steps=2))["r"]
        assert [(each.step, each.steps) for each in told.progress] == [(1, 2), (2, 2)]
        other = ask(backend, files=(blue,), strength=0.1, steps=2)
        assert abs(picture(told.finished) - picture(other)).mean() > 1
        assert ask(backend, files=(red,), strength=0.04, steps=2).pictures
        for strength, steps in ((0.039, 2), (0.1, 6), (0.0, 1)):
            error = ask(backend, files=(red,), strength=strength, steps=steps).error
            assert isinstance(error, Rejected)
            assert error.message.startswith(f"strength: {strength:g} leaves this model ")
        calm, eager = (picture(ask(backend, guidance=guidance)) for guidance in (1.0, 12.0))
        assert abs(calm - eager).max() > 0
    finally:
        backend.close()


def test_attention_in_slices_draws_the_same(tiny_pipeline: Path) -> None:
    settings = DiffusionSettings(**SMALL, previews=False)
    found = folder.look(tiny_pipeline)
    drawn, processors = [], []
    for limit in (None, 1):
        plan = sizes.plan(found, settings, precision_bytes=4, precision="float32", limit=limit)
        seen: set[str] = set()

        def look(module: Any, *_: object, seen: set[str] = seen) -> None:
            seen |= {type(part.processor).__name__ for part in module.modules() if hasattr(part, "processor")}

        made = Pipeline(found, tiny_pipeline, settings, plan, "float32", "cpu", look=look)
        strokes = [Stroke("a red boat", "", 1), Stroke("snow", "", 2)]
        key = Key(64, 64, 3, 7.5, False, "ddim", "", None)
        drawn.append(made.paint(key, strokes, lambda *_: None).pictures)
        processors.append(seen)
        made.close()
    whole, sliced = drawn
    assert processors[0].isdisjoint(processors[1] - {"AttnProcessor2_0"})
    assert "SlicedAttnProcessor" in processors[1]
    assert whole.std() > 0.01
    assert float((whole - sliced).abs().max()) < 1e-3


def test_half_precision_draws_nearly_the_same(tiny_pipeline: Path) -> None:
    drawn = {}
    for precision in ("float32", "bfloat16"):
        backend = loaded(tiny_pipeline, precision=precision)
        try:
            drawn[precision] = picture(ask(backend))
        finally:
            backend.close()
    assert 0 < abs(drawn["float32"] - drawn["bfloat16"]).mean() < 8


def test_a_small_decoder_in_the_folder_makes_the_previews(copy: Path) -> None:
    pipelines.small_decoder().save_pretrained(copy / "preview_decoder")
    backend = loaded(copy)
    try:
        told = serve(backend, job(size="96x64"))["r"]
        with Image.open(io.BytesIO(told.progress[-1].preview)) as opened:
            assert opened.size == (96, 64)
    finally:
        backend.close()


def test_the_small_decoder_lies_where_the_pictures_are_computed(copy: Path) -> None:
    pipelines.small_decoder().save_pretrained(copy / "preview_decoder")
    decoder = loading.preview_decoder(folder.look(copy), "float32", "meta")  # the one other device there is anywhere
    assert decoder is not None
    assert {weight.device.type for weight in decoder.parameters()} == {"meta"}


def test_values_that_are_no_numbers_are_an_error_and_never_a_black_picture(copy: Path) -> None:
    for name in (UNET, Path("vae") / "diffusion_pytorch_model.safetensors"):
        good = (copy / name).read_bytes()
        weights = load_file(copy / name)
        last = next(key for key in weights if key.endswith("conv_out.bias") and "encoder" not in key)
        weights[last].fill_(float("nan"))
        save_file(weights, copy / name)
        backend = loaded(copy)
        try:
            told = serve(backend, job("a"), job("b", n=2))
            for each in told.values():
                assert isinstance(each.finished.error, Rejected)
                assert each.finished.error.code == "no_picture"
                assert not each.finished.pictures
            assert isinstance(ask(backend, size="72x64").error, Rejected)
        finally:
            backend.close()
        (copy / name).write_bytes(good)


def test_weights_that_lack_tensors_are_refused_and_not_made_up(copy: Path) -> None:
    weights = load_file(copy / UNET)
    weights.pop("conv_out.weight")
    save_file(weights, copy / UNET)
    with pytest.raises(Untrusted, match=r"unet: its files hold \d+ of \d+ tensors; copy the whole folder again"):
        loaded(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    pipelines.edited(copy / "unet" / "config.json", block_out_channels=[8, 16])
    with pytest.raises(Untrusted, match="cannot be loaded as a StableDiffusionPipeline"):
        loaded(copy)


def test_pipelines_that_cannot_be_driven_are_refused(copy: Path) -> None:
    for kind in ("StableDiffusionUpscalePipeline", "DiffusionPipeline", "UNet2DModel", "Nonsense"):
        pipelines.edited(copy / "model_index.json", _class_name=kind)
        with pytest.raises(ConfigError, match=f"a {kind} is no pipeline from text to picture"):
            loaded(copy)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resolution": "100x64"}, "resolution: this model draws multiples of 8"),
        ({"resolution": "4096x64"}, "is above side_max"),
        ({"pixels_max": 64}, "is above pixels_max"),
        ({"steps": 500}, "steps: 500 is above steps_max"),
        ({"scheduler": "magic"}, "scheduler: this model has no 'magic'; it has: .*ddim"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_named(tiny_pipeline: Path, settings: dict, sentence: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=sentence):
        loaded(tiny_pipeline, **settings)


def test_adapters_that_do_not_fit_are_named(tiny_pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "lora.bin").write_bytes(b"x")
    (tmp_path / "half.safetensors").write_bytes(b"x")
    save_file(
        {"unet.no.such.lora_A.weight": load_file(tiny_pipeline / UNET)["conv_out.bias"]}, tmp_path / "odd.safetensors"
    )
    for name, kind, sentence in (
        ("lora.bin", Untrusted, "is a pickle"),
        ("missing.safetensors", ConfigError, "no such file"),
        ("half.safetensors", Untrusted, "is not a whole safetensors file"),
        ("odd.safetensors", Untrusted, "odd.safetensors"),
    ):
        with pytest.raises(kind, match=sentence):
            loaded(tiny_pipeline, adapters=(AdapterConfig(path=str(tmp_path / name)),))


def test_an_adapter_without_a_name_is_always_on(tiny_pipeline: Path, tmp_path: Path) -> None:
    path = pipelines.adapter(tmp_path, scale=3.0)
    drawn = []
    for adapters in ((), (AdapterConfig(path=str(path)),), (AdapterConfig(path=str(path), scale=0.0),)):
        backend = loaded(tiny_pipeline, adapters=adapters)
        try:
            drawn.append(picture(ask(backend)))
        finally:
            backend.close()
    plain, inked, nothing = drawn
    assert abs(plain - inked).max() > 5
    assert abs(plain - nothing).max() <= 1


def test_a_step_can_be_left_between_two_parts_of_the_model(tiny_pipeline: Path) -> None:
    settings = DiffusionSettings(**SMALL, previews=False)
    found = folder.look(tiny_pipeline)
    plan = sizes.plan(found, settings, precision_bytes=4, precision="float32")
    seen: list[str] = []

    def look(module: object, *_: object) -> None:
        seen.append(type(module).__name__)
        if "UpBlock" in type(module).__name__:
            raise GivenUp

    made = Pipeline(found, tiny_pipeline, settings, plan, "float32", "cpu", look=look)
    steps: list[int] = []
    with pytest.raises(GivenUp):
        made.paint(
            Key(64, 64, 2, 7.5, False, "ddim", "", None),
            [Stroke("a", "", 1)],
            lambda step, _steps, _values: steps.append(step),
        )
    made.close()
    assert steps == []
    assert {"CLIPEncoderLayer", "ResnetBlock2D", "Transformer2DModel"} <= set(seen)
