"""A scene: what is in one picture, and where. Pure: the same seed gives the same scene on every machine.

Always holds: no scene of `training_scene` has a pair (object, colour) of HELD_OUT in it, neither as its main object nor
beside it; every object and every colour is still seen in other pairs; every thing differs clearly from the background.

Things stand on a grid of GRID x GRID places, as icons do, and that grid is the one of the latents: to the denoiser the
same thing is then the same numbers, wherever it stands, and little of a short training is spent on telling them apart.
"""

import hashlib
import math
import random
from dataclasses import dataclass, replace

from workers.diffusion.doodler.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, POSITIONS, RELATIONS

HELD_OUT_SHARE = 0.15
GRID = 16
HALVES = {"small": 0.2, "medium": 0.26, "large": 0.37}
"""Half side of a thing that is alone. Those in a row of two or in a pair are small."""
LOOSE = 0.5 / GRID
CONTRAST_MIN = 70
"""Least distance of a thing's colour from the background, in RGB units."""

Pair = tuple[str, str]


def _held_out(pair: Pair) -> bool:
    digest = hashlib.sha256("/".join(pair).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


PAIRS: tuple[Pair, ...] = tuple((o, c) for o in OBJECTS for c in COLOURS)
HELD_OUT: frozenset[Pair] = frozenset(p for p in PAIRS if _held_out(p))
SEEN: tuple[Pair, ...] = tuple(p for p in PAIRS if p not in HELD_OUT)


@dataclass(frozen=True)
class Thing:
    """One drawn object: centre and half side, all in parts of the picture's side."""

    object: str
    colour: str
    x: float
    y: float
    half: float


@dataclass(frozen=True)
class Scene:
    """`things[0]` is the main object. `relation` is where it stands seen from `things[1]`, in a scene of a pair."""

    things: tuple[Thing, ...]
    background: str
    layout: str  # one | count | pair
    size: str = ""
    position: str = ""
    relation: str = ""


def clear(colour: str, background: str) -> bool:
    """Whether the colour stands out from the background."""
    a, b = COLOURS[colour].rgb, BACKGROUNDS[background].rgb
    return math.dist(a, b) >= CONTRAST_MIN


def training_scene(seed: int) -> Scene:
    """A scene without any held-out pair."""
    return scene(random.Random(seed), SEEN, SEEN)


def loose_scene(seed: int) -> Scene:
    """A training scene whose things are off the grid: for the autoencoder, which must know pictures of others, too."""
    rng, tidy = random.Random(-seed), training_scene(seed)
    dx, dy = (rng.uniform(-LOOSE, LOOSE) for _ in range(2))
    return replace(tidy, things=tuple(replace(t, x=t.x + dx, y=t.y + dy) for t in tidy.things))


def held_out_scene(seed: int) -> Scene:
    """A scene whose main object is of a held-out pair; the other one, where there is one, is of a pair of training."""
    return scene(random.Random(seed), sorted(HELD_OUT), SEEN)


def any_scene(seed: int) -> Scene:
    """A scene of any pairs: for the judge's own training only."""
    return scene(random.Random(seed), PAIRS, PAIRS)


def scene(rng: random.Random, main: tuple[Pair, ...] | list[Pair], other: tuple[Pair, ...]) -> Scene:
    first = rng.choice(main)
    layout = rng.choices(("one", "count", "pair"), (60, 12, 28))[0]
    second = rng.choice([p for p in other if p[0] != first[0] and p[1] != first[1]])
    colours = [first[1], second[1]] if layout == "pair" else [first[1]]
    grounds = [b for b in BACKGROUNDS if all(clear(c, b) for c in colours)]
    if not grounds:  # a pair of colours that no background sets off: draw the main one alone
        layout, grounds = "one", [b for b in BACKGROUNDS if clear(first[1], b)]
    background = rng.choice(grounds)
    if layout == "one":
        return _one(rng, first, background)
    if layout == "count":
        return _row(rng, first, background)
    return _pair(rng, first, second, background)


def _one(rng: random.Random, pair: Pair, background: str) -> Scene:
    size = rng.choices(("small", "medium", "large"), (25, 45, 30))[0]
    position = "centre" if size == "large" else rng.choices(tuple(POSITIONS), (44, 14, 14, 14, 14))[0]
    places = {"small": 4, "medium": 3, "large": 0}[size]
    dx, dy = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}.get(position, (0, 0))
    thing = Thing(*pair, 0.5 + dx * places / GRID, 0.5 + dy * places / GRID, HALVES[size])
    return Scene((thing,), background, "one", size, position)


def _row(rng: random.Random, pair: Pair, background: str) -> Scene:
    half, places = rng.choice(((HALVES["small"], (4, 12)), (0.14, (3, 8, 13))))
    return Scene(tuple(Thing(*pair, x / GRID, 0.5, half) for x in places), background, "count")


def _pair(rng: random.Random, first: Pair, second: Pair, background: str) -> Scene:
    relation = rng.choice(tuple(RELATIONS))
    dx, dy = {"under": (0, 1), "above": (0, -1), "left": (-1, 0), "right": (1, 0)}[relation]
    things = [
        Thing(*pair, 0.5 + sign * dx * 4 / GRID, 0.5 + sign * dy * 4 / GRID, HALVES["small"])
        for pair, sign in ((first, 1), (second, -1))
    ]
    return Scene(tuple(things), background, "pair", relation=relation)
