"""Images that people attach and that models make: what they really are, by their first bytes. Pure.

What always holds: a file is served as the type its bytes show, never as the type somebody named; what is not one of
the four image types is never accepted, and never shown inside the page.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from schemas.picture import EXTENSION

SHA256 = re.compile(r"[0-9a-f]{64}")
EXTENSIONS = {**EXTENSION, "image/gif": "gif"}
NAME_CHARS_MAX = 120
UNSAVEABLE = re.compile(r'[<>:"|?*]+')
"""What some systems allow in no file name."""


def image_type(data: bytes) -> str | None:
    """Media type of the image in `data`, or None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def clean_name(header: str) -> str:
    """The file name from a percent-encoded header: no path, no control characters, bounded."""
    return _clean(unquote(header, errors="replace"))


def _clean(name: str) -> str:
    name = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:NAME_CHARS_MAX].strip()


def headers(data: bytes, sha256: str, save_as: str = "") -> dict[str, str]:
    """Response headers under which `data` can do nothing but be looked at, or be saved under a name that was wished:
    with the ending that its bytes ask for, whatever ending the wish had.
    """
    media_type = image_type(data)
    extension = EXTENSIONS.get(media_type or "", "bin")
    stem = UNSAVEABLE.sub("-", _clean(save_as)).strip(" .-")
    if stem.lower().endswith("." + extension):
        stem = stem[: -len(extension) - 1]
    shown = "inline" if media_type and not save_as else "attachment"
    name = quote(f"{stem or sha256[:12]}.{extension}", safe="")
    return {
        "Content-Type": media_type or "application/octet-stream",
        "Content-Disposition": f"{shown}; filename*=UTF-8''{name}" if stem else f"{shown}; filename={name}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
