"""Bytes by their hash in the object store BLOBS: attachments, and payloads above the server's limit.

What always holds: a blob's name is the SHA-256 of its bytes, so storing twice stores once, and a reader knows that
what it got is what was meant.
"""

from __future__ import annotations

from bus import lean  # isort: skip  # noqa: F401

import asyncio
import hashlib
import time
from datetime import datetime

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ObjectInfo
from nats.js.object_store import ObjectStore

from schemas.config import Config
from schemas.errors import Retryable, Untrusted

BUCKET = "BLOBS"
BLOB_HEADER = "Roost-Blob"
"""Names the blob that holds a message's payload."""


class Blobs:
    """The object store of one connection."""

    def __init__(self, js: JetStreamContext, config: Config) -> None:
        self._js = js
        self._store: ObjectStore | None = None
        self._timeout_s = max(30.0, config.bus.request_timeout_s)
        self._refresh_s = config.limits.blob_age_s / 2

    async def _open(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._js.object_store(BUCKET)
        return self._store

    async def _described(self, store: ObjectStore, name: str) -> ObjectInfo | None:
        """The blob's description; None for one that is unknown or whose pieces, which are older, have aged out.

        The library would wait for such pieces until its time is up.
        """
        try:
            info = await store.get_info(name)
        except nats.js.errors.NotFoundError:
            return None
        pieces = f"$O.{BUCKET}.C.{info.nuid}"
        stream = await self._js.stream_info(f"OBJ_{BUCKET}", subjects_filter=pieces)
        return info if (stream.state.subjects or {}).get(pieces, 0) == info.chunks else None

    async def put(self, data: bytes) -> str:
        """Store and return the SHA-256 in hex. A blob past half its age is stored anew, so that it stays."""
        digest = hashlib.sha256(data).hexdigest()
        try:
            async with asyncio.timeout(self._timeout_s):
                store = await self._open()
                info = await self._described(store, digest)
                if info is None or not info.mtime or _age_s(info.mtime) >= self._refresh_s:
                    await store.put(digest, data)
        except (nats.errors.Error, TimeoutError) as error:
            raise Retryable(f"the blob store did not take {len(data)} bytes: {error}", code="bus_unavailable") from None
        return digest

    async def get(self, sha256: str) -> bytes | None:
        """The bytes, or None when unknown or aged out; `Untrusted` when they do not match their name."""
        try:
            async with asyncio.timeout(self._timeout_s):
                store = await self._open()
                if await self._described(store, sha256) is None:
                    return None
                result = await store.get(sha256)
        except nats.js.errors.NotFoundError:
            return None
        except nats.js.errors.DigestMismatchError:
            raise Untrusted(f"blob {sha256} was altered; it was left out") from None
        except (nats.errors.Error, TimeoutError) as error:
            raise Retryable(f"the blob store did not answer: {error}", code="bus_unavailable") from None
        data = bytes(result.data or b"")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Untrusted(f"blob {sha256} does not match its name; it was left out")
        return data


def _age_s(moment: str) -> float:
    return time.time() - datetime.fromisoformat(moment).timestamp()
