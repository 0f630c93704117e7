"""Muon: what it trains, what an update is, and that several processes share the work."""

from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="training needs the extra diffusion")

import torch
from torch import nn

from workers.diffusion.doodler.loop import Stage, together, train
from workers.diffusion.doodler.muon import SIDE_MIN, Muon, inside, orthogonal


class Net(nn.Module):
    """Layers of every kind: only two of them are inner ones."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(64, 64)
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.deep = nn.Conv2d(64, 64, 3, padding=1)
        self.norm = nn.GroupNorm(8, 64)
        self.wide = nn.Linear(64, 96)
        self.last = nn.Linear(96, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(self.wide(self.norm(self.deep(self.first(x))).mean(dim=(2, 3))))
        return found


@pytest.mark.parametrize("shape", [(64, 128), (48, 500), (500, 48)])
def test_all_singular_values_of_an_update_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.3
    assert float(torch.linalg.svdvals(matrix).max() / torch.linalg.svdvals(matrix).min()) > 1.5


def test_it_trains_the_inner_layers_and_no_others() -> None:
    net = Net()
    assert [p.shape for p in inside(net)] == [net.deep.weight.shape, net.wide.weight.shape]
    net.deep.weight.requires_grad_(False)
    assert len(inside(net)) == 1
    assert SIDE_MIN <= 64


def test_an_update_is_as_large_as_its_learning_rate_says_whatever_the_gradient() -> None:
    net = Net()
    for scale in (1e-6, 1e3):
        before = net.wide.weight.detach().clone()
        optimizer = Muon([net.wide.weight], lr=0.1, weight_decay=0)
        net.wide.weight.grad = scale * torch.randn(96, 64, generator=torch.Generator().manual_seed(1))
        optimizer.step()
        assert float((net.wide.weight.detach() - before).square().mean().sqrt()) == pytest.approx(0.02, rel=0.25)


class Loss:
    def __init__(self, net: Net) -> None:
        self.net = net

    def __call__(self, rng: torch.Generator, done: float) -> dict[str, torch.Tensor]:
        x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(7))  # the same for every process
        return {"error": (self.net(x) - torch.arange(5.0)).square().mean()}


def stage(steps: int) -> Stage:
    return Stage("net", steps, 1e9, 1e-3, 4, muon_lr=1e-2)


def job(rank: int, world: int, folder: Path, steps: int) -> None:
    torch.manual_seed(3)
    net = Net()
    train(rank, world, stage(steps), net, Loss(net), folder)


def trained(folder: Path, world: int, *steps: int) -> dict[str, torch.Tensor]:
    for limit in steps:
        together(job, folder, world, folder, limit)
    weights: dict[str, torch.Tensor] = torch.load(folder / "net.pt", weights_only=True)["module"]
    return weights


@pytest.mark.timeout(120)
def test_two_processes_come_to_what_one_comes_to(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (trained(folder, world, 6) for world, folder in enumerate(folders, 1))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)
    torch.manual_seed(3)
    assert float((one["deep.weight"] - Net().state_dict()["deep.weight"]).abs().mean()) > 1e-4


def test_a_run_goes_on_with_its_momentum(tmp_path: Path) -> None:
    trained(tmp_path, 1, 3)
    saved = torch.load(tmp_path / "net.pt", weights_only=True)
    adam, muon = saved["optimizers"]
    assert len(muon["state"]) == 2
    assert all(float(s["momentum"].abs().max()) > 0 for s in muon["state"].values())
    assert len(adam["state"]) > 2
    job(0, 1, tmp_path, 4)
    assert torch.load(tmp_path / "net.pt", weights_only=True)["step"] == 4
