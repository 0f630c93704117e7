"""Pictures to start from: good ones, broken ones, hostile ones."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from schemas.errors import Rejected
from tests.workers.diffusion.asked import png
from workers.diffusion.start_picture import PIXELS_MAX, opened

SIZE = (64, 48)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that says it has so many pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


MODES = {
    "PNG": ("RGB", "L", "1", "P", "RGBA", "LA", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "WEBP": ("RGB", "L", "P", "RGBA"),
}


@pytest.mark.parametrize(("format", "mode"), [(format, mode) for format, modes in MODES.items() for mode in modes])
def test_every_kind_of_picture_comes_out_as_rgb_of_the_size(format: str, mode: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (200, 100)).save(out, format)
    picture = opened(out.getvalue(), SIZE)
    assert (picture.mode, picture.size) == ("RGB", SIZE)


def test_a_picture_is_scaled_and_cropped_around_its_middle() -> None:
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    out = io.BytesIO()
    wide.save(out, "PNG")
    middle = np.asarray(opened(out.getvalue(), (64, 64))).astype(int)
    assert abs(middle[:, 4:-4] - (0, 0, 255)).max() <= 2


def test_it_stands_upright_as_its_camera_says() -> None:
    picture = Image.new("RGB", (60, 40), "white")
    picture.paste("red", (0, 0, 20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    picture.save(out, "JPEG", exif=exif, quality=95)
    upright = np.asarray(opened(out.getvalue(), (40, 60))).astype(int)
    assert upright[5, 20, 1] < 60, "the red side is at the top"
    assert upright[55, 20, 1] > 200


def test_what_is_transparent_becomes_white() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (10, 10), (255, 0, 0, 0)).save(out, "PNG")
    assert np.asarray(opened(out.getvalue(), SIZE)).min() >= 254


def gif() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "GIF")
    return out.getvalue()


def deep_text() -> bytes:
    """A comment that unpacks to far more than it is."""
    text = b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    whole = png((8, 8))
    return whole[:33] + chunk(*text) + whole[33:]


HOSTILE = {
    "nothing": (b"", "bad_picture", "not a picture"),
    "text": (b"hello " * 100, "bad_picture", "PNG, JPEG and WebP are taken"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "bad_picture", "not a picture"),
    "a GIF": (gif(), "bad_picture", "not a picture"),
    "a PDF": (b"%PDF-1.4\n", "bad_picture", "not a picture"),
    "half a PNG": (png((300, 300))[:-200], "bad_picture", "broken"),
    "half a JPEG": (png((300, 300), format="JPEG")[:-300], "bad_picture", "broken"),
    "half a WebP": (png((300, 300), format="WEBP")[:-40], "bad_picture", "attachments"),
    "a PNG's head": (b"\x89PNG\r\n\x1a\n", "bad_picture", "attachments"),
    "a bomb": (bomb(30_000, 30_000), "too_large", "at most"),
    "a wide bomb": (bomb(200_000, 1), "too_large", "at most"),
    "a large one": (bomb(PIXELS_MAX // 7000 + 1, 7000), "too_large", str(PIXELS_MAX)),
    "pixels that are not there": (bomb(6000, 6000), "bad_picture", "broken"),
    "no pixels": (bomb(0, 10), "bad_picture", "attachments"),
    "a deep comment": (deep_text(), "bad_picture", "broken"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_is_refused_by_its_field(name: str) -> None:
    data, code, sentence = HOSTILE[name]
    with pytest.raises(Rejected, match=sentence) as caught:
        opened(data, SIZE)
    assert caught.value.message.startswith("attachments[0]: ")
    assert caught.value.code == code


def test_a_bomb_is_refused_before_its_pixels_are_there() -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(Rejected):
            opened(bomb(30_000, 30_000), SIZE)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
