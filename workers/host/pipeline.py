"""Preprocess and postprocess: what stands before and after inference. Pure; values in, values out."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from schemas.config import ModelConfig
from schemas.errors import RoostError
from schemas.message import (
    Attachment,
    Inbound,
    Kind,
    Message,
    Outbound,
    Problem,
    RequestState,
    Timings,
    TokenLogprob,
    token,
)
from schemas.session import Entry
from workers import Finished, Job
from workers.host.prompts import FRONT_END

CONVERSATIONS: frozenset[Kind] = frozenset({"auto", "chat", "code", "long"})
"""Kinds that differ for the router alone: to a backend they are all `chat`."""


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


def job_of(
    inbound: Inbound, history: Sequence[Entry], model: ModelConfig, texts: Mapping[str, str] | None = None
) -> Job:
    """Session history and request → what the backend sees. Exchanges that failed are left out of the prompt; an answer
    of pictures is a line that says so, as templates want a line of the assistant's behind each of the user's.

    `texts`: what attachments hold, by hash; they stand in the line that they came with and are no attachments any more.
    One that failed and was answered when the operator sent it again stands there twice; the second counts.
    """
    texts = texts or {}
    failed = {entry.request: i for i, entry in enumerate(history) if entry.error is not None}
    lines = [
        Message(entry.role, text)
        for i, entry in enumerate(history)
        if i > failed.get(entry.request, -1)
        and (text := _quoting(entry.text or _pictured(entry), entry.attachments, texts))
    ]
    if inbound.history is not None:
        lines = list(inbound.history)
    kind: Kind = "chat" if inbound.kind in CONVERSATIONS else inbound.kind
    system = inbound.system if inbound.system is not None else _operators(inbound, model)
    shared = 0
    if system and not (lines and lines[0].role == "system") and kind == "chat":
        lines.insert(0, Message("system", system))
        shared = 1 if inbound.system is None else 0
    if text := _quoting(inbound.text, inbound.attachments, texts):
        lines.append(Message("user", text))
    sampling = inbound.sampling
    if sampling.seed is None:
        sampling = replace(sampling, seed=seed_of(inbound.id))
    return Job(
        request=inbound.id,
        messages=tuple(lines),
        kind=kind,
        inputs=inbound.inputs,
        shared=shared,
        tenant=tenant_of(inbound),
        conversation=f"{inbound.channel}.{inbound.conversation}",
        sampling=sampling,
        drawing=inbound.drawing,
        attachments=tuple(file for file in inbound.attachments if file.sha256 not in texts),
        cancelled=threading.Event(),
    )


def _quoting(text: str, attachments: Sequence[Attachment], texts: Mapping[str, str]) -> str:
    """A line of a conversation behind the text files that came with it, each between fences that it cannot close."""
    parts = []
    for file in attachments:
        if file.sha256 in texts:
            body = texts[file.sha256]
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", body)), default=0))
            parts.append(f"{file.name or 'file'}:\n{fence}\n{body}\n{fence}")
    return "\n\n".join([*parts, text] if text else parts)


def _pictured(entry: Entry) -> str:
    """What a conversation says of an answer that is pictures."""
    drawn = entry.attachments[0].drawn if entry.attachments and entry.role == "assistant" else None
    return f"(a picture: {drawn.prompt})" if drawn is not None else ""


def _operators(inbound: Inbound, model: ModelConfig) -> str | None:
    """The operator's system prompt, or Roost's own for code; where the answer has a format, that says enough."""
    if model.system is None and inbound.kind == "code" and inbound.sampling.format is None:
        return FRONT_END
    return model.system


def reply_of(
    inbound: Inbound,
    text: str,
    finished: Finished,
    version: str,
    timings: Timings,
    logprobs: tuple[TokenLogprob, ...] = (),
    attachments: tuple[Attachment, ...] = (),
) -> Outbound:
    """The finished answer. `attachments`: its pictures, as they were stored."""
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
        route=inbound.route,
        tool_calls=finished.tool_calls,
        logprobs=logprobs,
        more=finished.more,
        embeddings=finished.embeddings,
        attachments=attachments,
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
        route=inbound.route,
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
        version=reply.version,
        finish=reply.finish,
        notes=reply.notes,
        attachments=reply.attachments,
        error=reply.error,
        route=reply.route,
    )
    return [asked, answered]
