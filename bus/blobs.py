"""Bytes by their hash in the object store BLOBS: attachments, and payloads above the server's limit.

What always holds: a blob's name is the SHA-256 of its bytes, so storing twice stores once, and a reader knows that
what it got is what was meant.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from schemas.errors import Retryable, Untrusted

if TYPE_CHECKING:
    from bus.contract import Bus

BUCKET = "BLOBS"
BLOB_HEADER = "Roost-Blob"
"""Names the blob that holds a message's payload."""


class Blobs:
    """The blobs of one bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put(self, data: bytes) -> str:
        """Store and return the SHA-256 in hex. A blob past half its age is stored anew, so that it stays."""
        digest = hashlib.sha256(data).hexdigest()
        objects = self._bus.objects(BUCKET)
        if not await objects.fresh(digest, self._bus.config.limits.blob_age_s / 2):
            await objects.put(digest, data)
        return digest

    async def get(self, sha256: str) -> bytes | None:
        """The bytes, or None when unknown or aged out; `Untrusted` when they do not match their name."""
        objects = self._bus.objects(BUCKET)
        for _ in range(2):  # it may be stored anew, in pieces of another name, while it is read
            try:
                data = await objects.get(sha256)
            except Retryable as error:
                if error.code != "incomplete":
                    raise
                continue
            if data is not None and hashlib.sha256(data).hexdigest() != sha256:
                raise Untrusted(f"blob {sha256} does not match its name; it was left out")
            return data
        return None
