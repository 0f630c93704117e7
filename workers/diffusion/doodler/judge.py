"""`python -m workers.diffusion.doodler.judge FOLDER`: does the model draw combinations that it was never trained on?

Every picture is made by the plain StableDiffusionPipeline at 512 x 512 from a caption of a held-out pair (object,
colour), half of them English and half Chinese. A picture is right when the classifier finds that object in that colour.
"""

import argparse
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workers.diffusion.doodler import card, classifier, pipeline
from workers.diffusion.doodler.caption import caption
from workers.diffusion.doodler.scene import Scene, held_out_scene, training_scene
from workers.diffusion.doodler.sheet import sheet
from workers.diffusion.doodler.vocabulary import COLOURS, OBJECTS

STEPS, GUIDANCE = 20, 3.0
SEED = 7 * 10**12


@dataclass(frozen=True)
class Question:
    """One caption, and the pair that the picture must show."""

    text: str
    language: str
    pair: tuple[str, str]


def questions(count: int, held_out: bool = True, skip: int = 0) -> list[Question]:
    """Captions that name object and colour, without the first `skip`; English and Chinese in turn."""
    found: list[Question] = []
    seed = SEED
    while len(found) < skip + count:
        seed += 1
        rng = random.Random(seed)
        scene = (held_out_scene if held_out else training_scene)(seed)
        language = ("en", "zh")[len(found) % 2]
        text = caption(scene, language, rng)
        if _named(scene, text, language):
            found.append(Question(text, language, (scene.things[0].object, scene.things[0].colour)))
    return found[skip:]


def _named(scene: Scene, text: str, language: str) -> bool:
    """Whether the caption says the main object's colour (a few leave it out)."""
    colour = COLOURS[scene.things[0].colour]
    nouns = OBJECTS[scene.things[0].object]
    text = text.lower()
    if language == "en":
        return any(c in text for c in colour.english) and any(n in text for pair in nouns.english for n in pair)
    return any(c in text for c in colour.chinese) and any(n in text for n in nouns.chinese)


def drawn(
    model: Any, asked: list[Question], steps: int, guidance: float, first: int = 0, batch: int = 4
) -> NDArray[np.uint8]:
    """The pictures, (n, 512, 512, 3) bytes; picture i has seed `first` + i."""
    made = []
    for at in range(0, len(asked), batch):
        some = asked[at : at + batch]
        seeds = [torch.Generator().manual_seed(first + at + i) for i in range(len(some))]
        out = model([q.text for q in some], num_inference_steps=steps, guidance_scale=guidance, generator=seeds)
        made += [np.asarray(image) for image in out.images]
    return np.stack(made)


def verdict(asked: list[Question], pictures: NDArray[np.uint8]) -> dict[str, float]:
    """Shares of pictures with the pair, the object, the colour; and with the pair per language."""
    model = classifier.load()
    found = [t for part in torch.from_numpy(pictures).split(16) for t in classifier.seen(model, part)]
    right: Counter[str] = Counter()
    for q, things in zip(asked, found, strict=True):
        right["pair"] += q.pair in things
        right["object"] += q.pair[0] in [t[0] for t in things]
        right["colour"] += q.pair[1] in [t[1] for t in things]
        right[q.language] += q.pair in things
    total = Counter(q.language for q in asked)
    shares = {name: right[name] / len(asked) for name in ("pair", "object", "colour")}
    return {k: round(v, 4) for k, v in (shares | {n: right[n] / total[n] for n in total}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--skip", type=int, default=0, help="leave out the first captions: to judge by untouched ones")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument(
        "--seen", action="store_true", help="ask for combinations of training: to choose steps and guidance"
    )
    parser.add_argument("--sheet", type=Path, help="write the first 64 pictures with their captions to this PNG")
    parser.add_argument("--publish", type=Path, help="copy the judged folder here, with its card and training log")
    arguments = parser.parse_args()
    if arguments.count < 1 or arguments.skip < 0:
        parser.error("--count is at least 1 and --skip at least 0")
    if arguments.publish and arguments.seen:
        parser.error("--publish tells of combinations that were never in training: leave --seen out")
    asked = questions(arguments.count, not arguments.seen, arguments.skip)
    pictures = drawn(pipeline.read(arguments.folder), asked, arguments.steps, arguments.guidance, arguments.skip)
    clean, imperfect = classifier.accuracy(classifier.load())
    facts: dict[str, float | int] = {
        "count": len(asked), "skip": arguments.skip, "steps": arguments.steps, "guidance": arguments.guidance,
        "held_out": not arguments.seen, "eyes_clean": round(clean, 4), "eyes_distorted": round(imperfect, 4),
    }  # fmt: skip
    facts |= verdict(asked, pictures)
    print(json.dumps(facts))
    if arguments.sheet:
        sheet([q.text for q in asked[:64]], pictures[:64], arguments.sheet)
    if arguments.publish:
        card.publish(arguments.folder, arguments.publish, facts | {"objects": len(OBJECTS), "colours": len(COLOURS)})


if __name__ == "__main__":
    main()
