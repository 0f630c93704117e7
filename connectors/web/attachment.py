"""Images that people attach: what they really are, by their first bytes. Pure.

What always holds: a file is served as the type its bytes show, never as the type somebody named; what is not one of
the four image types is never accepted, and never shown inside the page.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

SHA256 = re.compile(r"[0-9a-f]{64}")
EXTENSION = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif"}
NAME_CHARS_MAX = 120


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
    name = unquote(header, errors="replace").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:NAME_CHARS_MAX].strip()


def headers(data: bytes, sha256: str) -> dict[str, str]:
    """Response headers under which `data` can do nothing but be looked at."""
    media_type = image_type(data)
    shown = "inline" if media_type else "attachment"
    name = f"{sha256[:12]}.{EXTENSION.get(media_type or '', 'bin')}"
    return {
        "Content-Type": media_type or "application/octet-stream",
        "Content-Disposition": f"{shown}; filename={quote(name)}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
