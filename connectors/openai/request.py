"""From the bytes of an OpenAI request to an `Inbound`: pure, no I/O.

Unknown fields are ignored, as clients send many; wrong types and values are refused with the path of the parameter.
What Roost cannot do is refused by name and never ignored, when ignoring it would change the answer's meaning; limits
that all connectors share are admission's business.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from connectors.openai.conversation import ChatMessage, ToolChoice, ToolSpec, conversation_of, tool_choice_of, tools_of
from connectors.openai.decode import bad, decode, refuse
from connectors.openai.format import ResponseFormat, Schema, format_of
from schemas.message import Inbound, Sampling, Sender

STOPS_MAX = 16

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Unit = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stop = Annotated[str, Meta(max_length=256)]
Top = Annotated[int, Meta(ge=0, le=20)]


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class _Common(Struct, frozen=True, kw_only=True):
    """Parameters of both generating endpoints. Extensions: `top_k`, `min_p`, `repeat_penalty`, `ignore_eos`, `adapter`,
    and llama-server's `json_schema` and `grammar`.
    """

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Unit | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=STOPS_MAX)] | None = None
    ignore_eos: bool | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    adapter: str | None = None
    response_format: ResponseFormat | None = None
    json_schema: Schema | None = None
    grammar: str | None = None
    lora: Any = None
    mirostat: Any = None
    typical_p: Any = None
    dry_multiplier: Any = None
    xtc_probability: Any = None
    dynatemp_range: Any = None


class ChatRequest(_Common, frozen=True, kw_only=True):
    """Body of `POST /v1/chat/completions`; `kind` is an extension."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    kind: Literal["auto", "chat", "code", "long"] | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Any = None
    verbosity: Any = None


class CompletionRequest(_Common, frozen=True, kw_only=True):
    """Body of `POST /v1/completions`."""

    prompt: str | list[Any]
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: Top | None = None


NO_EFFECT = (
    "mirostat", "typical_p", "dry_multiplier", "xtc_probability", "dynatemp_range", "reasoning_effort", "verbosity",
)  # fmt: skip
"""Parameters that only change the odds: taken, and told to have no effect."""
_CHAT = msgspec.json.Decoder(ChatRequest)
_COMPLETION = msgspec.json.Decoder(CompletionRequest)


def chat(body: bytes) -> ChatRequest:
    """Decode and check the body of `POST /v1/chat/completions`; raises `BadParameter`."""
    request = decode(_CHAT, body)
    if request.functions:
        raise bad("functions", "functions of the old kind are not supported; send tools", code="unsupported")
    refuse(
        (request.audio is not None, "audio", "audio"),
        (any(m != "text" for m in request.modalities or ()), "modalities", "modalities other than text"),
        (request.web_search_options is not None, "web_search_options", "searching the web"),
        (bool(request.continue_final_message), "continue_final_message", "continuing an answer that is begun"),
        (bool(request.chat_template_kwargs), "chat_template_kwargs", "changing the model's chat template"),
    )
    if request.top_logprobs is not None and not request.logprobs:
        raise bad("top_logprobs", "needs logprobs: true")
    _refuse_common(request)
    return request


def completion(body: bytes) -> CompletionRequest:
    """Decode and check the body of `POST /v1/completions`; raises `BadParameter`."""
    request = decode(_COMPLETION, body)
    refuse(
        (bool(request.echo), "echo", "echoing the prompt"),
        (bool(request.suffix), "suffix", "a suffix"),
        (request.best_of not in (None, request.n or 1), "best_of", "best_of other than n"),
    )
    _refuse_common(request)
    return request


def chat_inbound(request: ChatRequest, *, id: str, key: str) -> Inbound:
    """The message for the bus. The caller brings the conversation along: ingress makes each request one of its own."""
    limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    sampling = msgspec.structs.replace(
        _sampling(request, limit),
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        tools=tools_of(request.tools or ()),
        tool_choice=tool_choice_of(request.tool_choice),
        parallel_tool_calls=request.parallel_tool_calls is not False,
    )
    return Inbound(
        id=id,
        conversation="",
        sender=sender_of(key, request.user),
        history=conversation_of(request.messages),
        kind=request.kind or "auto",
        model=request.model or "",
        sampling=sampling,
        stream=bool(request.stream),
        reply={"kind": "chat"},
    )


def completion_inbound(request: CompletionRequest, *, id: str, key: str) -> Inbound:
    """The message for the bus: the prompt goes to the model as it is, without a chat template."""
    prompt = request.prompt
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise bad("prompt", "send one string; several prompts or tokens are not supported")
        prompt = prompt[0]
    if not prompt:
        raise bad("prompt", "the text is empty", code="empty")
    return Inbound(
        id=id,
        conversation="",
        sender=sender_of(key, request.user),
        text=prompt,
        history=(),  # a request of its own: no session is read or written
        kind="completion",
        model=request.model or "",
        sampling=msgspec.structs.replace(_sampling(request, request.max_tokens), logprobs=request.logprobs),
        stream=bool(request.stream),
        reply={"kind": "completion"},
    )


def ignored(request: ChatRequest | CompletionRequest) -> tuple[str, ...]:
    """Sentences about parameters that were accepted and have no effect."""
    return tuple(f"{name} has no effect here" for name in NO_EFFECT if getattr(request, name, None))


def sender_of(key: str, user: str | None) -> Sender:
    """The API key, and the caller's own user below it; a key's name has no slash."""
    return Sender(id=f"{key}/{user}" if user else key, name=user or key, application=key)


def _refuse_common(request: ChatRequest | CompletionRequest) -> None:
    if request.lora:
        raise bad("lora", "adapters are chosen by their name; send adapter", code="unsupported")


def _sampling(request: ChatRequest | CompletionRequest, max_tokens: int | None) -> Sampling:
    stop = (request.stop,) if isinstance(request.stop, str) else request.stop or ()
    return Sampling(
        max_tokens=max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        repeat_penalty=request.repeat_penalty,
        seed=None if request.seed is None else request.seed % 2**32,  # OpenAI's seeds have 64 bits, engines take 32
        stop=tuple(s for s in stop if s),
        ignore_eos=bool(request.ignore_eos),
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias or {},
        n=request.n or 1,
        format=format_of(request.response_format, request.json_schema, request.grammar),
        adapter=request.adapter or "",
    )
