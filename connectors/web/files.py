"""The page's own files, read once from the package. A request can name only what was found at the start."""

from __future__ import annotations

import hashlib
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}


class File(Struct, frozen=True):
    """One static file; `etag` changes with its content."""

    body: bytes
    media_type: str
    etag: str


def load(root: Path = ROOT) -> dict[str, File]:
    """All files under `root` by their relative path with `/`."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            body = path.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:20]
            found[path.relative_to(root).as_posix()] = File(body=body, media_type=TYPES[path.suffix], etag=etag)
    return found
