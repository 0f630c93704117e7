"""Why a model answers, in a few words for people. Pure; the page says the same in the reader's language."""

from __future__ import annotations

from typing import Literal

from schemas.message import Kind

Reason = Literal["named", "default", "command", "kind", "language", "context", "load", "failover"]

ABOUT: dict[Kind, str] = {
    "code": "this is about code",
    "image": "this asks for a picture",
    "long": "this was sent as long",
    "completion": "this is a text to go on with",
    "embedding": "this is text to embed",
}


def why(reason: Reason, *, kind: Kind = "chat", wanted: str = "", word: str = "", language: str = "") -> str:
    """A clause such as `this is about code`; empty where there is nothing to explain."""
    if reason == "failover":
        return f"{wanted} has no live worker"
    if reason == "command":
        return f"chosen by {word}"
    if reason == "kind":
        return ABOUT.get(kind, "")
    if reason == "language":
        return f"this is written in {language}"
    if reason == "context":
        return "this needs a larger window"
    if reason == "load":
        return f"{wanted} is busy or not loaded" if wanted else "others are busy or not loaded"
    return ""
