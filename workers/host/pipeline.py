"""Preprocess and postprocess: what stands before and after inference. Pure; values in, values out."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence

from msgspec.structs import replace

from schemas.config import ModelConfig
from schemas.errors import RoostError
from schemas.message import Inbound, Message, Outbound, Problem, RequestState, Timings, token
from schemas.session import Entry
from workers import Finished, Job


def state_of(inbound: Inbound) -> RequestState:
    """The row of a request that has just begun."""
    return RequestState(
        id=inbound.id,
        state="running",
        channel=inbound.channel,
        conversation=inbound.conversation,
        model=inbound.model,
        sender=inbound.sender.id,
        asked=inbound.text,
        attachments=inbound.attachments,
        updated_at=time.time(),
    )


def seed_of(request: str) -> int:
    """A seed that is the same for every attempt at one request, so that a second attempt says the same again."""
    return int.from_bytes(hashlib.sha256(request.encode()).digest()[:4], "big") & 0x7FFFFFFF


def tenant_of(inbound: Inbound) -> str:
    """Whose words a request holds: the sender's, as a path below the application that speaks for it."""
    sender = inbound.sender
    own = token(inbound.channel, sender.id)
    return f"{token(inbound.channel, sender.application)}/{own}" if sender.application else own


def job_of(inbound: Inbound, history: Sequence[Entry], model: ModelConfig) -> Job:
    """Session history and request → what the backend sees. Exchanges that failed are left out of the prompt.

    One that failed and was answered when the operator sent it again stands there twice; the second counts.
    """
    failed = {entry.request: i for i, entry in enumerate(history) if entry.error is not None}
    lines = [
        Message(entry.role, entry.text)
        for i, entry in enumerate(history)
        if i > failed.get(entry.request, -1) and entry.text
    ]
    if inbound.history is not None:
        lines = list(inbound.history)
    system = inbound.system if inbound.system is not None else model.system
    shared = 0
    if system and not (lines and lines[0].role == "system") and inbound.kind == "chat":
        lines.insert(0, Message("system", system))
        shared = 1 if inbound.system is None else 0
    if inbound.text:
        lines.append(Message("user", inbound.text))
    sampling = inbound.sampling
    if sampling.seed is None:
        sampling = replace(sampling, seed=seed_of(inbound.id))
    return Job(
        request=inbound.id,
        messages=tuple(lines),
        kind=inbound.kind,
        shared=shared,
        tenant=tenant_of(inbound),
        conversation=f"{inbound.channel}.{inbound.conversation}",
        sampling=sampling,
        attachments=inbound.attachments,
        cancelled=threading.Event(),
    )


def reply_of(inbound: Inbound, text: str, finished: Finished, version: str, timings: Timings) -> Outbound:
    """The finished answer."""
    return Outbound(
        id=inbound.id,
        channel=inbound.channel,
        conversation=inbound.conversation,
        text=text,
        model=inbound.model,
        version=version,
        finish=finished.finish,
        usage=finished.usage,
        timings=timings,
        notes=finished.notes,
        reply=inbound.reply,
    )


def refusal_of(inbound: Inbound, error: RoostError) -> Outbound:
    """The plain reason why there is no answer."""
    return Outbound(
        id=inbound.id,
        channel=inbound.channel,
        conversation=inbound.conversation,
        model=inbound.model,
        finish="error",
        error=Problem(error.code, error.message),
        reply=inbound.reply,
    )


def entries_of(inbound: Inbound, reply: Outbound, now: float) -> list[Entry]:
    """The two lines that an exchange adds to its conversation; none where the caller keeps the history."""
    if inbound.history is not None:
        return []
    asked = Entry(
        role="user", text=inbound.text, request=inbound.id, at=inbound.received_at, attachments=inbound.attachments
    )
    answered = Entry(
        role="assistant",
        text=reply.text,
        request=inbound.id,
        at=now,
        model=reply.model,
        finish=reply.finish,
        notes=reply.notes,
        error=reply.error,
    )
    return [asked, answered]
