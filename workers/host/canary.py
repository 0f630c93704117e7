"""Which version answers a request while a new one is tried on a share of the conversations. Pure.

What always holds: a conversation stays with the version that answered it last; the same request, or the same new
conversation, gets the same answer to this question each time; a larger share adds conversations and moves none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from schemas.message import Inbound
from schemas.session import Entry


def goes_new(inbound: Inbound, history: Sequence[Entry], *, version: str, percent: int) -> bool:
    """Whether the new `version` answers, when it gets `percent` of the new conversations."""
    if percent <= 0:
        return False
    if inbound.history is not None:  # its conversation is known to the caller alone
        begun = any(message.role == "assistant" for message in inbound.history)
        return not begun and drawn(f"{version} {inbound.id}", percent)
    for entry in reversed(history):
        if entry.role == "assistant" and entry.error is None and entry.model in ("", inbound.model):
            return entry.version == version
    return drawn(f"{version} {inbound.channel}.{inbound.conversation}", percent)


def drawn(key: str, percent: int) -> bool:
    """Whether `key` is among so many percent of all keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100 < percent
