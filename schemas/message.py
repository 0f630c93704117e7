"""What connectors, workers and outside clients say to each other.

A connector fills `Inbound` with the platform's own ids; ingress replaces them with tokens that are safe in a
subject before the message reaches the bus. From there on `id` is the request id everywhere.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from typing import Any, Literal, NewType

from msgspec import Struct

from schemas.picture import Drawing, Drawn, Progress

RequestId = NewType("RequestId", str)
ConversationId = NewType("ConversationId", str)

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["auto", "chat", "code", "long", "completion", "embedding", "image"]
"""What is asked for. `code` and `long` are conversations as `chat` is, for another model; `completion` is a raw
prompt. `auto` leaves it to the router, which puts one of the others in its place."""
Finish = Literal["stop", "length", "tool_calls", "cancelled", "error"]
State = Literal["queued", "running", "answered", "dead"]


class Sender(Struct, frozen=True, omit_defaults=True):
    """Who wrote a message, as the platform names them. `id` is unique within the connector."""

    id: str
    name: str = ""
    language: str = ""
    application: str = ""
    """The program that speaks for the sender, where one does: its own words (a system prompt) serve all its senders."""


class Attachment(Struct, frozen=True, omit_defaults=True):
    """A file that travels beside a message. Its bytes live in the blob store under `sha256` (hex)."""

    sha256: str
    media_type: str
    size_bytes: int
    name: str = ""
    drawn: Drawn | None = None
    """Of a picture that a model has made: how."""


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """The model asks its caller to run a function. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"


class Tool(Struct, frozen=True, omit_defaults=True):
    """A function that the model may ask for. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class Message(Struct, frozen=True, omit_defaults=True):
    """One line of a conversation as the model sees it.

    `tool_calls`: what an assistant's line asked for. A line of role `tool` brings the result of the call `tool_call`.
    """

    role: Role
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call: str = ""
    name: str = ""


class Format(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the answer's text must be: any JSON, JSON of a schema, or words of a grammar (Lark, or llama.cpp's GBNF)."""

    type: Literal["json", "json_schema", "grammar"]
    schema: dict[str, Any] | bool | None = None
    grammar: str = ""


class Sampling(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How to generate. `None` means: the model's own default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] = {}
    """Added to the logits of tokens, by their number (as text: JSON has no other keys)."""
    logprobs: int | None = None
    """Tell the log probability of each chosen token and of so many likelier ones; `None`: do not."""
    n: int = 1
    """Answers to the same prompt."""
    format: Format | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required` (some tool must be called), or `=NAME` of the one tool to call."""
    parallel_tool_calls: bool = True
    adapter: str = ""
    """Name of a LoRA adapter of the model; empty: the model as it is, with the adapters that are always on."""


class Route(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why this model answers. `reason`: the asker or the connector named it; it is the default; it is for this kind or
    language; the prompt needs its window; others are busier; the one wanted (`wanted`) has no live worker."""

    kind: Kind = "chat"
    reason: Literal["named", "default", "command", "kind", "language", "context", "load", "failover"] = "default"
    wanted: str = ""
    why: str = ""
    """A sentence for people; empty where there is nothing to explain."""


class Inbound(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One message on its way to a model.

    `history` is given when the caller brings the whole conversation along (as the OpenAI API does): then no
    session is read or written, and `text`, if any, comes after it. `reply` is the connector's own note of where the
    answer goes; nobody else reads it, and it comes back in `Outbound.reply`, so that a restarted connector still knows.
    """

    id: str
    conversation: str
    sender: Sender
    text: str = ""
    v: int = 1
    channel: str = ""
    kind: Kind = "auto"
    model: str = ""
    system: str | None = None
    history: tuple[Message, ...] | None = None
    inputs: tuple[str, ...] = ()
    """Texts to embed, for `kind="embedding"`."""
    attachments: tuple[Attachment, ...] = ()
    sampling: Sampling = Sampling()
    drawing: Drawing = Drawing()
    """For `kind="image"`."""
    route: Route | None = None
    """Set by ingress."""
    stream: bool = False
    received_at: float = 0.0
    """Unix time in seconds at which ingress accepted the message."""
    reply: dict[str, str] = {}


class TopToken(Struct, frozen=True):
    """A token that might have been chosen, its bytes, and the natural logarithm of its probability."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()


class TokenLogprob(Struct, frozen=True, omit_defaults=True):
    """A chosen token, and the likeliest ones in its place, before bias, penalties and temperature."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()
    top: tuple[TopToken, ...] = ()


class Choice(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One of several answers to the same prompt."""

    text: str = ""
    finish: Finish = "stop"
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class Delta(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A piece of an answer, or news of its progress, on `roost.delta.<request>`; not stored.

    `text` is what comes after the first `at` characters of the answer, so that a reader can tell a gap or a
    restart (a worker died and another began anew: `attempt` is higher and `at` is 0 again). Where several answers
    were asked for, `choice` says of which one; `at` counts in it alone.
    """

    request: str
    v: int = 1
    attempt: int = 1
    at: int = 0
    text: str = ""
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    state: State = "running"
    place: int | None = None
    progress: Progress | None = None
    """Of a picture. A later one takes the place of an earlier one, so that none needs to arrive."""


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens; `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Timings(Struct, frozen=True, omit_defaults=True):
    """Milliseconds: waiting in the queue, until the first token, and from the start to the last token."""

    queued_ms: float = 0.0
    first_token_ms: float = 0.0
    total_ms: float = 0.0


class Problem(Struct, frozen=True):
    """Why there is no answer: a stable code for programs and a sentence for people."""

    code: str
    message: str


class Outbound(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One finished answer, or the plain reason why there is none, on its way to the platform."""

    id: str
    channel: str
    conversation: str
    text: str = ""
    v: int = 1
    model: str = ""
    version: str = ""
    finish: Finish = "stop"
    usage: Usage = Usage()
    timings: Timings = Timings()
    notes: tuple[str, ...] = ()
    """What the reader should know, such as that the oldest turns were dropped to fit the context."""
    route: Route | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    more: tuple[Choice, ...] = ()
    """The answers after the first, where several were asked for."""
    embeddings: tuple[bytes, ...] = ()
    """Of each input a vector of little-endian float32 of length 1 (base64 in JSON)."""
    error: Problem | None = None
    attachments: tuple[Attachment, ...] = ()
    reply: dict[str, str] = {}


class RequestState(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The state of one accepted message, as `roost.ask.state` and `GET /v1/requests/{id}` tell it."""

    id: str
    state: State
    channel: str
    conversation: str
    model: str = ""
    place: int | None = None
    """While queued: 1 is next."""
    seq: int = 0
    """The message's sequence in INBOX."""
    reason: str = ""
    updated_at: float = 0.0
    sender: str = ""
    asked: str = ""
    """The sender's text, so that a page opened anew can show a question that is still waiting."""
    attachments: tuple[Attachment, ...] = ()
    reply: Outbound | None = None


def token(*parts: str) -> str:
    """A short opaque token of `parts` that is safe in a subject: 26 lower-case letters and digits, 128 bits."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()[:16]
    return b32encode(digest).decode().rstrip("=").lower()
