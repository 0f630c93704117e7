"""The training set on disk: pictures of 64 pixels, token ids of several captions each, and what each caption says.

Always holds: the same seed and count give the same set; the folder appears whole or not at all.
"""

import os
import random
import shutil
from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer

from workers.diffusion.doodler import tokens
from workers.diffusion.doodler.caption import caption
from workers.diffusion.doodler.render import rendered
from workers.diffusion.doodler.scene import Scene, training_scene
from workers.diffusion.doodler.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, POSITIONS, RELATIONS, SIZES

SIDE = 64
CAPTIONS = 6
SEEDS = 10_000_000
"""Scenes of one run have the seeds from its own seed times this."""
HEADS: dict[str, list[str]] = {
    "object": list(OBJECTS), "colour": list(COLOURS), "object2": ["", *OBJECTS], "colour2": ["", *COLOURS],
    "count": ["1", "2", "3"], "size": ["", *SIZES], "position": ["", *POSITIONS], "relation": ["", *RELATIONS],
    "background": list(BACKGROUNDS),
}  # fmt: skip
"""What the text encoder learns to say of a caption."""


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
    return [HEADS[head].index(word) for head, word in zip(HEADS, said, strict=True)]


def make(folder: Path, tokenizer: CLIPTokenizer, count: int, seed: int) -> None:
    """Write the set unless it is there."""
    if folder.exists():
        return
    draft = folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    seeds = [seed * SEEDS + i for i in range(count)]
    scenes = [training_scene(s) for s in seeds]
    rng = random.Random(seed)
    texts = [caption(s, "zh" if k % 2 else "en", rng) for s in scenes for k in range(CAPTIONS)]
    found = np.array(tokens.ids(tokenizer, texts), dtype=np.int16).reshape(count, CAPTIONS, tokens.LENGTH)
    np.save(draft / "tokens.npy", found)
    np.save(draft / "labels.npy", np.array([labels(s) for s in scenes], dtype=np.int64))
    np.save(draft / "pictures.npy", rendered(seeds, SIDE))
    os.replace(draft, folder)
