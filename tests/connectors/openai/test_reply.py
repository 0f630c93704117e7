"""Answers and errors in OpenAI's shape."""

import json

import pytest

from connectors.openai.decode import BadParameter
from connectors.openai.reply import error_body, failure, models_of, state_body, whole
from schemas.errors import QueueFull, Rejected, Retryable, RoostError
from schemas.message import (
    Choice,
    Outbound,
    Problem,
    RequestState,
    Route,
    Timings,
    TokenLogprob,
    ToolCall,
    Usage,
)
from schemas.model import ModelStatus

OUTBOUND = Outbound(
    id="r1", channel="openai", conversation="c", text="hi", model="m", version="v1", finish="length",
    usage=Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=3), timings=Timings(queued_ms=1), notes=("cut",),
)  # fmt: skip


def test_a_whole_chat_answer() -> None:
    body = whole({"kind": "chat"}, OUTBOUND, 7, ("also",))
    assert body["id"] == "chatcmpl-r1"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "hi", "refusal": None}
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"] == {
        "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}
    }  # fmt: skip
    assert body["roost"]["notes"] == ["cut", "also"]
    assert (body["roost"]["request"], body["roost"]["route"]) == ("r1", None)


def test_the_route_says_why_this_model_answers() -> None:
    route = Route(kind="code", reason="failover", wanted="big", why="big has no live worker")
    routed = Outbound(id="r", channel="c", conversation="c", text="x", route=route)
    assert whole({}, routed, 7)["roost"]["route"] == {
        "kind": "code", "reason": "failover", "wanted": "big", "why": "big has no live worker"
    }  # fmt: skip


def test_tool_calls_stand_in_the_message_and_an_empty_text_is_null() -> None:
    call = ToolCall("call_1", "weather", '{"city":"Bonn"}')
    called = Outbound(id="r", channel="c", conversation="c", finish="tool_calls", tool_calls=(call,))
    [choice] = whole({"kind": "chat"}, called, 7)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant", "content": None, "refusal": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}}
        ],
    }  # fmt: skip


def test_several_answers_are_numbered_with_their_own_log_probabilities() -> None:
    several = Outbound(
        id="r", channel="c", conversation="c", text="a", logprobs=(TokenLogprob("a", -1.0),),
        more=(Choice(text="b", finish="length", logprobs=(TokenLogprob("b", -2.0),)),),
    )  # fmt: skip
    chats = whole({"kind": "chat"}, several, 7)["choices"]
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in chats] == [
        (0, "a", "stop"), (1, "b", "length")
    ]  # fmt: skip
    assert [c["logprobs"]["content"][0]["token"] for c in chats] == ["a", "b"]
    texts = whole({"kind": "completion"}, several, 7)["choices"]
    assert [(c["text"], c["logprobs"]["tokens"], c["logprobs"]["text_offset"]) for c in texts] == [
        ("a", ["a"], [0]), ("b", ["b"], [0])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("outbound", "kind", "code"),
    [
        (Outbound(id="r", channel="c", conversation="c"), None, ""),
        (Outbound(id="r", channel="c", conversation="c", finish="error"), RoostError, "internal"),
        (Outbound(id="r", channel="c", conversation="c", finish="cancelled"), Rejected, "cancelled"),
        (Outbound(id="r", channel="c", conversation="c", error=Problem("unavailable", "x")), Retryable, "unavailable"),
        (Outbound(id="r", channel="c", conversation="c", error=Problem("context", "x")), Rejected, "context"),
        (Outbound(id="r", channel="c", conversation="c", error=Problem("internal", "x")), RoostError, "internal"),
    ],
)
def test_no_failure_looks_like_success(outbound: Outbound, kind: type[RoostError] | None, code: str) -> None:
    problem = failure(outbound)
    assert type(problem) is (kind or type(None))
    assert problem is None or problem.code == code


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, BadParameter("no", "n"), ("invalid_request_error", "n", "invalid_value")),
        (401, Rejected("no", code="unauthenticated"), ("invalid_request_error", None, "invalid_api_key")),
        (404, Rejected("no", code="unknown_model"), ("invalid_request_error", "model", "model_not_found")),
        (
            400,
            Rejected("no", code="context_overflow"),
            ("invalid_request_error", "messages", "context_length_exceeded"),
        ),
        (
            400,
            Rejected("input[1] is long", code="context_overflow"),
            ("invalid_request_error", "input[1]", "context_length_exceeded"),
        ),
        (400, Rejected("no", code="bad_format"), ("invalid_request_error", "response_format", "bad_format")),
        (429, QueueFull("no"), ("rate_limit_error", None, "queue_full")),
        (503, Retryable("no"), ("server_error", None, "unavailable")),
        (500, RoostError("no"), ("server_error", None, "internal")),
    ],
)
def test_errors_have_openais_shape(status: int, error: RoostError, expected: tuple[str, str | None, str]) -> None:
    body = json.loads(error_body(status, error))["error"]
    assert (body["type"], body["param"], body["code"]) == expected
    assert body["message"] == error.message


@pytest.mark.parametrize(
    ("message", "says", "param"),
    [
        ("n: expected 1 to 16, got 20", "n: expected 1 to 16, got 20", "n"),
        ("format: the model 'm' cannot do this", "response_format: the model 'm' cannot do this", "response_format"),
        ("format.schema: nested too deep", "response_format: nested too deep", "response_format"),
        ("inputs[3]: the text is empty", "input[3]: the text is empty", "input[3]"),
        ("tools[0].name: 'a b'", "tools[0].name: 'a b'", "tools[0].name"),
        ("temperature is 9; it must be less", "temperature is 9; it must be less", "temperature"),
        ("logit_bias['9'] is no token", "logit_bias['9'] is no token", "logit_bias['9']"),
        ("there is: nothing", "there is: nothing", None),
        ("secrets: nothing", "secrets: nothing", None),
    ],
)
def test_a_refusal_from_deeper_down_names_the_parameter_in_openais_word(
    message: str, says: str, param: str | None
) -> None:
    body = json.loads(error_body(400, Rejected(message, code="bad_value")))["error"]
    assert (body["message"], body["param"]) == (says, param)


def test_the_state_of_a_dead_request_says_why() -> None:
    body = state_body(RequestState(id="r", state="dead", channel="c", conversation="c", reason="five attempts failed"))
    assert (body["state"], body["reason"], body["response"]) == ("dead", "five attempts failed", None)


def test_the_state_of_a_failed_request_has_its_error_and_no_answer() -> None:
    failed = Outbound(id="r", channel="c", conversation="c", error=Problem("context", "too long"))
    body = state_body(RequestState(id="r", state="answered", channel="c", conversation="c", reply=failed))
    assert body["error"] == {"code": "context", "message": "too long"}
    assert body["response"] is None


def test_a_ready_worker_speaks_for_its_model() -> None:
    rows = models_of(
        [
            ModelStatus(name="m", type="llama", worker="a", state="failed", reason="x"),
            ModelStatus(name="m", type="llama", worker="b", state="ready"),
            ModelStatus(name="n", type="echo", worker="", state="absent"),
        ],
        7,
    )
    assert [(row["id"], row["roost"]["state"]) for row in rows] == [("m", "ready"), ("n", "absent")]
