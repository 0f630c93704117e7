"""The model card, with the numbers that the judge measured, and the step that puts finished weights in their place."""

import os
import shutil
from pathlib import Path

import msgspec

from workers.diffusion.doodler import log
from workers.diffusion.folder import ADVICE, Advice

CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
language: [en, zh]
---

# Doodler

A small text-to-image model in the layout of Stable Diffusion, made by the Roost project from nothing, on drawings that
the project makes itself. It proves the path from a caption to a picture. It is not a general image model: it knows
{objects} objects in {colours} colours on plain grounds, one to three of them, in English and Chinese. Other words do
nothing useful.

Licence: Apache-2.0. No picture, text or weight of others went into it.

Measured on {count} captions of combinations of object and colour that were never in training, at 512 x 512 with
{steps} steps and guidance {guidance:g}, by a classifier that was trained on drawings only and is right on
{eyes_clean:.2%} of fresh drawings and {eyes_distorted:.2%} of fresh drawings that were bent, blurred and blotched:

| object and colour right | object | colour | English | Chinese |
|---|---|---|---|---|
| {pair:.1%} | {object:.1%} | {colour:.1%} | {en:.1%} | {zh:.1%} |

Made by `python -m workers.diffusion.doodler.train`, judged by `python -m workers.diffusion.doodler.judge`; see
`docs/components/doodler.md` of the project.
"""


def publish(folder: Path, place: Path, facts: dict[str, float | int]) -> None:
    """Copy a judged pipeline to `place` with its card, whole or not at all; its training log comes along, if found."""
    draft = place.with_name(place.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(folder, draft)
    advice = Advice(steps=int(facts["steps"]), guidance=float(facts["guidance"]))
    (draft / ADVICE).write_bytes(msgspec.json.encode(advice) + b"\n")
    (draft / "README.md").write_text(CARD.format(**facts), encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    os.replace(draft, place)
    written = folder.parent / log.FILE
    if written.exists():
        shutil.copyfile(written, place.parent / log.FILE)
