"""The judge's eyes: a small network that names object and colour of what a picture shows.

It is trained on drawings only, of seeds that no other stage uses and of all combinations, and never sees a generated
picture before it judges. `python -m workers.diffusion.doodler.classifier --out FILE` trains it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as f

from workers.diffusion.doodler import data
from workers.diffusion.doodler.distortion import distorted
from workers.diffusion.doodler.render import rendered
from workers.diffusion.doodler.scene import any_scene

SIDE = 96
HEADS = ("object", "colour", "object2", "colour2")
FILE = Path(__file__).with_name("judge.safetensors")
TRAIN_SEED, TEST_SEED = 10**12, 2 * 10**12


@dataclass(frozen=True)
class Part:
    """A part of the training: steps, the highest learning rate, and the degree of distortion."""

    steps: int
    lr: float
    distortion: float


PARTS = (Part(6000, 3e-3, 1.0), Part(2000, 1e-3, 1.6))
BATCH = 64


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Classifier(nn.Module):
    """Pictures of SIDE pixels, values from -1 to 1, to logits of each head of HEADS (left or upper thing first)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(3, 32), _block(32, 64), _block(64, 96), nn.Conv2d(96, 96, 3, 1, 1), nn.ReLU(), _block(96, 128),
            nn.Conv2d(128, 40, 1), nn.ReLU(), nn.Flatten(), nn.Linear(40 * 36, 96), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({h: nn.Linear(96, len(data.HEADS[h])) for h in HEADS})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.body(x)
        return {name: head(found) for name, head in self.heads.items()}


def prepared(pictures: Tensor) -> Tensor:
    """(n, side, side, 3) bytes as the network takes them."""
    x = pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return f.interpolate(x, size=(SIDE, SIDE), mode="area")


@torch.no_grad()
def seen(model: Classifier, pictures: Tensor) -> list[list[tuple[str, str]]]:
    """What each picture shows, as (object, colour) of one or two things."""
    return _named(model, prepared(pictures))


def _named(model: Classifier, x: Tensor) -> list[list[tuple[str, str]]]:
    answers = {h: v.argmax(1).tolist() for h, v in model.eval()(x).items()}
    found = []
    for a, b, c, d in zip(*(answers[h] for h in HEADS), strict=True):
        things = [(data.HEADS["object"][a], data.HEADS["colour"][b])]
        if c and d:
            things.append((data.HEADS["object2"][c], data.HEADS["colour2"][d]))
        found.append(things)
    return found


def train(count: int = 30_000, seed: int = 0, parts: Sequence[Part] = PARTS) -> Classifier:
    torch.manual_seed(seed)
    seeds = [TRAIN_SEED + seed * count + i for i in range(count)]
    pictures = torch.from_numpy(rendered(seeds, SIDE, any_scene))
    truth = torch.tensor([data.labels(any_scene(s)) for s in seeds])
    columns = [list(data.HEADS).index(h) for h in HEADS]
    model = Classifier()
    for part in parts:
        _train(model, part, pictures, truth[:, columns])
    model.eval()
    return model


def _train(model: Classifier, part: Part, pictures: Tensor, truth: Tensor) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=part.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, part.lr, total_steps=part.steps)
    for step in range(part.steps):
        rows = torch.randint(len(pictures), (BATCH,))
        said = model(distorted(prepared(pictures[rows]), part.distortion)).values()
        loss = torch.stack([f.cross_entropy(v, truth[rows, i]) for i, v in enumerate(said)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"distortion {part.distortion}: step {step} of {part.steps}, loss {float(loss):.3f}", flush=True)


@torch.no_grad()
def accuracy(model: Classifier, count: int = 2000) -> tuple[float, float]:
    """Shares of fresh drawings of any combination in which the main object and colour are found: clean and distorted.

    They are drawn with 192 pixels a side, and distorted in parts of 20, as training distorts them.
    """
    seeds = [TEST_SEED + i for i in range(count)]
    wanted = [(s.things[0].object, s.things[0].colour) for s in map(any_scene, seeds)]
    clean = prepared(torch.from_numpy(rendered(seeds, 192, any_scene)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        imperfect = torch.cat([distorted(part) for part in clean.split(20)])
    shares = []
    for x in (clean, imperfect):
        found = [things for part in x.split(100) for things in _named(model, part)]
        shares.append(float(np.mean([pair in things for pair, things in zip(wanted, found, strict=True)])))
    return shares[0], shares[1]


def load(path: Path = FILE) -> Classifier:
    model = Classifier()
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    model.eval()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model = train()
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(half, arguments.out)
    clean, imperfect = accuracy(load(arguments.out))
    print(f"object and colour right on fresh drawings: {clean:.4f}; on distorted ones: {imperfect:.4f}")


if __name__ == "__main__":
    main()
