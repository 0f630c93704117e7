"""A picture that is being made, as pages see it: how far, how long still, and what it looks like by now. Pure.

What always holds: a preview that pages are given is a JPEG of bounded size, whatever the worker sent.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from connectors.web.attachment import image_type
from schemas.picture import Progress

PREVIEW_BYTES_MAX = 150_000
"""A preview is small by contract; what is not is left out."""
PACE_STEPS = 8
"""The time left is guessed by the pace of this many progresses, so that it follows a machine that gets busy."""


class Painting(Struct, frozen=True, kw_only=True):
    """How far one request's pictures are. A later one takes the place of an earlier one."""

    request: str
    conversation: str
    step: int
    steps: int
    left_s: float | None
    """None while nobody can know."""
    preview: bytes
    """Of a JPEG; the newest that came, or nothing."""


class Easel:
    """What has come of one request's progress."""

    def __init__(self, request: str, conversation: str) -> None:
        self._request = request
        self._conversation = conversation
        self._seen: deque[tuple[int, float]] = deque(maxlen=PACE_STEPS)
        self._steps = 0
        self._preview = b""

    def take(self, progress: Progress, now: float) -> None:
        """`now`: seconds of a clock that only goes forward."""
        steps = max(1, progress.steps)
        step = min(max(0, progress.step), steps)
        if steps != self._steps or (self._seen and step < self._seen[-1][0]):
            self._seen.clear()
        self._steps = steps
        self._seen.append((step, now))
        if len(progress.preview) <= PREVIEW_BYTES_MAX and image_type(progress.preview) == "image/jpeg":
            self._preview = progress.preview

    def shown(self) -> Painting:
        return Painting(
            request=self._request,
            conversation=self._conversation,
            step=self._seen[-1][0] if self._seen else 0,
            steps=self._steps,
            left_s=self._left_s(),
            preview=self._preview,
        )

    def _left_s(self) -> float | None:
        if not self._seen:
            return None
        (first, began), (last, now) = self._seen[0], self._seen[-1]
        return (self._steps - last) * (now - began) / (last - first) if last > first else None
