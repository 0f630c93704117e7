import numpy as np
import pytest

pytest.importorskip("resvg_py", reason="drawing needs resvg-py (pip install resvg-py)")

from workers.diffusion.doodler.draw import pixels
from workers.diffusion.doodler.scene import Scene, Thing
from workers.diffusion.doodler.vocabulary import BACKGROUNDS, COLOURS, OBJECTS


def mask(picture: np.ndarray, background: str) -> np.ndarray:
    return np.abs(picture.astype(int) - BACKGROUNDS[background].rgb).sum(2) > 12


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_fills_its_box_in_its_colour(name: str) -> None:
    picture = pixels(Scene((Thing(name, "red", 0.4, 0.6, 0.25),), "cream", "one"), 256)
    rows, columns = np.nonzero(mask(picture, "cream"))
    left, right, top, bottom = columns.min() / 256, columns.max() / 256, rows.min() / 256, rows.max() / 256
    assert left > 0.14
    assert right < 0.66
    assert top > 0.34
    assert bottom < 0.86
    assert max(right - left, bottom - top) > 0.4
    exact = np.abs(picture.astype(int) - COLOURS["red"].rgb).sum(2) < 8
    assert exact.sum() > 0.4 * mask(picture, "cream").sum()


def test_a_picture_has_the_side_asked_for_and_is_the_same_every_time() -> None:
    scene = Scene((Thing("star", "blue", 0.5, 0.5, 0.3),), "grey", "one")
    assert pixels(scene).shape == (512, 512, 3)
    assert np.array_equal(pixels(scene), pixels(scene))


def test_a_row_of_three_has_three_separate_things() -> None:
    things = tuple(Thing("circle", "green", x, 0.5, 0.145) for x in (0.18, 0.5, 0.82))
    middle = mask(pixels(Scene(things, "cream", "count"), 256), "cream")[128]
    assert (np.diff(middle.astype(int)) == 1).sum() == 3
