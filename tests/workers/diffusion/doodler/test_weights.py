"""The weights of the starter image model, and of its judge, as they are in the repository."""

import socket
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="drawing needs the extra diffusion")

import msgspec
import numpy as np
import torch

from schemas.model import GoldenAnswer
from schemas.release import Release
from tests.workers.diffusion.asked import loaded, serve
from updater.golden import judge as judged
from workers.diffusion.doodler import classifier, judge, pipeline
from workers.diffusion.doodler.scene import HELD_OUT
from workers.host.golden import job_of
from workers.host.palette import palette

WEIGHTS = Path(judge.__file__).with_name("weights")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_question_is_of_a_held_out_pair_and_half_are_chinese() -> None:
    asked = judge.questions(64)
    assert all(q.pair in HELD_OUT for q in asked)
    assert sum(q.language == "zh" for q in asked) == 32
    assert not any(q.pair in HELD_OUT for q in judge.questions(64, held_out=False))
    assert judge.questions(7, skip=57) == asked[57:]


def test_the_judge_knows_fresh_drawings() -> None:
    pytest.importorskip("resvg_py", reason="drawing needs resvg-py (pip install resvg-py)")
    clean, imperfect = classifier.accuracy(classifier.load(), 200)
    assert clean >= 0.98
    assert imperfect >= 0.96, "a dent or a blur makes no other thing of a thing"
    assert classifier.FILE.stat().st_size <= 1_000_000


def test_the_judge_says_no_to_another_colour() -> None:
    pytest.importorskip("resvg_py", reason="drawing needs resvg-py (pip install resvg-py)")
    from workers.diffusion.doodler.draw import pixels
    from workers.diffusion.doodler.scene import Scene, Thing

    picture = pixels(Scene((Thing("boat", "red", 0.5, 0.5, 0.3),), "sky", "one"))[None].copy()
    for pair, right in ((("boat", "red"), 1.0), (("boat", "green"), 0.0), (("car", "red"), 0.0)):
        assert judge.verdict([judge.Question("", "en", pair)], picture)["pair"] == right


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("no_network")
def test_the_committed_weights_draw_what_they_were_never_trained_on() -> None:
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*")) <= 25 * 2**20
    torch.manual_seed(0)
    asked = judge.questions(8)
    model = pipeline.read(WEIGHTS)
    pictures = judge.drawn(model, asked, judge.STEPS, judge.GUIDANCE)
    assert pictures.shape == (8, 512, 512, 3)
    assert judge.verdict(asked, pictures)["pair"] >= 0.5, "by chance it would be one of 220"
    alone = judge.drawn(model, asked[5:6], judge.STEPS, judge.GUIDANCE, first=5)
    assert np.abs(alone.astype(int) - pictures[5:6]).mean() < 1, "the same picture, judged with others or alone"


def test_the_committed_weights_pass_the_golden_prompts_of_their_release() -> None:
    release = msgspec.json.decode((WEIGHTS / "RELEASE.json").read_bytes(), type=Release)
    backend = loaded(WEIGHTS, resolution="512x512", steps=None, threads=None)
    try:
        done = serve(backend, *(job_of(golden, f"golden-{i}") for i, golden in enumerate(release.goldens)))
    finally:
        backend.close()
    pictures = [done[f"golden-{i}"].finished.pictures[0].data for i in range(len(release.goldens))]
    assert len(pictures) >= 3
    assert judged(release.goldens, [GoldenAnswer(palette=palette(data)) for data in pictures]) == ""
