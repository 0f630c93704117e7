"""Every subject of Roost, and nowhere else. Public: any client in any language may rely on them."""

from __future__ import annotations

import re

ASK = "roost.ask"
ASK_STATE = "roost.ask.state"
ASK_CANCEL = "roost.ask.cancel"
ASK_FILE = "roost.ask.file"
KNOWLEDGE_SEARCH = "roost.knowledge.search"
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")

INBOX_ALL = "roost.in.>"
OUTBOX_ALL = "roost.out.>"
TURNS_ALL = "roost.turn.>"
EVENTS_ALL = "roost.event.>"
AUDIT_ALL = "roost.audit.>"
DEAD_ALL = "roost.dead.>"


def _tokens(*parts: str) -> str:
    for part in parts:
        if not TOKEN.fullmatch(part):
            raise ValueError(f"not a subject token: {part!r}")
    return ".".join(parts)


def inbox(model: str, channel: str, conversation: str) -> str:
    """`*` for the model stands for any."""
    return f"roost.in.{'*' if model == '*' else _tokens(model)}.{_tokens(channel, conversation)}"


def inbox_of_model(model: str) -> str:
    return f"roost.in.{_tokens(model)}.>"


def inbox_of_channel(channel: str) -> str:
    return f"roost.in.*.{_tokens(channel)}.>"


def outbox(channel: str, conversation: str) -> str:
    return f"roost.out.{_tokens(channel, conversation)}"


def outbox_of_channel(channel: str) -> str:
    return f"roost.out.{_tokens(channel)}.>"


def turn(channel: str, conversation: str) -> str:
    return f"roost.turn.{_tokens(channel, conversation)}"


def event(*what: str) -> str:
    return f"roost.event.{_tokens(*what)}"


def audit(what: str) -> str:
    return f"roost.audit.{_tokens(what)}"


def dead(stream: str) -> str:
    return f"roost.dead.{_tokens(stream)}"


def delta(request: str) -> str:
    """Pieces of one answer; core NATS, not stored."""
    return f"roost.delta.{_tokens(request)}"


def cancel(request: str = "*") -> str:
    """Asks whoever runs the request to stop; every worker listens to all of them."""
    return "roost.cancel.*" if request == "*" else f"roost.cancel.{_tokens(request)}"


def models(worker: str) -> str:
    """Has a worker reload or unload models; request and reply."""
    return f"roost.worker.{_tokens(worker)}.models"


def updater(site: str) -> str:
    """Asks the updater of one machine to check, roll back, pin …; request and reply."""
    return f"roost.updater.{_tokens(site)}"


def model_events(what: str) -> str:
    """Events of one kind, of all models."""
    return f"roost.event.model.*.{_tokens(what)}"


def take(worker: str) -> str:
    """Hands a delivery to the worker that has its conversation."""
    return f"roost.worker.{_tokens(worker)}.take"


def host(name: str) -> str:
    """A machine's name as a token."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64] or "-"


def wake(host: str) -> str:
    """To the power part of a machine: a worker there has begun to work."""
    return f"roost.power.wake.{_tokens(host)}"
