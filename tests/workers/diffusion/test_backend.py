"""The diffusion backend on a small random pipeline: what it draws, and what it makes of each wish."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.config import AdapterConfig
from schemas.errors import Rejected
from tests.tools import pipelines
from tests.workers.diffusion.asked import ask, job, loaded, picture, png, serve
from workers.diffusion import DiffusionBackend


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> tuple[AdapterConfig, ...]:
    path = pipelines.adapter(tmp_path_factory.mktemp("adapter"), scale=3.0)
    return (AdapterConfig(path=str(path), name="ink"),)


@pytest.fixture(scope="module")
def backend(tiny_pipeline: Path, adapters: tuple[AdapterConfig, ...]) -> Iterator[DiffusionBackend]:
    made = loaded(tiny_pipeline, adapters=adapters)
    made.release = "starter-1"
    yield made
    made.close()


# -- what it draws --------------------------------------------------------------------------------------------


def test_a_picture_is_a_png_of_the_size_that_says_how_it_was_made(backend: DiffusionBackend) -> None:
    finished = ask(
        backend, text="a red boat under a yellow sun", size="72x64", steps=2, guidance=3.5, negative="blurry"
    )
    assert (finished.finish, finished.error, finished.notes) == ("stop", None, ())
    assert finished.usage.prompt_tokens > 10
    assert finished.usage.completion_tokens == 0
    (made,) = finished.pictures
    assert made.media_type == "image/png"
    with Image.open(io.BytesIO(made.data)) as opened:
        assert (opened.format, opened.size, opened.mode) == ("PNG", (72, 64), "RGB")
        assert opened.text["prompt"] == made.drawn.prompt == "a red boat under a yellow sun"  # type: ignore[attr-defined]
        assert opened.text["model"] == f"starter-1+{backend.version}"  # type: ignore[attr-defined]
    drawn = made.drawn
    assert (drawn.seed, drawn.width, drawn.height, drawn.steps) == (5, 72, 64, 2)
    assert (drawn.guidance, drawn.negative, drawn.scheduler) == (3.5, "blurry", "ddim")
    assert picture(finished).std() > 3


def test_what_it_draws_is_what_diffusers_draws(backend: DiffusionBackend, tiny_pipeline: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(tiny_pipeline, local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    made = plain("a red boat", height=64, width=64, num_inference_steps=3, generator=torch.Generator().manual_seed(5))
    ours = picture(ask(backend))
    assert abs(ours - np.asarray(made.images[0]).astype(int)).max() <= 2


def test_the_seed_alone_decides_and_n_counts_it_up(backend: DiffusionBackend) -> None:
    first, other = picture(ask(backend, seed=1)), picture(ask(backend, seed=2))
    assert abs(first - other).max() > 20
    both = ask(backend, seed=1, n=2)
    assert [each.drawn.seed for each in both.pictures] == [1, 2]
    assert abs(picture(both, 0) - first).max() <= 1
    assert abs(picture(both, 1) - other).max() <= 1
    last = ask(backend, seed=2**32 - 1, n=2)
    assert [each.drawn.seed for each in last.pictures] == [2**32 - 1, 0]


def test_a_picture_does_not_depend_on_what_is_drawn_with_it(backend: DiffusionBackend) -> None:
    wishes = [("a", "a red boat", 1), ("b", "two blue houses, snow", 9), ("c", "三只鸡", 4)]
    alone = {r: picture(ask(backend, text=text, seed=seed)) for r, text, seed in wishes}
    together = serve(backend, *(job(r, text, seed=seed) for r, text, seed in wishes))
    for request, expected in alone.items():
        assert abs(picture(together[request].finished) - expected).max() <= 1
    assert abs(alone["a"] - alone["b"]).max() > 20


def test_more_pictures_than_fit_take_rounds_and_progress_counts_on(tiny_pipeline: Path) -> None:
    backend = loaded(tiny_pipeline, batch=2)
    try:
        told = serve(backend, job(n=5))["r"]
        steps = [each.step for each in told.progress]
        assert steps == sorted(set(steps))
        assert steps[-1] <= told.progress[-1].steps == 9
        assert [each.drawn.seed for each in told.finished.pictures] == [5, 6, 7, 8, 9]
    finally:
        backend.close()


def test_each_step_is_told_with_a_small_preview(backend: DiffusionBackend) -> None:
    told = serve(backend, job(steps=4, size="96x64"))["r"]
    assert [(each.step, each.steps) for each in told.progress] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for each in told.progress:
        assert len(each.preview) <= 8_000
        with Image.open(io.BytesIO(each.preview)) as opened:
            assert (opened.format, opened.size) == ("JPEG", (96, 64))


# -- wishes ---------------------------------------------------------------------------------------------------


def test_guidance_and_the_negative_prompt_change_the_picture(backend: DiffusionBackend) -> None:
    plain = picture(ask(backend, guidance=7.5))
    assert abs(plain - picture(ask(backend, guidance=1.0))).max() > 5
    assert abs(plain - picture(ask(backend, guidance=7.5, negative="blurry, grey"))).max() > 5


@pytest.mark.parametrize(
    "name", ["ddim", "ddpm", "pndm", "euler", "euler_a", "heun", "dpm2", "dpm++", "deis", "unipc", "lcm", "tcd"]
)
def test_schedulers_have_short_names(backend: DiffusionBackend, name: str) -> None:
    finished = ask(backend, scheduler=name, steps=4)
    assert finished.error is None
    assert finished.pictures[0].drawn.scheduler == name
    again = ask(backend, scheduler=name, steps=4)
    assert abs(picture(finished) - picture(again)).max() == 0, "a scheduler keeps something of the round before"


def test_a_picture_to_start_from_shows_through(backend: DiffusionBackend) -> None:
    red, blue = png(colour="red"), png(colour="blue")
    little = picture(ask(backend, files=(red,), strength=0.34))
    assert abs(little - picture(ask(backend, files=(blue,), strength=0.34))).mean() > 1
    finished = ask(backend, files=(red,), strength=0.9)
    assert finished.pictures[0].drawn.strength == 0.9
    both = serve(backend, job("a", files=(red,), strength=0.34), job("b", files=(blue,), strength=0.34))
    assert abs(picture(both["a"].finished) - little).max() <= 1


def test_an_adapter_is_on_only_where_it_is_asked_for(backend: DiffusionBackend) -> None:
    before = picture(ask(backend))
    inked = picture(ask(backend, adapter="ink"))
    assert abs(inked - before).max() > 5
    assert abs(picture(ask(backend)) - before).max() == 0
    told = serve(backend, job("with", adapter="ink"), job("without"))
    assert abs(picture(told["with"].finished) - inked).max() <= 1
    assert abs(picture(told["without"].finished) - before).max() <= 1
    assert told["with"].finished.pictures[0].drawn.adapter == "ink"


def test_a_prompt_that_is_too_long_is_cut_and_said(backend: DiffusionBackend) -> None:
    words = " ".join(f"word{i}" for i in range(60))
    finished = ask(backend, text=words)
    (note,) = finished.notes
    assert finished.usage.prompt_tokens == 77
    assert "this model reads 77: it read up to “…" in note
    kept = note.partition("“…")[2].rstrip("”")
    assert words.index(kept) > 0
    end = words.index(kept) + len(kept)
    assert abs(picture(finished) - picture(ask(backend, text=words[:end]))).max() <= 1
    assert ask(backend, text=words[:end]).notes == ()


# -- what is refused ------------------------------------------------------------------------------------------

BAD = [
    ({"text": ""}, "text", "empty"),
    ({"text": " \n\t"}, "text", "empty"),
    ({"text": "x" * 30_000}, "text", "too_large"),
    ({"negative": "x" * 30_000}, "negative", "too_large"),
    ({"size": "100x100"}, "size", "bad_value"),
    ({"size": "64x65"}, "size", "bad_value"),
    ({"size": "big"}, "size", "bad_value"),
    ({"size": "0x64"}, "size", "bad_value"),
    ({"size": "4096x64"}, "size", "too_large"),
    ({"size": "104x104"}, "size", "too_large"),
    ({"size": "99999x99999"}, "size", "bad_value"),
    ({"steps": 0}, "steps", "bad_value"),
    ({"steps": -3}, "steps", "bad_value"),
    ({"steps": 10_000}, "steps", "bad_value"),
    ({"guidance": -1.0}, "guidance", "bad_value"),
    ({"guidance": float("nan")}, "guidance", "bad_value"),
    ({"guidance": 1e30}, "guidance", "bad_value"),
    ({"scheduler": "magic"}, "scheduler", "bad_value"),
    ({"scheduler": "flow_euler"}, "scheduler", "bad_value"),
    ({"strength": 0.5}, "strength", "bad_value"),
    ({"strength": 1.5, "files": (png(),)}, "strength", "bad_value"),
    ({"strength": 0.1, "files": (png(),)}, "strength", "bad_value"),
    ({"files": (b"no picture",)}, "attachments[0]", "bad_picture"),
    ({"files": (png(), png())}, "attachments", "bad_value"),
    ({"adapter": "oil"}, "adapter", "unknown_adapter"),
    ({"n": 0}, "n", "bad_value"),
    ({"n": 10_000}, "n", "bad_value"),
    ({"kind": "chat"}, "kind", "unsupported"),
]


@pytest.mark.parametrize(("wish", "field", "code"), BAD, ids=[f"{b[1]}-{str(b[0])[:30]}" for b in BAD])
def test_what_cannot_be_drawn_is_refused_by_its_field_and_the_neighbour_is_served(
    backend: DiffusionBackend, wish: dict[str, object], field: str, code: str
) -> None:
    told = serve(backend, job("bad", **wish), job("good", steps=1))  # type: ignore[arg-type]
    error = told["bad"].finished.error
    assert isinstance(error, Rejected)
    assert error.message.startswith(f"{field}: "), error.message
    assert error.code == code
    assert len(told["good"].finished.pictures) == 1


def test_odd_but_good_wishes_are_drawn(backend: DiffusionBackend) -> None:
    for wish in (
        {"text": "\0\x1b[2J"},
        {"text": "\ud800 half"},
        {"guidance": 0.0},
        {"size": "16x64"},
        {"size": "64x16"},
    ):
        assert ask(backend, steps=1, **wish).pictures


# -- ends -----------------------------------------------------------------------------------------------------


def test_a_cancelled_request_ends_at_once_and_its_neighbour_is_drawn(backend: DiffusionBackend) -> None:
    alone = picture(ask(backend, text="a", steps=6))
    leaving = job("b", steps=6)

    def leave(number: int) -> None:
        if number == 2:
            backend.cancel("b")

    told = serve(backend, job("a", text="a", steps=6), leaving, then=leave)
    assert told["b"].finished.finish == "cancelled"
    assert not told["b"].finished.pictures
    assert abs(picture(told["a"].finished) - alone).max() <= 1


def test_a_round_that_nobody_waits_for_is_left(backend: DiffusionBackend) -> None:
    told = serve(backend, job(steps=150), then=lambda number: backend.cancel("r") if number == 3 else None)
    assert told["r"].finished.finish == "cancelled"
    assert len(told["r"].progress) < 20
    assert ask(backend, steps=1).pictures


def test_the_jobs_own_event_cancels_it_too(backend: DiffusionBackend) -> None:
    import threading

    event = threading.Event()
    told = serve(backend, job(steps=150, cancelled=event), then=lambda n: event.set() if n == 3 else None)
    assert told["r"].finished.finish == "cancelled"
