"""What became of every request: what clients saw, compared with the log TURNS. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from benchmarks.updating import FIRST, of_release
from schemas.turn import Turn


class Reply(Struct, kw_only=True):
    """One request and all that came back."""

    id: str
    began: float
    """Unix seconds."""
    ended: float = 0.0
    request: str = ""
    """Roost's id of it."""
    version: str = ""
    text: str = ""
    streamed: str | None = None
    """The pieces, put together; None where none were asked for, or one did not come."""
    ends: int = 0
    error: str = ""


class Swapped(Struct, frozen=True, kw_only=True):
    """One swap; Unix seconds. From `settled_at` on nobody may get an older release."""

    release: str
    flipped_at: float
    settled_at: float


class Account(Struct, frozen=True, kw_only=True):
    """How many requests, and what was wrong with which; each problem is a line of text."""

    requests: int
    across: int
    """Were being answered while a link was flipped."""
    restarted: int
    """Were answered in another attempt than the first."""
    failed: list[str]
    lost: list[str]
    doubled: list[str]
    mixed: list[str]
    stale: list[str]


Mark = Callable[[str], str]
"""What each word of a release's answers ends with, after `~`."""


def account(
    replies: Sequence[Reply], turns: Iterable[Turn], swapped: Sequence[Swapped], mark: Mark | None = None
) -> Account:
    """Compare what the talkers saw with the log."""
    recorded: dict[str, list[Turn]] = {}
    for turn in turns:
        recorded.setdefault(turn.id, []).append(turn)
    asked = Counter(reply.request for reply in replies if reply.request)
    found: dict[str, list[str]] = {kind: [] for kind in ("failed", "lost", "doubled", "mixed", "stale")}
    known = {FIRST, *(swap.release for swap in swapped)}
    for reply in replies:
        lines = recorded.get(reply.request, [])
        place = f"{reply.id} ({reply.request or 'no request id'}, version {reply.version or 'unknown'})"
        if reply.error:
            found["failed"].append(f"{place}: {reply.error}")
            continue
        if not reply.ends or not lines:
            found["lost"].append(f"{place}: {reply.ends} answers, {len(lines)} turns")
        if reply.ends > 1 or len(lines) > 1 or asked[reply.request] > 1:
            found["doubled"].append(f"{place}: {reply.ends} answers, {len(lines)} turns, {asked[reply.request]} askers")
        if lines and (wrong := _mixed(reply, lines[0], known, mark)):
            found["mixed"].append(f"{place}: {wrong}")
        newest = max((int(s.release) for s in swapped if s.settled_at < reply.began), default=0)
        if reply.ends and int(of_release(reply.version)) < newest:
            found["stale"].append(f"{place}: {newest} was settled before it was asked")
    for request in recorded.keys() - asked.keys():
        found["lost"].append(f"{request}: has a turn, and nobody got the answer")
    return Account(
        requests=len(replies),
        across=sum(any(r.began < s.flipped_at < r.ended for s in swapped) for r in replies),
        restarted=sum(lines[0].attempt > 1 for lines in recorded.values()),
        **found,
    )


def _mixed(reply: Reply, turn: Turn, known: set[str], mark: Mark | None) -> str:
    """Why an answer is not of one version, as far as can be told; empty where it is."""
    release = of_release(reply.version)
    if reply.version != turn.version or release not in known:
        return f"its turn is of version {turn.version or 'unknown'}"
    if reply.text != turn.text:
        return f"its turn has another text: {reply.text[-60:]!r} and {turn.text[-60:]!r}"
    if reply.streamed is not None and reply.streamed != reply.text:
        return f"the pieces make another text: {reply.streamed[-60:]!r} and {reply.text[-60:]!r}"
    if mark is not None:
        marks = {word.rpartition("~")[2] for word in reply.text.split()}
        if marks != {mark(release)}:
            return f"its words are of {' and '.join(sorted(marks))}, the release is {release}"
    return ""
