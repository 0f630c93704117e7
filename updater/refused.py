"""Why TUF refused a repository, in words for the operator and with a code for programs. Pure.

| code | what it means |
|---|---|
| `expired` | signed for a time that is over by this machine's clock; what a frozen repository comes to as well |
| `older` | a number below one that was accepted before: rolled back, or replayed |
| `mixed` | files of different states of the repository, or altered ones |
| `signature` | not signed by enough of the keys that count |
| `garbage` | no metadata at all, or of another kind |
| `too_large` | longer than it may be |
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tuf.api import exceptions
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError

from schemas.errors import Retryable, RoostError, Untrusted
from updater.kept import ROLES

TIME = "%Y-%m-%d %H:%M UTC"


def refused(error: Exception, last: str, metadata: Mapping[str, bytes], where: str, now: datetime) -> RoostError:
    """Our error for python-tuf's `error`.

    `last`: path of what was read last. `metadata`: the newest bytes of each role, verified or not.
    """
    place = f"{where}: {last}" if last else where
    if isinstance(error, exceptions.DownloadHTTPError):
        first = last.endswith("timestamp.json")
        hint = "is metadata/ in the folder that updates.source names?" if first else "is it being published now?"
        return Retryable(f"{error}; {hint}", code="missing")
    if isinstance(error, exceptions.DownloadError):
        return Retryable(f"{place}: {error}")
    if isinstance(error, exceptions.ExpiredMetadataError):
        return Untrusted(expired(metadata, where, now), code="expired")
    if isinstance(error, exceptions.UnsignedMetadataError):
        return Untrusted(
            f"{place} is not signed by enough of the publisher's keys ({error}); "
            "the source was altered, or belongs to another publisher than updates.root",
            code="signature",
        )
    if isinstance(error, exceptions.BadVersionNumberError) and _is_older(last, metadata):
        return Untrusted(f"{place} is older than what was here before ({error}); nothing is taken back", code="older")
    if isinstance(error, exceptions.BadVersionNumberError | exceptions.LengthOrHashMismatchError):
        return Untrusted(
            f"{place} is not the file that the metadata before it names ({error}); "
            "the source was altered, or mixes different states of the repository",
            code="mixed",
        )
    if isinstance(error, DeserializationError):
        return Untrusted(f"{place} is no TUF metadata; see updates.source", code="garbage")
    return Untrusted(f"{place}: {error}", code="garbage")


def expired(metadata: Mapping[str, bytes], where: str, now: datetime) -> str:
    """Which role's metadata expired, when, and what to do."""
    clock = f"this machine's clock says {now.strftime(TIME)}. Check the clock"
    for role in ROLES:
        signed = _signed(metadata.get(role, b""))
        if signed is not None and signed.is_expired(now):
            remedy = "roost release keys renew" if role == "root" else "roost release refresh"
            end = signed.expires.replace(tzinfo=UTC).strftime(TIME)
            return f"{where}: its {role} expired at {end}; {clock}, or ask the publisher to run `{remedy}`"
    return f"{where}: its metadata expired; {clock}, or ask the publisher to run `roost release refresh`"


def _is_older(last: str, metadata: Mapping[str, bytes]) -> bool:
    """Whether a wrong version means a step back: always for a timestamp; for a snapshot when it is the one named."""
    if last.endswith("timestamp.json"):
        return True
    timestamp, snapshot = _signed(metadata.get("timestamp", b"")), _signed(metadata.get("snapshot", b""))
    if not last.endswith(".snapshot.json") or timestamp is None or snapshot is None:
        return False
    return bool(timestamp.snapshot_meta.version == snapshot.version)


def _signed(data: bytes) -> Any:
    try:
        return Metadata.from_bytes(data).signed
    except DeserializationError:
        return None
