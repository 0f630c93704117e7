"""From what the bus says to the words of OpenAI's API: pure, no I/O. Streams are made in `chunks.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from connectors.openai.embedding import embeddings_body
from connectors.openai.logprobs import Offsets, chat_logprobs, completion_logprobs
from connectors.openai.pictures import EVENT, Shown, images_body, linked
from schemas.errors import Rejected, Retryable, RoostError
from schemas.message import Choice, Outbound, Problem, RequestState, ToolCall, Usage
from schemas.model import ModelStatus

encode = msgspec.json.Encoder().encode

Shape = Literal["chat", "completion", "embedding", "image"]
"""The endpoint whose words an answer is told in; it travels in the request's `reply`."""
PASSING = frozenset({"busy", "disconnected", "draining", "exhausted", "queue_full", "timeout", "unavailable"})
"""Codes of an answer's problem after which the same request may succeed."""
PREFIX: dict[Shape, str] = {"chat": "chatcmpl-", "completion": "cmpl-", "embedding": "embd-", "image": "img-"}
OBJECT: dict[Shape, str] = {
    "chat": "chat.completion", "completion": "text_completion", "embedding": "list", "image": "list",
}  # fmt: skip
TYPE = {
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}
CODE = {
    "unauthenticated": "invalid_api_key",
    "unknown_model": "model_not_found",
    "context_overflow": "context_length_exceeded",
}
PARAM = {
    "unknown_model": "model",
    "unknown_adapter": "adapter",
    "bad_format": "response_format",
    "bad_tools": "tools",
    "context_overflow": "messages",
}
FIELD = re.compile(r"([a-z_]+)([\[.][^:\s]*)?(?=:? )")
"""How refusals of admission and of workers begin: with the name of the field."""
THEIRS = {
    "attachments": "image", "format": "response_format", "inputs": "input", "negative": "negative_prompt",
    "text": "prompt",
}  # fmt: skip
"""Fields that OpenAI calls otherwise than Roost does."""
FIELDS = frozenset({
    "adapter", "attachments", "format", "frequency_penalty", "guidance", "input", "inputs", "kind", "logit_bias",
    "logprobs", "max_tokens", "messages", "min_p", "n", "negative", "presence_penalty", "scheduler", "seed", "size",
    "steps", "stop", "strength", "temperature", "text", "tool_choice", "tools", "top_p",
})  # fmt: skip


def error_body(status: int, error: RoostError) -> bytes:
    """OpenAI's shape of an error."""
    message, param = error.message, getattr(error, "param", None)
    if param is None and isinstance(error, Rejected):
        message, param = _named(error.message)
    param = param or PARAM.get(error.code)
    kind = TYPE.get(status, "invalid_request_error")
    return encode({"error": {"message": message, "type": kind, "param": param, "code": code_of(error.code)}})


def code_of(code: str) -> str:
    """OpenAI's word for one of ours, where it has one."""
    return CODE.get(code, code)


def _named(message: str) -> tuple[str, str | None]:
    """The sentence, and the parameter it begins with, in OpenAI's word."""
    found = FIELD.match(message)
    if found is None or found[1] not in FIELDS:
        return message, None
    theirs = THEIRS.get(found[1], found[1])
    param = theirs if theirs == "response_format" else theirs + (found[2] or "")
    return param + message[found.end() :], param


def error_event(status: int, error: RoostError, request: str) -> bytes:
    """The same inside a stream that has begun, with the id under which the whole answer can be asked for."""
    named = RoostError(f"{error.message} (request {request})", code=error.code)
    return b"data: " + error_body(status, named) + b"\n\n"


def failure(outbound: Outbound) -> RoostError | None:
    """The error that an answer without success stands for; an empty answer is never taken for success by itself."""
    problem = outbound.error
    if problem is None and outbound.finish == "error":
        problem = Problem("internal", "the model gave no answer; the log has the details")
    if problem is None and outbound.finish == "cancelled":
        problem = Problem("cancelled", "the request was cancelled")
    if problem is None:
        return None
    if problem.code in PASSING:
        return Retryable(problem.message, code=problem.code)
    if problem.code == "internal":
        return RoostError(problem.message)
    return Rejected(problem.message, code=problem.code)


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def roost_of(outbound: Outbound, notes: Sequence[str] = ()) -> dict[str, Any]:
    """What OpenAI's shape has no place for."""
    route = outbound.route
    return {
        "request": outbound.id,
        "version": outbound.version,
        "route": None if route is None else {name: getattr(route, name) for name in route.__struct_fields__},
        "timings": {
            "queued_ms": outbound.timings.queued_ms,
            "first_token_ms": outbound.timings.first_token_ms,
            "total_ms": outbound.timings.total_ms,
        },
        "notes": [*outbound.notes, *notes],
        **({"pictures": msgspec.to_builtins(outbound.attachments)} if outbound.attachments else {}),
    }


def answers_of(outbound: Outbound) -> tuple[Choice, ...]:
    """All answers to the prompt, the first one first."""
    first = Choice(
        text=outbound.text, finish=outbound.finish, tool_calls=outbound.tool_calls, logprobs=outbound.logprobs
    )
    return (first, *outbound.more)


def calls_of(calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's shape."""
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]


def whole(
    reply: Mapping[str, str],
    outbound: Outbound,
    created: int,
    notes: Sequence[str] = (),
    shown: Sequence[Shown] = (),
) -> dict[str, Any]:
    """The answer as one object, in the words of the endpoint that `reply` names. `shown`: its pictures."""
    shape = shape_of(reply)
    if shape == "image":
        return images_body(outbound, reply, shown, created, roost_of(outbound, notes))
    if shape == "embedding":
        body, more = embeddings_body(outbound, reply)
        return {**body, "roost": roost_of(outbound, (*notes, *more))}
    outbound = linked(outbound, shown)
    return {
        "id": PREFIX[shape] + outbound.id,
        "object": OBJECT[shape],
        "created": created,
        "model": outbound.model,
        "system_fingerprint": outbound.version or None,
        "choices": [_choice(shape, i, answer) for i, answer in enumerate(answers_of(outbound))],
        "usage": usage_of(outbound.usage),
        "roost": roost_of(outbound, notes),
    }


def shape_of(reply: Mapping[str, str]) -> Shape:
    kind = reply.get("kind")
    if kind in EVENT:
        return "image"
    return "completion" if kind == "completion" else "embedding" if kind == "embedding" else "chat"


def _choice(shape: Shape, index: int, answer: Choice) -> dict[str, Any]:
    if shape == "completion":
        logprobs = completion_logprobs(answer.logprobs, Offsets())
        return {"index": index, "text": answer.text, "logprobs": logprobs, "finish_reason": answer.finish}
    content = None if answer.tool_calls and not answer.text else answer.text
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if answer.tool_calls:
        message["tool_calls"] = calls_of(answer.tool_calls)
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(answer.logprobs),
        "finish_reason": answer.finish,
    }


def state_body(state: RequestState, shown: Sequence[Shown] = ()) -> dict[str, Any]:
    """`GET /v1/requests/{id}`: the state, and the answer in its own shape once there is one, with its pictures."""
    body: dict[str, Any] = {
        "id": state.id,
        "object": "roost.request",
        "state": state.state,
        "model": state.model,
        "place": state.place,
        "reason": state.reason or None,
        "updated_at": state.updated_at,
        "response": None,
        "error": None,
    }
    if state.reply is not None:
        problem = failure(state.reply)
        try:
            if problem is None or state.reply.text:
                body["response"] = whole(state.reply.reply, state.reply, int(state.updated_at), shown=shown)
        except RoostError as error:  # vectors that cannot be written as they were asked for
            problem = error
        if problem is not None:
            body["error"] = {"code": problem.code, "message": problem.message}
    return body


def models_of(statuses: Iterable[ModelStatus], created: int) -> list[dict[str, Any]]:
    """One entry for each model, over all its workers; a ready worker speaks for it before others."""
    best: dict[str, ModelStatus] = {}
    for status in statuses:
        known = best.get(status.name)
        if known is None or (known.state != "ready" and status.state == "ready"):
            best[status.name] = status
    return [
        {
            "id": status.name,
            "object": "model",
            "created": created,
            "owned_by": "roost",
            "roost": {
                "type": status.type,
                "state": status.state,
                "version": status.version,
                "context": status.context,
                "kinds": status.kinds,
                "abilities": status.abilities,
                "description": status.description,
                "reason": status.reason,
            },
        }
        for status in best.values()
    ]
