"""From what the bus says to the words of OpenAI's API: pure, no I/O.

What always holds: what a stream has sent is a beginning of the answer that is kept; where a new attempt writes
something else, `Continuation` raises `Diverged` instead of gluing two answers together.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from schemas.errors import Rejected, Retryable, RoostError
from schemas.message import Delta, Kind, Outbound, Problem, RequestState, Usage
from schemas.model import ModelStatus

encode = msgspec.json.Encoder().encode

PASSING = frozenset({"busy", "disconnected", "draining", "exhausted", "queue_full", "timeout", "unavailable"})
"""Codes of an answer's problem after which the same request may succeed."""
PREFIX: dict[Kind, str] = {"chat": "chatcmpl-", "completion": "cmpl-"}
OBJECT: dict[Kind, str] = {"chat": "chat.completion", "completion": "text_completion"}
TYPE = {
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}
CODE = {"unauthenticated": "invalid_api_key", "unknown_model": "model_not_found"}
PARAM = {"unknown_model": "model"}
DONE = b"data: [DONE]\n\n"
COMMENT = b": waiting\n\n"


class Diverged(RoostError):
    """A new attempt began differently from what the client has already read."""

    code = "diverged"


def error_body(status: int, error: RoostError) -> bytes:
    """OpenAI's shape of an error."""
    param = getattr(error, "param", None) or PARAM.get(error.code)
    kind = TYPE.get(status, "invalid_request_error")
    return encode(
        {"error": {"message": error.message, "type": kind, "param": param, "code": CODE.get(error.code, error.code)}}
    )


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
    return {
        "request": outbound.id,
        "version": outbound.version,
        "timings": {
            "queued_ms": outbound.timings.queued_ms,
            "first_token_ms": outbound.timings.first_token_ms,
            "total_ms": outbound.timings.total_ms,
        },
        "notes": [*outbound.notes, *notes],
    }


def whole(kind: Kind, outbound: Outbound, created: int, notes: Sequence[str] = ()) -> dict[str, Any]:
    """The answer as one object."""
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": outbound.finish}
    if kind == "chat":
        choice["message"] = {"role": "assistant", "content": outbound.text, "refusal": None}
    else:
        choice["text"] = outbound.text
    return {
        "id": PREFIX[kind] + outbound.id,
        "object": OBJECT[kind],
        "created": created,
        "model": outbound.model,
        "system_fingerprint": outbound.version or None,
        "choices": [choice],
        "usage": usage_of(outbound.usage),
        "roost": roost_of(outbound, notes),
    }


class Chunks:
    """Makes the events of one stream. All but the text is encoded once: a chunk costs one encoding of its text."""

    def __init__(self, kind: Kind, request: str, model: str, *, include_usage: bool) -> None:
        self.kind = kind
        self.include_usage = include_usage
        self._base: dict[str, Any] = {
            "id": PREFIX[kind] + request,
            "object": "chat.completion.chunk" if kind == "chat" else OBJECT[kind],
            "created": int(time.time()),
            "model": model,
        }
        head = b"data: " + encode(self._base)[:-1]
        tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        opening = b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]'
        self.first = head + opening + tail if kind == "chat" else b""
        name = b'"delta":{"content":' if kind == "chat" else b'"text":'
        self._before = head + b',"choices":[{"index":0,' + name
        self._after = (b"}" if kind == "chat" else b"") + b',"finish_reason":null}]' + tail

    def text(self, text: str) -> bytes:
        return self._before + encode(text) + self._after

    def last(self, outbound: Outbound, notes: Sequence[str] = ()) -> bytes:
        """The finish chunk, the usage if asked for, and the end."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": outbound.finish}
        if self.kind == "chat":
            choice["delta"] = {}
        else:
            choice["text"] = ""
        end: dict[str, Any] = {**self._base, "choices": [choice], "roost": roost_of(outbound, notes)}
        if not self.include_usage:
            return b"data: " + encode(end) + b"\n\n" + DONE
        usage = {**self._base, "choices": [], "usage": usage_of(outbound.usage)}
        return b"data: " + encode({**end, "usage": None}) + b"\n\ndata: " + encode(usage) + b"\n\n" + DONE


class Continuation:
    """Which part of each piece is new to a client that must read one answer, over all attempts and gaps."""

    def __init__(self) -> None:
        self._sent: list[str] = []
        self._length = 0
        self._attempt = 0
        self._again: str | None = None
        """While a new attempt repeats what was sent: all of that; else None."""
        self._at = 0

    def piece(self, delta: Delta) -> str:
        """The new text in `delta`, often all of it. Raises `Diverged`."""
        if delta.attempt < self._attempt or not delta.text:
            return ""
        if delta.attempt > self._attempt:
            self._attempt, self._at = delta.attempt, 0
            self._again = "".join(self._sent) if self._length else None
        if delta.at > self._at:
            return ""  # a piece was lost on the way; the final answer brings it
        text = delta.text[self._at - delta.at :]
        self._at += len(text)
        if self._again is not None:
            begin = self._at - len(text)
            known = self._again[begin : self._at]
            if not text.startswith(known):
                raise _diverged()
            text = text[len(known) :]
            if self._at >= self._length:
                self._again = None
        return self._keep(text)

    def rest(self, text: str) -> str:
        """What is still missing of the final `text`. Raises `Diverged`."""
        sent = "".join(self._sent)
        if text.startswith(sent):
            return self._keep(text[len(sent) :])
        if sent.startswith(text) and not sent[len(text) :].strip():
            return ""  # the final answer is trimmed
        raise _diverged()

    def _keep(self, text: str) -> str:
        if text:
            self._sent.append(text)
            self._length += len(text)
        return text


def _diverged() -> Diverged:
    return Diverged("the model was restarted and now answers differently; fetch the whole answer by its request id")


def state_body(state: RequestState) -> dict[str, Any]:
    """`GET /v1/requests/{id}`: the state, and the answer in its own shape once there is one."""
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
        kind: Kind = "completion" if state.reply.reply.get("kind") == "completion" else "chat"
        problem = failure(state.reply)
        if problem is not None:
            body["error"] = {"code": problem.code, "message": problem.message}
        if problem is None or state.reply.text:
            body["response"] = whole(kind, state.reply, int(state.updated_at))
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
                "description": status.description,
                "reason": status.reason,
            },
        }
        for status in best.values()
    ]
