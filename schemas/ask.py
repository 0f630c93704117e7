"""What programs say to the front door `roost.ask` and hear from it.

Other types than `Inbound` and `Outbound` on purpose: this is the promise to programs outside, in their own ids,
and it stays when what the parts say to each other changes.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

from schemas.message import (
    Attachment,
    Choice,
    Finish,
    Format,
    Kind,
    Message,
    Outbound,
    Problem,
    RequestState,
    Route,
    State,
    Timings,
    Tool,
    ToolCall,
    Usage,
)
from schemas.picture import Drawing


class AskAttachment(Struct, frozen=True, kw_only=True):
    """A file with its bytes in base64."""

    media_type: str
    data: str
    name: str = ""


class Ask(Struct, frozen=True, kw_only=True):
    """The request of `roost.ask`; unknown fields are ignored. See docs/speak-nats.md."""

    text: str = ""
    v: int = 1
    id: str = ""
    conversation: str = ""
    model: str = ""
    kind: Kind = "auto"
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] = field(default_factory=list)
    ignore_eos: bool = False
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    format: Format | None = None
    tools: list[Tool] = field(default_factory=list)
    tool_choice: str = "auto"
    adapter: str = ""
    messages: list[Message] = field(default_factory=list)
    """The whole conversation so far, where the client keeps it itself; `text`, if any, comes after it. The way to bring
    the results of tools, as a stored conversation keeps no tool calls."""
    inputs: list[str] = field(default_factory=list)
    """Texts to embed, for kind `embedding`; `text` may then be empty."""
    n: int = 1
    """Answers, or pictures."""
    drawing: Drawing = Drawing()
    """For kind `image`."""
    stream: bool = False
    attachments: list[AskAttachment] = field(default_factory=list)
    user: str = ""


class About(Struct, frozen=True):
    """The request of `roost.ask.state` and `roost.ask.cancel`: the client's own id, or the `request` of an answer."""

    id: str


class AskFile(Struct, frozen=True, kw_only=True):
    """The request of `roost.ask.file`: bytes of a picture, by the `sha256` of an attachment.

    Answered with the bytes themselves, and the header `Roost-Size-Bytes` with the size of the whole. Without `offset`
    it is the whole or a refusal; with it, what begins there and fits into one message.
    """

    sha256: str
    offset: int | None = None


class Answer(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer of `roost.ask`: all that a finished one has, or `error` in place of that.

    `id` is the client's own where it gave one, `request` Roost's. The last message of a stream is this too; the
    deltas before it have no `finish` and no `error`.
    """

    id: str
    request: str
    model: str
    v: int = 1
    text: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    finish: Finish | UnsetType = UNSET
    usage: Usage | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET
    notes: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    route: Route | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    more: tuple[Choice, ...] = ()
    """The answers after the first, where `n` asked for several."""
    embeddings: tuple[bytes, ...] = ()
    """Vectors of little-endian float32 in base64, one for each of `inputs`."""
    error: Problem | UnsetType = UNSET


class Told(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer of `roost.ask.state`: `place` while queued, `reason` when dead, `reply` once there is one."""

    id: str
    state: State
    model: str
    v: int = 1
    place: int | UnsetType | None = UNSET
    reason: str | UnsetType = UNSET
    reply: Answer | UnsetType = UNSET


class Refusal(Struct, frozen=True):
    """The answer of every endpoint to what it cannot do; nothing was stored."""

    error: Problem


def answer_of(reply: Outbound) -> Answer:
    """The wire form of an answer."""
    id_ = reply.reply.get("id") or reply.id
    if reply.error is not None:
        return Answer(id=id_, request=reply.id, model=reply.model, error=reply.error)
    return Answer(
        id=id_,
        request=reply.id,
        model=reply.model,
        text=reply.text,
        version=reply.version,
        finish=reply.finish,
        usage=reply.usage,
        timings=reply.timings,
        notes=reply.notes,
        attachments=reply.attachments,
        route=reply.route,
        tool_calls=reply.tool_calls,
        more=reply.more,
        embeddings=reply.embeddings,
    )


def told_of(state: RequestState) -> Told:
    """The wire form of a request's state."""
    return Told(
        id=state.id,
        state=state.state,
        model=state.model,
        place=state.place if state.state == "queued" else UNSET,
        reason=state.reason if state.state == "dead" else UNSET,
        reply=answer_of(state.reply) if state.reply is not None else UNSET,
    )
