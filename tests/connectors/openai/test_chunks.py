"""The events of a stream: one answer or several, text, log probabilities and tool calls."""

import json
from typing import Any

import pytest

from connectors.openai.chunks import Chunks, Script
from schemas.message import Choice, Delta, Outbound, TokenLogprob, ToolCall, Usage

OUTBOUND = Outbound(
    id="r1", channel="openai", conversation="c", text="hi", model="m", version="v1", finish="length",
    usage=Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=3),
)  # fmt: skip
CALL = ToolCall("call_1", "weather", '{"city":"Köln"}')


def events(data: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in data.split(b"\n\n") if line]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def choices(data: bytes) -> list[dict[str, Any]]:
    return [choice for event in events(data) for choice in event["choices"]]


@pytest.mark.parametrize("usage", [True, False])
def test_chunks_are_valid_json_with_usage_only_where_asked(usage: bool) -> None:
    chunks = Chunks("chat", "r1", 'm"x', include_usage=usage)
    first, text = events(chunks.first() + chunks.text('a "quote"\n\u2028\x00'))
    last = events(chunks.finish("length") + chunks.usage(OUTBOUND))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text["choices"][0]["delta"] == {"content": 'a "quote"\n\u2028\x00'}
    assert last[0]["choices"][0] == {"index": 0, "finish_reason": "length", "delta": {}}
    assert {chunk["id"] for chunk in (first, text, *last)} == {"chatcmpl-r1"}
    assert text["model"] == 'm"x'
    assert ("usage" in text) == ("usage" in first) == usage
    assert len(last) == (2 if usage else 1)
    assert chunks.usage(OUTBOUND).endswith(b"data: [DONE]\n\n")
    if usage:
        assert last[1]["choices"] == []
        assert last[1]["usage"]["total_tokens"] == 7


def test_chunks_of_a_completion() -> None:
    chunks = Chunks("completion", "r1", "m", include_usage=False)
    assert chunks.first() == b""
    [text] = events(chunks.text("abc"))
    assert text["object"] == "text_completion"
    assert text["choices"] == [{"index": 0, "text": "abc", "finish_reason": None}]


def test_a_tool_call_comes_whole_before_the_finish() -> None:
    script = Script(Chunks("chat", "r1", "m", include_usage=False))
    outbound = Outbound(id="r1", channel="c", conversation="c", finish="tool_calls", tool_calls=(CALL, CALL))
    opening, called, finish = choices(script.end(outbound))
    assert opening["delta"]["role"] == "assistant"
    assert called["delta"]["tool_calls"] == [
        {"index": i, "id": "call_1", "type": "function",
         "function": {"name": "weather", "arguments": '{"city":"Köln"}'}} for i in range(2)
    ]  # fmt: skip
    assert called["finish_reason"] is None
    assert (finish["delta"], finish["finish_reason"]) == ({}, "tool_calls")


def test_several_answers_are_interleaved_and_each_is_opened_and_finished_once() -> None:
    script = Script(Chunks("chat", "r1", "m", include_usage=False))
    data = script.piece(Delta(request="r1", text="a", choice=1))
    data += script.piece(Delta(request="r1", text="A", choice=0))
    data += script.piece(Delta(request="r1", text="b", at=1, choice=1))
    end = script.end(
        Outbound(
            id="r1",
            channel="c",
            conversation="c",
            text="AB",
            finish="stop",
            more=(
                Choice(text="abc", finish="length"),
                Choice(text="never streamed", tool_calls=(CALL,), finish="tool_calls"),
            ),
        )
    )
    told = choices(data + end)
    texts = ["".join(c["delta"].get("content") or "" for c in told if c["index"] == i) for i in range(3)]
    assert texts == ["AB", "abc", "never streamed"]
    assert [c["index"] for c in told if "role" in c["delta"]] == [1, 0, 2]
    assert [(c["index"], c["finish_reason"]) for c in told if c["finish_reason"]] == [
        (0, "stop"), (1, "length"), (2, "tool_calls")
    ]  # fmt: skip
    assert [i for i, event in enumerate(events(end)) if "roost" in event] == [len(events(end)) - 1]


@pytest.mark.parametrize("shape", ["chat", "completion"])
def test_log_probabilities_come_with_their_text_and_once(shape: str) -> None:
    def token(text: str) -> TokenLogprob:
        return TokenLogprob(text, -0.5, tuple(text.encode()))

    script = Script(Chunks(shape, "r1", "m", include_usage=False))  # type: ignore[arg-type]
    data = script.piece(Delta(request="r1", text="héllo", logprobs=(token("hé"), token("llo"))))
    outbound = Outbound(
        id="r1", channel="c", conversation="c", text="héllo you", logprobs=tuple(map(token, ("hé", "llo", " you")))
    )
    told = [c["logprobs"] for c in choices(data + script.end(outbound)) if c.get("logprobs")]
    if shape == "chat":
        assert [t["token"] for one in told for t in one["content"]] == ["hé", "llo", " you"]
    else:
        assert [t for one in told for t in one["tokens"]] == ["hé", "llo", " you"]
        assert [t for one in told for t in one["text_offset"]] == [0, 2, 5]
