"""Captions of a scene in English and Chinese: many phrasings, often saying less than is drawn, never anything else."""

import random

from workers.diffusion.doodler.scene import Scene, Thing
from workers.diffusion.doodler.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    COUNTS,
    OBJECTS,
    OPPOSITE,
    POSITIONS,
    RELATIONS,
    SIZES,
)

ENGLISH_FRAMES = (
    "{}", "{}", "{}", "{}", "a picture of {}", "an icon of {}", "a flat icon of {}", "a drawing of {}", "draw {}",
    "please draw {}", "draw me {}", "{}, flat design", "a simple illustration of {}", "an image of {}", "paint {}",
    "{}, vector art", "show me {}", "generate an image of {}", "a nice picture of {}", "make a picture of {}",
    "a photo of {}", "{}, minimal", "a logo with {}", "I want {}", "can you draw {}?",
)  # fmt: skip
CHINESE_FRAMES = (
    "{}", "{}", "{}", "{}", "画{}", "请画{}", "帮我画{}", "{}的图片", "{}的图标", "生成{}", "{}，扁平风格",
    "请生成{}的图片", "画一幅{}的画", "{}，简单插画", "我想要{}", "来{}",
)  # fmt: skip


def caption(scene: Scene, language: str, rng: random.Random) -> str:
    """One caption of the scene; `language` is "en" or "zh"."""
    if language == "zh":
        return rng.choice(CHINESE_FRAMES).format(_chinese(scene, rng))
    text = rng.choice(ENGLISH_FRAMES).format(_english(scene, rng))
    return text[0].upper() + text[1:] + "." if rng.random() < 0.15 and text[-1] != "?" else text


def _usual(words: tuple[str, ...], rng: random.Random) -> str:
    return words[0] if rng.random() < 0.7 else rng.choice(words)


def _english(scene: Scene, rng: random.Random) -> str:
    main = scene.things[0]
    if scene.layout == "count":
        text = _english_thing(main, rng, len(scene.things))
    elif scene.layout == "pair":
        text = _english_pair(scene, rng)
    else:
        size = _usual(SIZES[scene.size][0], rng) if rng.random() < (0.15 if scene.size == "medium" else 0.5) else ""
        text = _english_thing(main, rng, 1, size)
        if rng.random() < (0.3 if scene.position == "centre" else 0.6):
            text += " " + _usual(POSITIONS[scene.position][0], rng)
    if rng.random() < 0.4:
        ground = _usual(BACKGROUNDS[scene.background].english, rng)
        text += rng.choice((" on a {} background", " on {}", ", {} background", " with a {} background")).format(ground)
    return text


def _english_thing(thing: Thing, rng: random.Random, count: int = 1, size: str = "") -> str:
    colour = _usual(COLOURS[thing.colour].english, rng) if thing.colour in COLOURS else ""
    singular, plural = OBJECTS[thing.object].english[0]
    if rng.random() < 0.3:
        singular, plural = rng.choice(OBJECTS[thing.object].english)
    noun = singular if count == 1 else plural
    form = rng.random()
    if form < 0.04 or not colour:
        words = [size, noun]
    elif form < 0.1:
        words = [size, noun, "in", colour]
    else:
        words = [size, colour, noun]
    phrase = " ".join(w for w in words if w)
    if count > 1:
        return f"{_usual(COUNTS[count][0], rng)} {phrase}"
    article = rng.random()
    if article < 0.15:
        return phrase
    if article < 0.22:
        return "the " + phrase
    if article < 0.3:
        return "one " + phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _english_pair(scene: Scene, rng: random.Random) -> str:
    first, second = (_english_thing(t, rng) for t in scene.things)
    relation = scene.relation
    if rng.random() < 0.5:
        first, second, relation = second, first, OPPOSITE[relation]
    if rng.random() < 0.2:
        return rng.choice(("{} and {}", "{} with {}", "{} next to {}")).format(first, second)
    return f"{first} {_usual(RELATIONS[relation][0], rng)} {second}"


def _chinese(scene: Scene, rng: random.Random) -> str:
    main = scene.things[0]
    if scene.layout == "count":
        text = _chinese_thing(main, rng, len(scene.things))
    elif scene.layout == "pair":
        text = _chinese_pair(scene, rng)
    else:
        size = _usual(SIZES[scene.size][1], rng) if rng.random() < (0.15 if scene.size == "medium" else 0.5) else ""
        text = _chinese_thing(main, rng, 1, size)
        if rng.random() < (0.3 if scene.position == "centre" else 0.6):
            place = _usual(POSITIONS[scene.position][1], rng)
            text = rng.choice(("{thing}在{place}", "{place}有{thing}", "{place}的{thing}")).format(
                thing=text, place=place
            )
    if rng.random() < 0.4:
        ground = _usual(BACKGROUNDS[scene.background].chinese, rng)
        text = rng.choice(("{text}，{ground}背景", "{ground}背景上的{text}", "{text}，背景是{ground}")).format(
            text=text, ground=ground
        )
    return text


def _chinese_thing(thing: Thing, rng: random.Random, count: int = 1, size: str = "") -> str:
    noun = OBJECTS[thing.object]
    colour = _usual(COLOURS[thing.colour].chinese, rng) if thing.colour in COLOURS else ""
    name = _usual(noun.chinese, rng)
    number = f"{COUNTS[count][1]}{noun.measure}"
    form = rng.random()
    if form < 0.04 or not colour:
        return f"{number}{size}{name}"
    link = "的" if len(colour) > 1 and rng.random() < 0.75 else ""
    if count == 1 and form < 0.3:
        return f"{size}{colour}{link}{name}"
    return f"{number}{size}{colour}{link}{name}"


def _chinese_pair(scene: Scene, rng: random.Random) -> str:
    first, second = (_chinese_thing(t, rng) for t in scene.things)
    relation = scene.relation
    if rng.random() < 0.5:
        first, second, relation = second, first, OPPOSITE[relation]
    if rng.random() < 0.2:
        return rng.choice(("{}和{}", "{}与{}")).format(first, second)
    place = _usual(RELATIONS[relation][1], rng)
    return rng.choice(("{a}在{b}{place}", "{b}{place}有{a}", "{b}{place}的{a}")).format(a=first, b=second, place=place)
