"""Turn: one finished exchange, the line of the log that replay and tuning read."""

from __future__ import annotations

from msgspec import Struct

from schemas.message import Attachment, Finish, Inbound, Outbound, Problem, Timings, Usage


class Turn(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What was asked, what was answered, by which version of which model, and how long it took."""

    id: str
    channel: str
    conversation: str
    inbound: Inbound
    text: str
    model: str
    version: str
    finished_at: float
    v: int = 1
    worker: str = ""
    attempt: int = 1
    finish: Finish = "stop"
    usage: Usage = Usage()
    timings: Timings = Timings()
    notes: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    """Of the answer: pictures."""
    error: Problem | None = None


def turn_of(inbound: Inbound, outbound: Outbound, *, worker: str, attempt: int, finished_at: float) -> Turn:
    """The log line of one exchange; the reply address is left out, it is nobody else's business."""
    from msgspec.structs import replace

    return Turn(
        id=outbound.id,
        channel=outbound.channel,
        conversation=outbound.conversation,
        inbound=replace(inbound, reply={}),
        text=outbound.text,
        model=outbound.model,
        version=outbound.version,
        finished_at=finished_at,
        worker=worker,
        attempt=attempt,
        finish=outbound.finish,
        usage=outbound.usage,
        timings=outbound.timings,
        notes=outbound.notes,
        attachments=outbound.attachments,
        error=outbound.error,
    )
