"""Conversation state as sessions keep it."""

from __future__ import annotations

from msgspec import Struct

from schemas.message import Attachment, Problem, Role


class Entry(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line of a stored conversation. A question and its answer carry the same request id."""

    role: Role
    text: str
    request: str
    at: float
    v: int = 1
    model: str = ""
    finish: str = ""
    notes: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    error: Problem | None = None


class SessionInfo(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One conversation in its sender's list."""

    conversation: str
    title: str
    updated_at: float
