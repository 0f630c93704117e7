"""Conversation state as sessions keep it."""

from __future__ import annotations

from msgspec import Struct

from schemas.message import Attachment, Problem, Role, Route


class Entry(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line of a stored conversation. A question and its answer carry the same request id."""

    role: Role
    text: str
    request: str
    at: float
    v: int = 1
    model: str = ""
    version: str = ""
    """Of the model that answered."""
    finish: str = ""
    notes: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    error: Problem | None = None
    route: Route | None = None
    """Of an answer: why this model gave it."""


class SessionInfo(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One conversation in its sender's list."""

    conversation: str
    title: str
    updated_at: float
