"""The colours of a picture, as golden prompts see them."""

from __future__ import annotations

import io

import pytest

from workers.host.palette import palette

Image = pytest.importorskip("PIL.Image", reason="Pillow comes with the extra diffusion")


def png(*areas: tuple[str, int]) -> bytes:
    """A picture of so many rows of each colour."""
    picture = Image.new("RGB", (100, sum(rows for _, rows in areas)))
    top = 0
    for colour, rows in areas:
        picture.paste(colour, (0, top, 100, top + rows))
        top += rows
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def test_flat_areas_are_found_by_size_and_specks_are_left_out() -> None:
    assert palette(png(("#ffffff", 700), ("#e22c2c", 295), ("#0000ff", 5))) == ("#ffffff", "#e22c2c")


def test_a_picture_of_one_colour_has_one() -> None:
    assert palette(png(("#123456", 64))) == ("#123456",)
