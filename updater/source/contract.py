"""What the updater needs of a place that releases come from. The kinds of places are the files beside this one.

What always holds: a source is not trusted, whatever it is. It moves bytes; TUF and the hashes in a release say
whether they are the right ones.
"""

from __future__ import annotations

from typing import Protocol

from schemas.errors import Retryable, Untrusted

PATH_CHARS_MAX = 512
NAME_BYTES_MAX = 255
"""What file systems take."""


class Missing(Retryable):
    """The source works and has no such object. Not tried again at once: the publisher may add it later."""

    code = "missing"


class Unready(Retryable):
    """The source cannot serve us until somebody changes something: not tried again at once either."""

    code = "source"


class Source(Protocol):
    """A repository in its public form: `metadata/…`, `targets/…`, `chunks/…`. Safe for several reads at once."""

    where: str
    """For messages: a folder or an address, with no secret in it."""

    async def read(self, path: str, limit: int) -> bytes:
        """The whole object at `path`.

        Raises `Missing`; `Unready`; `AuthFailed` when the source refuses us; `Untrusted` when the object has more than
        `limit` bytes (code `too_large`) or the path leads elsewhere; `Disconnected` when the link fails and trying
        again was in vain (a kind of source that stands alone may raise `Retryable` for it: see `patient.py`).
        """
        ...

    async def close(self) -> None: ...


def plain(path: str) -> str:
    """`path` if it is a relative path of plain names; raises `Untrusted`."""
    names = path.split("/")
    wrong = len(path) > PATH_CHARS_MAX or "\\" in path or not path.isprintable()
    if wrong or any(name in ("", ".", "..") or len(name.encode()) > NAME_BYTES_MAX for name in names):
        raise Untrusted(f"{path[:80]!r} is no path inside a repository", code="path")
    return path


def too_large(where: str, path: str, size: str, limit: int) -> Untrusted:
    return Untrusted(f"{where}: {path} has {size} bytes; {limit} are allowed", code="too_large")
