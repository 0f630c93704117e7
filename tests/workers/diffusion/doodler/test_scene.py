import math
from collections import Counter

from workers.diffusion.doodler.scene import (
    CONTRAST_MIN,
    HELD_OUT,
    OF_COLOUR,
    OF_OBJECT,
    SEEN,
    clear,
    held_out_scene,
    training_scene,
    unnamed_scene,
)
from workers.diffusion.doodler.vocabulary import COLOURS, OBJECTS, rgb_of

SEEDS = range(3000)


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    assert [training_scene(s) for s in range(50)] == [training_scene(s) for s in range(50)]
    assert len({training_scene(s) for s in range(50)}) == 50


def test_no_training_scene_shows_a_held_out_pair() -> None:
    shown = {(t.object, t.colour) for s in SEEDS for t in training_scene(s).things}
    assert shown == set(SEEN)
    assert not shown & HELD_OUT


def test_three_objects_of_every_colour_are_held_out_and_at_most_two_colours_of_an_object() -> None:
    assert Counter(colour for _, colour in HELD_OUT) == dict.fromkeys(COLOURS, OF_COLOUR)
    assert max(Counter(name for name, _ in HELD_OUT).values()) == OF_OBJECT
    assert len(HELD_OUT) == 30


def test_every_object_and_every_colour_is_seen_in_training() -> None:
    assert {o for o, _ in SEEN} == set(OBJECTS)
    assert {c for _, c in SEEN} == set(COLOURS)


def test_the_main_thing_of_a_held_out_scene_is_held_out_and_its_companion_is_not() -> None:
    for seed in SEEDS:
        main, *others = held_out_scene(seed).things
        assert (main.object, main.colour) in HELD_OUT
        if held_out_scene(seed).layout == "pair":
            assert (others[0].object, others[0].colour) not in HELD_OUT


def test_every_thing_stands_out_and_lies_inside_the_picture() -> None:
    for seed in SEEDS:
        scene = training_scene(seed)
        for thing in scene.things:
            assert clear(thing.colour, scene.background)
            assert thing.x - thing.half >= 0
            assert thing.x + thing.half <= 1
            assert thing.y - thing.half >= 0
            assert thing.y + thing.half <= 1


def test_a_colour_without_a_name_is_like_none_that_is_held_out_for_its_object() -> None:
    free = []
    for seed in SEEDS:
        scene = unnamed_scene(seed)
        assert scene.things[0].colour not in COLOURS
        for thing in scene.things:
            assert (thing.object, thing.colour) not in HELD_OUT
            near = {colour: math.dist(rgb_of(thing.colour), tone.rgb) for colour, tone in COLOURS.items()}
            lacks = [colour for name, colour in HELD_OUT if name == thing.object]
            assert all(near[colour] >= CONTRAST_MIN for colour in lacks)
            assert min(near, key=near.__getitem__) not in lacks
            assert clear(thing.colour, scene.background)
            free += [] if thing.colour in COLOURS else [(thing.object, min(near, key=near.__getitem__))]
    assert {name for name, _ in free} == set(OBJECTS)
    assert len(set(free)) > 150, "any colour but those"
