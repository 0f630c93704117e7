"""A contact sheet: 64 pictures with their captions, as a PNG of few colours."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE, LINE, COLUMNS, BYTES_MAX = 120, 11, 8, 400_000
FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/System/Library/Fonts/PingFang.ttc",
)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for place in FONTS:
        if Path(place).exists():
            return ImageFont.truetype(place, LINE - 2)
    return ImageFont.load_default(LINE - 2)


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines, line = [], ""
    for piece in text.replace(" ", " \0").split("\0") if " " in text else text:
        if font.getlength(line + piece) > width and line:
            lines.append(line)
            line = ""
        line += piece
    return [*lines, line][:3]


def sheet(captions: list[str], pictures: NDArray[np.uint8], path: Path) -> None:
    """Write the sheet; fewer colours are taken until it fits BYTES_MAX."""
    font = _font()
    tall = SIDE + 3 * LINE + 6
    rows = -(-len(captions) // COLUMNS)
    image = Image.new("RGB", (COLUMNS * (SIDE + 8), rows * tall), "white")
    pen = ImageDraw.Draw(image)
    for i, (text, picture) in enumerate(zip(captions, pictures, strict=True)):
        x, y = i % COLUMNS * (SIDE + 8) + 4, i // COLUMNS * tall + 2
        image.paste(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
        for n, line in enumerate(_lines(text, font, SIDE)):
            pen.text((x, y + SIDE + 1 + n * LINE), line, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    for colours in (256, 128, 64, 32):
        image.quantize(colours).save(path, optimize=True)
        if path.stat().st_size <= BYTES_MAX:
            return
