"""The events of one stream. Pure.

What always holds: every answer of the stream is opened before its first text and finished once, and its tool calls
come whole in one chunk before its finish.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from connectors.openai.continuation import Continuation, New
from connectors.openai.logprobs import Offsets, chat_logprobs, completion_logprobs
from connectors.openai.pictures import Shown, linked
from connectors.openai.reply import OBJECT, PREFIX, Shape, answers_of, calls_of, encode, roost_of, usage_of
from schemas.message import Delta, Outbound, TokenLogprob, ToolCall

DONE = b"data: [DONE]\n\n"
COMMENT = b": waiting\n\n"


class Chunks:
    """Makes the chunks. All but the text is encoded once for each answer: a chunk costs one encoding of its text."""

    def __init__(self, shape: Shape, request: str, model: str, *, include_usage: bool) -> None:
        self.shape = shape
        self.include_usage = include_usage
        self._base: dict[str, Any] = {
            "id": PREFIX[shape] + request,
            "object": "chat.completion.chunk" if shape == "chat" else OBJECT[shape],
            "created": int(time.time()),
            "model": model,
        }
        self._head = b"data: " + encode(self._base)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._around: dict[int, tuple[bytes, bytes]] = {}
        self._offsets: dict[int, Offsets] = defaultdict(Offsets)

    def first(self, index: int = 0) -> bytes:
        """What opens an answer: nothing in a completion."""
        return self._chunk(index, {"role": "assistant", "content": ""}) if self.shape == "chat" else b""

    def text(self, text: str, index: int = 0, logprobs: tuple[TokenLogprob, ...] = ()) -> bytes:
        if logprobs:
            return self._chunk(index, {"content": text} if self.shape == "chat" else text, logprobs)
        if index not in self._around:
            name = b'"delta":{"content":' if self.shape == "chat" else b'"text":'
            before = self._head + b'{"index":%d,' % index + name
            self._around[index] = (
                before,
                (b"}" if self.shape == "chat" else b"") + b',"finish_reason":null}' + self._tail,
            )
        before, after = self._around[index]
        return before + encode(text) + after

    def calls(self, calls: tuple[ToolCall, ...], index: int = 0) -> bytes:
        """All tool calls of an answer, whole."""
        return self._chunk(index, {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls_of(calls))]})

    def finish(self, reason: str, index: int = 0, roost: dict[str, Any] | None = None) -> bytes:
        """The end of one answer; `roost` stands in the last one's."""
        nothing: dict[str, Any] = {"delta": {}} if self.shape == "chat" else {"text": ""}
        choice = {"index": index, **nothing, "finish_reason": reason}
        end = {**self._base, "choices": [choice], **({"usage": None} if self.include_usage else {})}
        return b"data: " + encode(end if roost is None else {**end, "roost": roost}) + b"\n\n"

    def usage(self, outbound: Outbound) -> bytes:
        """The usage where it was asked for, and the end of the stream."""
        if not self.include_usage:
            return DONE
        return b"data: " + encode({**self._base, "choices": [], "usage": usage_of(outbound.usage)}) + b"\n\n" + DONE

    def _chunk(self, index: int, what: dict[str, Any] | str, logprobs: tuple[TokenLogprob, ...] = ()) -> bytes:
        choice: dict[str, Any] = {"index": index, ("delta" if self.shape == "chat" else "text"): what}
        if logprobs:
            chat = self.shape == "chat"
            choice["logprobs"] = (
                chat_logprobs(logprobs) if chat else completion_logprobs(logprobs, self._offsets[index])
            )
        return self._head + encode({**choice, "finish_reason": None}) + self._tail


class Script:
    """What of each answer a client has read, and the events that tell it the rest."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._told: dict[int, Continuation] = defaultdict(Continuation)
        self._opened: set[int] = set()

    def piece(self, delta: Delta) -> bytes:
        """Events for `delta`, or nothing. Raises `Diverged`."""
        new = self._told[delta.choice].piece(delta)
        return self._open(delta.choice) + self._text(new, delta.choice) if new.text else b""

    def end(self, outbound: Outbound, notes: Sequence[str] = (), shown: Sequence[Shown] = ()) -> bytes:
        """All that is missing, with links to its pictures, and the end. Raises `Diverged`."""
        answers = answers_of(linked(outbound, shown))
        events = []
        for i, answer in enumerate(answers):
            new = self._told[i].rest(answer.text, answer.logprobs)
            events += [self._open(i), self._text(new, i)]
            if answer.tool_calls:
                events.append(self._chunks.calls(answer.tool_calls, i))
            roost = roost_of(outbound, notes) if i == len(answers) - 1 else None
            events.append(self._chunks.finish(answer.finish, i, roost))
        return b"".join(events) + self._chunks.usage(outbound)

    def _open(self, index: int) -> bytes:
        if index in self._opened:
            return b""
        self._opened.add(index)
        return self._chunks.first(index)

    def _text(self, new: New, index: int) -> bytes:
        return self._chunks.text(new.text, index, new.logprobs) if new.text or new.logprobs else b""
