"""The file of a picture: how it was made, and by what."""

from __future__ import annotations

import io
from xml.etree import ElementTree

from PIL import Image

from schemas.picture import Drawn
from workers.diffusion.png import SOURCE_TYPE, png

DRAWN = Drawn(
    prompt="ein rotes Boot, 红船 & <sun>",
    seed=7,
    width=8,
    height=16,
    steps=20,
    guidance=7.5,
    negative="blurry",
    scheduler="euler",
    strength=0.5,
    adapter="ink",
)


def test_it_says_how_it_was_made() -> None:
    with Image.open(io.BytesIO(png(Image.new("RGB", (8, 16)), DRAWN, "0123456789ab"))) as opened:
        opened.load()
        said = dict(opened.text)  # type: ignore[attr-defined]
    said.pop("XML:com.adobe.xmp")
    assert said == {
        "Software": "Roost",
        "Source": "Made by a model (digital source type: trainedAlgorithmicMedia)",
        "prompt": "ein rotes Boot, 红船 & <sun>",
        "negative": "blurry",
        "seed": "7",
        "steps": "20",
        "guidance": "7.5",
        "scheduler": "euler",
        "size": "8x16",
        "strength": "0.5",
        "adapter": "ink",
        "model": "0123456789ab",
    }


def test_the_mark_is_an_xmp_packet_with_iptcs_source_type() -> None:
    with Image.open(io.BytesIO(png(Image.new("RGB", (8, 16)), DRAWN, "v"))) as opened:
        opened.load()
        packet = opened.info["xmp"]
    packet = packet if isinstance(packet, str) else packet.decode()
    root = ElementTree.fromstring(packet.split("?>", 1)[1].rsplit("<?xpacket", 1)[0].strip())
    found = [value for element in root.iter() for name, value in element.attrib.items() if "DigitalSourceType" in name]
    assert found == [SOURCE_TYPE]


def test_hostile_words_do_not_break_the_file() -> None:
    odd = Drawn(prompt="a\0b\x1b\n" + "x" * 20_000, seed=0, width=8, height=16, steps=1)
    data = png(Image.new("RGB", (8, 16)), odd, "v")
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        assert opened.text["prompt"] == "ab\x1b\n" + "x" * 20_000  # type: ignore[attr-defined]


def test_the_same_picture_gives_the_same_bytes() -> None:
    picture = Image.new("RGB", (8, 16), "green")
    assert png(picture, DRAWN, "v") == png(picture, DRAWN, "v")
