"""From the bytes of an OpenAI request to an `Inbound`: pure, no I/O.

Unknown fields are ignored, as clients send many; wrong types and values are refused with the path of the parameter.
What Roost cannot do yet is refused by name and never ignored, when ignoring it would change the answer's meaning.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from schemas.errors import Rejected
from schemas.message import Inbound, Message, Role, Sampling, Sender

STOPS_MAX = 16
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Unit = Annotated[float, Meta(ge=0, le=1)]
Stop = Annotated[str, Meta(max_length=256)]


class BadParameter(Rejected):
    """A refusal that names the parameter, as OpenAI's errors do."""

    def __init__(self, message: str, param: str | None = None, *, code: str = "invalid_value") -> None:
        super().__init__(message, code=code)
        self.param = param


class ImageUrl(Struct, frozen=True):
    url: str = ""


class Part(Struct, frozen=True):
    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class ChatMessage(Struct, frozen=True):
    role: str
    content: str | list[Part] | None = None
    tool_calls: Any = None
    function_call: Any = None


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class _Common(Struct, frozen=True, kw_only=True):
    """Parameters of both generating endpoints. `top_k`, `min_p`, `repeat_penalty` and `ignore_eos` are extensions."""

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
    n: int | None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None


class ResponseFormat(Struct, frozen=True):
    type: str


class ChatRequest(_Common, frozen=True, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None


class CompletionRequest(_Common, frozen=True, kw_only=True):
    prompt: str | list[Any]
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: int | None = None


R = TypeVar("R", ChatRequest, CompletionRequest)
_CHAT = msgspec.json.Decoder(ChatRequest)
_COMPLETION = msgspec.json.Decoder(CompletionRequest)


def chat(body: bytes) -> ChatRequest:
    """Decode and check the body of `POST /v1/chat/completions`; raises `BadParameter`."""
    request = _decode(_CHAT, body)
    _refuse(
        (bool(request.tools), "tools", "tools"),
        (bool(request.functions), "functions", "functions"),
        (bool(request.logprobs) or bool(request.top_logprobs), "logprobs", "log probabilities"),
        (request.audio is not None, "audio", "audio"),
        (any(m != "text" for m in request.modalities or ()), "modalities", "modalities other than text"),
    )
    if request.response_format is not None and request.response_format.type != "text":
        raise BadParameter(
            f'response_format {{"type": "{_short(request.response_format.type)}"}} is not supported yet: '
            'leave it out or send {"type": "text"}',
            "response_format",
            code="unsupported",
        )
    _refuse_common(request)
    return request


def completion(body: bytes) -> CompletionRequest:
    """Decode and check the body of `POST /v1/completions`; raises `BadParameter`."""
    request = _decode(_COMPLETION, body)
    _refuse(
        (bool(request.echo), "echo", "echoing the prompt"),
        (bool(request.suffix), "suffix", "a suffix"),
        (request.best_of not in (None, 1), "best_of", "best_of other than 1"),
        (request.logprobs is not None, "logprobs", "log probabilities"),
    )
    _refuse_common(request)
    return request


def chat_inbound(request: ChatRequest, *, id: str, key: str) -> Inbound:
    """The message for the bus. The caller brings the conversation along: ingress makes each request one of its own."""
    limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    return Inbound(
        id=id,
        conversation="",
        sender=Sender(id=_sender(key, request.user), name=request.user or key, application=key),
        history=tuple(_message(i, message) for i, message in enumerate(request.messages)),
        model=request.model or "",
        sampling=_sampling(request, limit),
        stream=bool(request.stream),
        reply={"kind": "chat"},
    )


def completion_inbound(request: CompletionRequest, *, id: str, key: str) -> Inbound:
    """The message for the bus: the prompt goes to the model as it is, without a chat template."""
    prompt = request.prompt
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise BadParameter("prompt: send one string; several prompts or tokens are not supported", "prompt")
        prompt = prompt[0]
    if not prompt:
        raise BadParameter("prompt: the text is empty", "prompt", code="empty")
    return Inbound(
        id=id,
        conversation="",
        sender=Sender(id=_sender(key, request.user), name=request.user or key, application=key),
        text=prompt,
        history=(),  # a request of its own: no session is read or written
        kind="completion",
        model=request.model or "",
        sampling=_sampling(request, request.max_tokens),
        stream=bool(request.stream),
        reply={"kind": "completion"},
    )


def ignored(request: ChatRequest | CompletionRequest) -> tuple[str, ...]:
    """Sentences about parameters that were accepted and have no effect."""
    names = [name for name in ("presence_penalty", "frequency_penalty") if getattr(request, name)]
    return tuple(f"{name} has no effect here; repeat_penalty has" for name in names)


def _decode(decoder: msgspec.json.Decoder[R], body: bytes) -> R:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        what, _, where = str(error).replace("`", "").partition(" - at ")
        what = what[:1].lower() + what[1:]
        param = where.removeprefix("$").lstrip(".")
        if not param and what.startswith("object missing required field "):
            param = what.removeprefix("object missing required field ")
        raise BadParameter(f"{param}: {what}" if param else f"the body: {what}", param or None) from None
    except UnicodeDecodeError:
        raise BadParameter("the body is not valid UTF-8", code="invalid_json") from None
    except RecursionError:
        raise BadParameter("the body is nested too deeply", code="invalid_json") from None
    except msgspec.DecodeError as error:
        raise BadParameter(f"the body is not valid JSON: {error}", code="invalid_json") from None


def _refuse(*checks: tuple[bool, str, str]) -> None:
    for asked, param, what in checks:
        if asked:
            raise BadParameter(f"{param}: {what} is not supported here; leave it out", param, code="unsupported")


def _refuse_common(request: ChatRequest | CompletionRequest) -> None:
    _refuse(
        (request.n not in (None, 1), "n", "a number of answers other than 1"),
        (bool(request.logit_bias), "logit_bias", "logit_bias"),
    )


def _sender(key: str, user: str | None) -> str:
    """The API key, and the caller's own user below it; a key's name has no slash."""
    return f"{key}/{user}" if user else key


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
    )


def _message(index: int, message: ChatMessage) -> Message:
    place = f"messages[{index}]"
    if message.role in ("tool", "function") or message.tool_calls or message.function_call:
        raise BadParameter(f"{place}: tool calls are not supported here", place, code="unsupported")
    role = ROLES.get(message.role)
    if role is None:
        raise BadParameter(
            f"{place}.role: expected system, developer, user or assistant, got {_short(message.role)!r}",
            f"{place}.role",
        )
    if message.content is None:
        raise BadParameter(f"{place}.content: expected a text", f"{place}.content")
    if isinstance(message.content, str):
        return Message(role, message.content)
    return Message(role, "\n".join(_part(f"{place}.content[{j}]", part) for j, part in enumerate(message.content)))


def _part(place: str, part: Part) -> str:
    if part.type == "text" and part.text is not None:
        return part.text
    if part.type == "text":
        raise BadParameter(f"{place}.text: expected a text", f"{place}.text")
    if part.type == "image_url":
        raise BadParameter(f"{place}: the models here take no images; send text", place, code="unsupported")
    raise BadParameter(f"{place}.type: {_short(part.type)!r} is not supported; send text", f"{place}.type")


def _short(text: str) -> str:
    """A caller's word for an error message: cut, and without what a terminal or log would obey."""
    cut = text if len(text) <= 40 else text[:40] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut)
