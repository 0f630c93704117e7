"""The judge's eyes: a small network that names object and colour of what a picture shows.

It is trained on drawings only, of seeds that no other stage uses and of all combinations, and never sees a generated
picture before it judges. `python -m workers.diffusion.doodler.classifier --out FILE` trains it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as f

from workers.diffusion.doodler import data
from workers.diffusion.doodler.render import rendered
from workers.diffusion.doodler.scene import any_scene

SIDE = 96
HEADS = ("object", "colour", "object2", "colour2")
FILE = Path(__file__).with_name("judge.safetensors")
TRAIN_SEED, TEST_SEED = 10**12, 2 * 10**12


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Classifier(nn.Module):
    """Pictures of SIDE pixels, values from -1 to 1, to logits of each head of HEADS (left or upper thing first)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(3, 24), _block(24, 48), _block(48, 80), nn.Conv2d(80, 80, 3, 1, 1), nn.ReLU(), _block(80, 96),
            nn.Conv2d(96, 40, 1), nn.ReLU(), nn.Flatten(), nn.Linear(40 * 36, 96), nn.ReLU(),
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
    answers = {h: v.argmax(1).tolist() for h, v in model.eval()(prepared(pictures)).items()}
    found = []
    for a, b, c, d in zip(*(answers[h] for h in HEADS), strict=True):
        things = [(data.HEADS["object"][a], data.HEADS["colour"][b])]
        if c and d:
            things.append((data.HEADS["object2"][c], data.HEADS["colour2"][d]))
        found.append(things)
    return found


def train(steps: int = 4000, count: int = 20_000, batch: int = 64, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    seeds = [TRAIN_SEED + seed * count + i for i in range(count)]
    pictures = torch.from_numpy(rendered(seeds, SIDE, any_scene))
    truth = torch.tensor([data.labels(any_scene(s)) for s in seeds])
    columns = [list(data.HEADS).index(h) for h in HEADS]
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(seeds), (batch,))
        x = _disturbed(prepared(pictures[rows]))
        loss = sum(
            (f.cross_entropy(v, truth[rows, column]) for v, column in zip(model(x).values(), columns, strict=True)),
            torch.zeros(()),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    return model


def _disturbed(x: Tensor) -> Tensor:
    """Slightly moved, noisy and faded pictures: generated ones are not as clean as drawn ones."""
    dx, dy = torch.randint(-4, 5, (2,)).tolist()
    x = f.pad(x, (4, 4, 4, 4), mode="replicate")[:, :, 4 + dy : 4 + dy + SIDE, 4 + dx : 4 + dx + SIDE]
    x = x * (1 + 0.06 * torch.randn(len(x), 1, 1, 1)) + 0.05 * torch.randn(len(x), 3, 1, 1)
    return x + 0.08 * torch.rand(len(x), 1, 1, 1) * torch.randn(x.shape)


def accuracy(model: Classifier, count: int = 2000) -> float:
    """Share of fresh drawings of 512 pixels' worth of any combination in which the main object and colour are found."""
    seeds = [TEST_SEED + i for i in range(count)]
    found = seen(model, torch.from_numpy(rendered(seeds, 192, any_scene)))
    scenes = [any_scene(s) for s in seeds]
    return float(np.mean([(s.things[0].object, s.things[0].colour) in t for s, t in zip(scenes, found, strict=True)]))


def load(path: Path = FILE) -> Classifier:
    model = Classifier()
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    model.eval()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--steps", type=int, default=4000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = train(arguments.steps)
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(half, arguments.out)
    print(f"object and colour right on fresh drawings: {accuracy(load(arguments.out)):.4f}")


if __name__ == "__main__":
    main()
