"""The recorded graph of a small model draws what the model draws, whatever it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tools import pipelines
from tests.workers.diffusion.asked import ask, loaded, picture
from workers.diffusion import graph
from workers.diffusion.painter import GivenUp


class Caller:
    """A tiny UNet, with and without its graph; `looks` counts how often its parts were called from Python."""

    def __init__(self, folder: Path) -> None:
        import diffusers
        import torch

        self.unet: Any = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True)
        self.looks = 0
        self.give_up = False
        self.unet.mid_block.register_forward_pre_hook(self._look)
        self.plain = self.unet.forward
        self.text = torch.randn(4, 77, 32, generator=torch.Generator().manual_seed(0))

    def _look(self, *_: Any) -> None:
        self.looks += 1
        if self.give_up:
            raise GivenUp

    def difference(self, rows: int, height: int, width: int, **others: Any) -> float:
        import torch

        x = torch.randn(rows, 4, height, width, generator=torch.Generator().manual_seed(height))
        asked: dict[str, Any] = {"encoder_hidden_states": self.text[:rows], "return_dict": False, **others}
        with torch.inference_mode():
            got = self.unet(x, torch.tensor(321), **asked)[0]
            looks = self.looks
            wanted = self.plain(x, torch.tensor(321), **asked)[0]
            self.looks = looks
        return float((got - wanted).abs().max())


@pytest.fixture
def caller(tiny_pipeline: Path) -> Caller:
    pytest.importorskip("diffusers", reason="drawing needs the extra diffusion")
    made = Caller(tiny_pipeline)
    graph.hasten(made.unet)
    return made


def test_the_second_step_goes_through_the_graph_and_says_the_same(caller: Caller) -> None:
    assert caller.difference(2, 8, 8) == pytest.approx(0, abs=1e-5)
    before = caller.looks
    assert caller.difference(2, 8, 8) == pytest.approx(0, abs=1e-5)
    assert caller.looks == before


def test_other_sizes_and_numbers_of_pictures_are_right_with_the_same_graph(caller: Caller) -> None:
    for rows, height, width in ((2, 8, 8), (4, 8, 8), (1, 16, 8), (2, 9, 8), (2, 8, 8)) * 2:
        assert caller.difference(rows, height, width) == pytest.approx(0, abs=1e-5), (rows, height, width)


def test_a_call_with_more_than_the_graph_takes_is_computed_plainly(caller: Caller) -> None:
    caller.difference(2, 8, 8)
    before = caller.looks
    assert caller.difference(2, 8, 8, cross_attention_kwargs={"scale": 0.5}) == 0
    assert caller.looks == before + 1


def test_other_weights_are_taken_with_the_same_graph(caller: Caller, tmp_path: Path) -> None:
    caller.difference(2, 8, 8)
    other = Caller(pipelines.make(tmp_path / "other", seed=1))
    graph.hasten(other.unet)
    for _ in range(2):
        assert other.difference(2, 8, 8) == pytest.approx(0, abs=1e-5)
    assert other.looks == 1, "recorded once, for both"


def test_a_graph_that_says_anything_else_is_not_used() -> None:
    import torch

    class Odd(torch.nn.Module):
        """What a recording makes of a number of rows is a constant."""

        config = {"kind": "odd"}

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * self.weight * int(x.shape[0])

    odd = Odd()
    graph.hasten(odd)
    with torch.no_grad():
        for rows in (2, 3, 2, 3):
            assert odd(torch.ones(rows, 4)).unique().tolist() == [rows]
        before = odd.calls
        odd(torch.ones(2, 4))
        assert odd.calls == before
        odd(torch.ones(3, 4))
        assert odd.calls == before + 1


def test_work_that_is_given_up_while_the_graph_is_made_leaves_the_model_as_it_was(caller: Caller) -> None:
    caller.give_up = True
    with pytest.raises(GivenUp):
        caller.difference(2, 8, 8)
    caller.give_up = False
    assert caller.difference(2, 8, 8) == pytest.approx(0, abs=1e-5)


def test_large_models_and_others_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, tiny_pipeline: Path) -> None:
    made = Caller(tiny_pipeline)
    monkeypatch.setattr(graph, "PARAMETERS_MAX", 10)
    graph.hasten(made.unet)
    graph.hasten(None)
    assert made.unet.forward == made.plain


def test_a_picture_is_the_same_however_often_it_is_drawn(tiny_pipeline: Path) -> None:
    backend = loaded(tiny_pipeline)
    try:
        first, second = (picture(ask(backend, steps=2, size="64x72")) for _ in range(2))
        assert (first == second).all()
        assert abs(first - picture(ask(backend, steps=2, size="64x72", seed=6))).max() > 5
    finally:
        backend.close()
