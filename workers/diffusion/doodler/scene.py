"""A scene: what is in one picture, and where. Pure: the same seed gives the same scene on every machine.

Always holds: no scene of `training_scene` has a pair (object, colour) of HELD_OUT in it, neither as its main object nor
beside it; no scene of `unnamed_scene` has a thing in a colour like one of its held-out pairs; every object and every
colour is still seen in other pairs; every thing differs clearly from the background.
"""

import colorsys
import hashlib
import math
import random
from dataclasses import dataclass

from workers.diffusion.doodler.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, POSITIONS, RELATIONS, rgb_of

OF_COLOUR, OF_OBJECT = 3, 2
"""So many held-out pairs each colour has, and at most so many each object: no colour is much rarer than another."""
CONTRAST_MIN = 70
"""Least distance of a thing's colour from the background, in RGB units; and of a colour that has no name from those
that the thing must not have."""

Pair = tuple[str, str]


def _held_out() -> frozenset[Pair]:
    """Pairs in the order of their hashes, as many of each colour, and at most two of an object."""
    found: list[Pair] = []
    for pair in sorted(PAIRS, key=lambda p: hashlib.sha256("/".join(p).encode()).digest()):
        objects, colours = ([p[i] for p in found].count(pair[i]) for i in (0, 1))
        if objects < OF_OBJECT and colours < OF_COLOUR:
            found.append(pair)
    return frozenset(found)


PAIRS: tuple[Pair, ...] = tuple((o, c) for o in OBJECTS for c in COLOURS)
HELD_OUT = _held_out()
SEEN: tuple[Pair, ...] = tuple(p for p in PAIRS if p not in HELD_OUT)


@dataclass(frozen=True)
class Thing:
    """One drawn object: centre and half side, all in parts of the picture's side."""

    object: str
    colour: str
    """Of COLOURS, or "#rrggbb" for one that has no name."""
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
    return math.dist(rgb_of(colour), BACKGROUNDS[background].rgb) >= CONTRAST_MIN


def training_scene(seed: int) -> Scene:
    """A scene without any held-out pair."""
    return scene(random.Random(seed), SEEN, SEEN)


def unnamed_scene(seed: int) -> Scene:
    """A scene whose main object has any colour at all; the other one, too, or it is of a pair of training.

    So a thing is seen in more colours than there are words for, and its shape is not learned as one of ten.
    """
    rng = random.Random(seed)
    first, second = rng.sample(tuple(OBJECTS), 2)
    named = [p for p in SEEN if p[0] == second]
    other = rng.choice(named) if rng.random() < 0.5 else (second, unnamed(rng, second))
    return scene(rng, ((first, unnamed(rng, first)),), (other,))


def unnamed(rng: random.Random, of: str) -> str:
    """A colour ("#rrggbb") for this object that nobody would call by the name of one that is held out for it."""
    held_out = [c for c in COLOURS if (of, c) in HELD_OUT]
    while True:
        h, s, v = rng.random(), rng.random(), rng.uniform(0.15, 1)
        found = "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in colorsys.hsv_to_rgb(h, s, v)))
        near = {c: math.dist(rgb_of(found), tone.rgb) for c, tone in COLOURS.items()}
        if min(near, key=near.__getitem__) not in held_out and all(near[c] >= CONTRAST_MIN for c in held_out):
            return found


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
    half = {"small": 0.19, "medium": 0.265, "large": 0.37}[size] * rng.uniform(0.95, 1.06)
    off = 0.46 - half if position != "centre" else 0.0
    dx, dy = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}.get(position, (0, 0))
    x, y = (0.5 + d * off + rng.uniform(-0.02, 0.02) for d in (dx, dy))
    return Scene((Thing(*pair, x, y, half),), background, "one", size, position)


def _row(rng: random.Random, pair: Pair, background: str) -> Scene:
    count = rng.choice((2, 3))
    half = {2: 0.21, 3: 0.152}[count] * rng.uniform(0.96, 1.04)
    y = 0.5 + rng.uniform(-0.04, 0.04)
    xs = {2: (0.27, 0.73), 3: (0.18, 0.5, 0.82)}[count]
    return Scene(tuple(Thing(*pair, x, y, half) for x in xs), background, "count")


def _pair(rng: random.Random, first: Pair, second: Pair, background: str) -> Scene:
    relation = rng.choice(tuple(RELATIONS))
    dx, dy = {"under": (0, 1), "above": (0, -1), "left": (-1, 0), "right": (1, 0)}[relation]
    things = []
    for pair, sign in ((first, 1), (second, -1)):
        x, y = (0.5 + 0.235 * sign * d + rng.uniform(-0.015, 0.015) for d in (dx, dy))
        things.append(Thing(*pair, x, y, 0.21 * rng.uniform(0.95, 1.05)))
    return Scene(tuple(things), background, "pair", relation=relation)
