"""The events of one stream of pictures. Pure.

What always holds: each picture's last event holds the picture itself; previews before it may be lost without harm.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from connectors.openai.pictures import EVENT, Shown, check_pictures, images_usage
from connectors.openai.reply import encode, roost_of
from schemas.message import Delta, Outbound
from schemas.picture import Progress


class ImageScript:
    """As many previews as were asked for, spread over the steps, then the pictures."""

    def __init__(self, reply: Mapping[str, str]) -> None:
        self._event = EVENT[reply["kind"]]
        self._partial = int(reply.get("partial", "0"))
        self._told = 0

    def piece(self, delta: Delta) -> bytes:
        """An event for a preview whose time has come, or nothing."""
        progress = delta.progress
        if progress is None or not progress.preview or not self._due(progress):
            return b""
        self._told += 1
        return self._encoded(
            "partial_image", b64_json=progress.preview, output_format="jpeg", partial_image_index=self._told - 1
        )

    def end(self, outbound: Outbound, notes: Sequence[str] = (), shown: Sequence[Shown] = ()) -> bytes:
        """The pictures, each in an event of its own; `roost` stands in the last one's. Raises as `check_pictures`."""
        check_pictures(outbound, shown)
        usage = images_usage(outbound.usage)
        events = []
        for one in shown:
            roost = {"roost": roost_of(outbound, notes)} if one is shown[-1] else {}
            fields = {"b64_json": one.data, "output_format": "png", "size": one.size, "usage": usage, **roost}
            events.append(self._encoded("completed", **fields))
        return b"".join(events)

    def _due(self, progress: Progress) -> bool:
        return self._told < self._partial and progress.step * (self._partial + 1) >= (self._told + 1) * progress.steps

    def _encoded(self, what: str, **fields: Any) -> bytes:
        name = f"{self._event}.{what}"
        common = {"type": name, "created_at": int(time.time()), "background": "opaque", "quality": "auto"}
        return b"event: " + name.encode() + b"\ndata: " + encode({**common, "size": "auto", **fields}) + b"\n\n"
