"""A picture to start from: a stranger's bytes on the way to pixels of the size that is drawn.

What always holds: what it is, its bytes say and not its name; no more than `PIXELS_MAX` pixels are ever decoded; what
is wrong is a `Rejected` that names the attachment, whatever the decoder says.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from schemas.errors import Rejected

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
PIXELS_MAX = 50_000_000
"""A large camera's; 150 MB while it is decoded."""
SIDE_MAX = 32_768
FIELD = "attachments[0]"


def opened(data: bytes, size: tuple[int, int]) -> Image:
    """The picture upright, without transparency, scaled and cropped to `size`."""
    from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise AssertionError("a library has switched off the check for truncated files")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are checked below
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check(*picture.size)
                picture.draft("RGB", size)
                upright = ImageOps.exif_transpose(picture)
                return ImageOps.fit(_flat(upright), size, Image.Resampling.LANCZOS)
    except Rejected:
        raise
    except UnidentifiedImageError:
        raise Rejected(f"{FIELD}: not a picture; PNG, JPEG and WebP are taken", code="bad_picture") from None
    except Image.DecompressionBombError:
        raise _too_large("more pixels than anybody needs") from None
    except MemoryError:
        raise _too_large("there is not memory enough to decode it") from None
    except Exception as error:  # noqa: BLE001  decoders raise anything on broken files
        raise Rejected(f"{FIELD}: the picture is broken ({error}); send it again", code="bad_picture") from None


def _check(width: int, height: int) -> None:
    if width < 1 or height < 1 or max(width, height) > SIDE_MAX or width * height > PIXELS_MAX:
        raise _too_large(f"{width}x{height} pixels")


def _too_large(what: str) -> Rejected:
    return Rejected(f"{FIELD}: {what}; at most {PIXELS_MAX} pixels and {SIDE_MAX} a side are taken", code="too_large")


def _flat(picture: Image) -> Image:
    """On white where it is transparent."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture.convert("RGB")
    clear = picture.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")
