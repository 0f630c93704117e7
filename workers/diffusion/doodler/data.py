"""The training set on disk: pictures of 64 pixels, token ids of several captions each, what each caption says, and
what stands where.

Always holds: the same seed and count give the same set; the folder appears whole or not at all.
"""

import os
import random
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import CLIPTokenizer

from workers.diffusion.doodler import tokens
from workers.diffusion.doodler.caption import caption
from workers.diffusion.doodler.draw import Pixels
from workers.diffusion.doodler.render import rendered
from workers.diffusion.doodler.scene import Scene, training_scene, unnamed_scene
from workers.diffusion.doodler.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, POSITIONS, RELATIONS, SIZES

SIDE = 64
CELLS = 16
CAPTIONS = 6
SEEDS = 10_000_000
"""Scenes of one run have the seeds from its own seed times this."""
HEADS: dict[str, list[str]] = {
    "object": list(OBJECTS), "colour": list(COLOURS), "object2": ["", *OBJECTS], "colour2": ["", *COLOURS],
    "count": ["1", "2", "3"], "size": ["", *SIZES], "position": ["", *POSITIONS], "relation": ["", *RELATIONS],
    "background": list(BACKGROUNDS),
}  # fmt: skip
"""What the text encoder learns to say of a caption."""
UNNAMED = 255
"""The index of a colour that has no name: nothing is to be said of it."""


def index(head: str, word: str) -> int:
    return HEADS[head].index(word) if word in HEADS[head] else UNNAMED


def labels(scene: Scene) -> list[int]:
    """The scene as one index per head. Of two things, "object" is the left or upper one and "object2" the other."""
    things = list(scene.things) if scene.layout == "pair" else [scene.things[0]]
    relation = scene.relation
    if relation in ("under", "right"):
        things.reverse()
        relation = {"under": "above", "right": "left"}[relation]
    second = things[1] if len(things) > 1 else None
    said = (
        things[0].object, things[0].colour, second.object if second else "", second.colour if second else "",
        str(len(scene.things) if scene.layout == "count" else 1), scene.size, scene.position, relation,
        scene.background,
    )  # fmt: skip
    return [index(head, word) for head, word in zip(HEADS, said, strict=True)]


def places(scene: Scene, picture: Pixels) -> NDArray[np.uint8]:
    """What each cell of a picture shows, (2, CELLS, CELLS): object and colour, as indices of object2 and colour2."""
    width = len(picture) // CELLS
    drawn = (picture != picture[0, 0]).any(-1).reshape(CELLS, width, CELLS, width).any((1, 3))
    middle = (np.arange(CELLS) + 0.5) / CELLS
    away = [np.hypot(middle[None, :] - thing.x, middle[:, None] - thing.y) for thing in scene.things]
    nearest = np.argmin(away, axis=0)
    shown = [(index("object2", thing.object), index("colour2", thing.colour)) for thing in scene.things]
    return np.where(drawn, np.array(shown, dtype=np.uint8).T[:, nearest], 0).astype(np.uint8)


def make(folder: Path, tokenizer: CLIPTokenizer, count: int, unnamed: int, seed: int) -> None:
    """Write the set unless it is there: `count` training scenes, and behind them `unnamed` in any colours."""
    if folder.exists():
        return
    draft = folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    seeds = [seed * SEEDS + i for i in range(count + unnamed)]
    scenes = [training_scene(s) for s in seeds[:count]] + [unnamed_scene(s) for s in seeds[count:]]
    rng = random.Random(seed)
    texts = [caption(s, "zh" if k % 2 else "en", rng) for s in scenes for k in range(CAPTIONS)]
    found = np.array(tokens.ids(tokenizer, texts), dtype=np.int16).reshape(len(seeds), CAPTIONS, tokens.LENGTH)
    np.save(draft / "tokens.npy", found)
    np.save(draft / "labels.npy", np.array([labels(s) for s in scenes], dtype=np.int64))
    pictures = np.concatenate(
        [rendered(seeds[:count], SIDE)] + ([rendered(seeds[count:], SIDE, unnamed_scene)] if unnamed else [])
    )
    np.save(draft / "pictures.npy", pictures)
    np.save(draft / "places.npy", np.stack([places(s, p) for s, p in zip(scenes, pictures, strict=True)]))
    os.replace(draft, folder)
