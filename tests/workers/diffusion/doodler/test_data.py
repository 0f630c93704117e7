"""What stands where: the object and colour of every cell of a picture."""

import pytest

pytest.importorskip("resvg_py", reason="drawing needs resvg-py (pip install resvg-py)")
pytest.importorskip("transformers", reason="training needs the extra diffusion")

import numpy as np

from workers.diffusion.doodler.data import CELLS, HEADS, SIDE, UNNAMED, labels, places
from workers.diffusion.doodler.draw import pixels
from workers.diffusion.doodler.scene import Scene, Thing

LEFT, RIGHT = Thing("square", "red", 0.26, 0.5, 0.2), Thing("moon", "black", 0.74, 0.5, 0.2)


def told(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    objects, colours = places(scene, pixels(scene, SIDE))
    return np.array(HEADS["object2"])[objects], np.array(HEADS["colour2"])[colours]


def test_every_cell_tells_of_the_thing_in_it_and_the_ground_of_nothing() -> None:
    objects, colours = told(Scene((LEFT, RIGHT), "mint", "pair", relation="left"))
    half = CELLS // 2
    assert set(objects[:, :half].flat) == {"", "square"}
    assert set(objects[:, half:].flat) == {"", "moon"}
    assert set(colours[objects == "square"]) == {"red"}
    assert set(colours[objects == "moon"]) == {"black"}
    assert set(colours[objects == ""]) == {""}
    assert set(objects[0]) == {""}
    assert objects[half, 4] == "square"


def test_a_row_tells_the_same_of_each() -> None:
    row = tuple(Thing("star", "pink", x, 0.5, 0.15) for x in (0.18, 0.5, 0.82))
    objects, _ = told(Scene(row, "grey", "count"))
    assert set(objects.flat) == {"", "star"}
    assert [objects[8, int(16 * x)] for x in (0.18, 0.5, 0.82)] == ["star"] * 3


def test_of_a_colour_without_a_name_nothing_is_said() -> None:
    scene = Scene((LEFT, Thing("moon", "#7f8030", 0.74, 0.5, 0.2)), "mint", "pair", relation="left")
    objects, colours = places(scene, pixels(scene, SIDE))
    moon = objects == HEADS["object2"].index("moon")
    assert moon.any()
    assert set(colours[moon]) == {UNNAMED}
    assert set(colours[~moon]) == {0, HEADS["colour2"].index("red")}
    said = dict(zip(HEADS, labels(scene), strict=True))
    assert (said["colour"], said["colour2"]) == (HEADS["colour"].index("red"), UNNAMED)
