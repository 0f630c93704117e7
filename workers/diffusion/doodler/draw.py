"""A scene as SVG text, and as pixels. The renderer (resvg) is needed for training and tests only."""

import io

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from workers.diffusion.doodler.scene import Scene
from workers.diffusion.doodler.shapes import SHAPES
from workers.diffusion.doodler.vocabulary import BACKGROUNDS, rgb_of

Pixels = NDArray[np.uint8]
BLACK, WHITE = 40, 240
"""So dark that its shade has to be paler, and so light that its light has to be darker."""


def mixed(rgb: tuple[int, int, int], other: int, share: float) -> str:
    """The colour moved towards a grey value `other` by `share`."""
    return "#{:02x}{:02x}{:02x}".format(*(round(c + (other - c) * share) for c in rgb))


def svg(scene: Scene) -> str:
    """The drawing in a view box of 1000 x 1000."""
    parts = [f'<rect width="1000" height="1000" fill="{BACKGROUNDS[scene.background].hex}"/>']
    for thing in reversed(scene.things):
        rgb = rgb_of(thing.colour)
        shade = mixed(rgb, 0, 0.25) if max(rgb) > BLACK else mixed(rgb, 255, 0.22)
        light = mixed(rgb, 255, 0.62) if min(rgb) < WHITE else mixed(rgb, 0, 0.18)
        body = SHAPES[thing.object].replace("MAIN", mixed(rgb, 0, 0)).replace("SHADE", shade).replace("LIGHT", light)
        place = f"translate({thing.x * 1000:.1f},{thing.y * 1000:.1f}) scale({thing.half * 10:.3f})"
        parts.append(f'<g transform="{place}">{body}</g>')
    return '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 1000">' + "".join(parts) + "</svg>"


def pixels(scene: Scene, side: int = 512) -> Pixels:
    """The drawing as (side, side, 3) bytes."""
    png = resvg_py.svg_to_bytes(svg_string=svg(scene), width=side, height=side, skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(png))) as image:
        return np.asarray(image.convert("RGB"))
