"""Objects by name in one bucket (`OBJ_<bucket>` streams, readable with `nats object`): a few MB each, in pieces.

Stands on publish and direct gets, so that a thousand reads leave no consumer behind on the server, and so that the bus
in memory has objects too. What always holds: a name has the old object or the whole new one, since the description
that names its pieces is published last; and bytes that do not match their digest are never returned. Who is killed
inside `put` leaves pieces that nothing names.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from schemas.errors import Disconnected, Rejected, Retryable, Untrusted

if TYPE_CHECKING:
    from bus.contract import Bus

PIECE_BYTES = 131_072
"""Of each message, as other clients of NATS have it; far below the server's limit."""
OBJECT_BYTES_MAX = 67_108_864
"""Objects are held in memory whole."""
NAME_CHARS_MAX = 512
DIGEST = "SHA-256="
REPLACES = {"Nats-Rollup": "sub"}


class ObjectInfo(Struct, frozen=True, kw_only=True):
    """The description of one object, in the form of NATS' own clients."""

    name: str
    bucket: str
    nuid: str
    size: int = 0
    chunks: int = 0
    digest: str = ""
    mtime: str = msgspec.field(default_factory=lambda: datetime.now(UTC).isoformat().replace("+00:00", "Z"))
    deleted: bool = False
    options: dict[str, object] = {}


_info = msgspec.json.Decoder(ObjectInfo)


class Objects:
    """One bucket. Every wait is one request to the bus, with the bus's time-out."""

    def __init__(self, bus: Bus, bucket: str, *, piece_bytes: int = PIECE_BYTES) -> None:
        """`piece_bytes`: less where the server takes only smaller messages."""
        self._bus = bus
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._piece_bytes = piece_bytes

    async def put(self, name: str, data: bytes) -> None:
        """Store, in place of an object of the same name. Raises `Rejected` for names and sizes that cannot be."""
        if not _possible(name):
            raise Rejected(f"an object's name has 1 to {NAME_CHARS_MAX} printable characters", code="bad_name")
        if len(data) > OBJECT_BYTES_MAX:
            raise Rejected(f"{name}: {len(data)} bytes; an object has {OBJECT_BYTES_MAX} at most", code="too_large")
        before = await self._find(name)
        nuid = secrets.token_hex(11)
        pieces = [data[at : at + self._piece_bytes] for at in range(0, len(data), self._piece_bytes)]
        info = ObjectInfo(
            name=name,
            bucket=self._bucket,
            nuid=nuid,
            size=len(data),
            chunks=len(pieces),
            digest=_digest(data),
            options={"max_chunk_size": self._piece_bytes},
        )
        try:
            for number, piece in enumerate(pieces):
                await self._bus.publish(self._pieces(nuid), piece, id=f"{nuid}.{number}")
        except BaseException:
            with contextlib.suppress(Retryable, Disconnected):
                await self._bus.purge(self._stream, self._pieces(nuid))
            raise
        await self._describe(info)
        if before is not None and before.chunks:
            await self._bus.purge(self._stream, self._pieces(before.nuid))

    async def get(self, name: str, limit: int = OBJECT_BYTES_MAX) -> bytes | None:
        """The object, or None. `Untrusted` when it has more than `limit` bytes (code `too_large`; nothing of it is
        read then) or was altered; `Retryable` when it is replaced while it is read."""
        info = await self._find(name)
        if info is None:
            return None
        place = f"object {name} of {self._bucket}"
        if info.size > limit:
            raise Untrusted(f"{place} has {info.size} bytes; {limit} are allowed", code="too_large")
        data, seq = bytearray(), 1
        for _ in range(min(info.chunks, info.size)):
            piece = await self._bus.next(self._stream, self._pieces(info.nuid), seq)
            if piece is None:
                raise Retryable(f"{place} is being replaced, or lost a piece; publish it again", code="incomplete")
            data += piece.data
            seq = piece.seq + 1
            if len(data) > info.size:
                break
        if len(data) != info.size or not hmac.compare_digest(_digest(data), info.digest):
            raise Untrusted(f"{place} does not match its digest; publish it again", code="digest")
        return bytes(data)

    async def has(self, name: str) -> bool:
        return await self._find(name) is not None

    async def fresh(self, name: str, age_s: float) -> bool:
        """Whether it was put in the last `age_s` seconds, and is all there: pieces age out from the first one on."""
        info = await self._find(name)
        if info is None or time.time() - _seconds(info.mtime) >= age_s:
            return False
        first = await self._bus.next(self._stream, self._pieces(info.nuid), 1) if info.chunks else None
        return first is not None or not info.chunks

    async def list(self) -> dict[str, int]:
        """Names and bytes of all objects."""
        found: dict[str, int] = {}
        async for message in self._bus.read(self._stream, f"$O.{self._bucket}.M.>"):
            info = self._read(message.data, message.subject)
            if not info.deleted:
                found[info.name] = info.size
        return found

    async def delete(self, name: str) -> bool:
        """False when there was none."""
        info = await self._find(name)
        if info is None:
            return False
        await self._describe(ObjectInfo(name=name, bucket=self._bucket, nuid=info.nuid, deleted=True))
        await self._bus.purge(self._stream, self._pieces(info.nuid))
        return True

    async def _find(self, name: str) -> ObjectInfo | None:
        message = await self._bus.last(self._stream, self._description(name)) if _possible(name) else None
        if message is None:
            return None
        info = self._read(message.data, name)
        return None if info.deleted else info

    async def _describe(self, info: ObjectInfo) -> None:
        data = msgspec.json.encode(info)
        id = hashlib.sha256(data + secrets.token_bytes(8)).hexdigest()
        await self._bus.publish(self._description(info.name), data, id=id, headers=REPLACES)

    def _read(self, data: bytes, name: str) -> ObjectInfo:
        try:
            return _info.decode(data)
        except msgspec.DecodeError as error:
            place = f"object {name} of {self._bucket}"
            raise Untrusted(f"{place} has no readable description: {error}", code="garbage") from None

    def _description(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    def _pieces(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"


def _possible(name: str) -> bool:
    """Names become subjects, and the server closes a connection for one that is too long."""
    return 0 < len(name) <= NAME_CHARS_MAX and name.isprintable()


def _seconds(moment: str) -> float:
    """RFC 3339 as Unix seconds; 0 for what is no time."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0


def _digest(data: bytes | bytearray) -> str:
    return DIGEST + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
