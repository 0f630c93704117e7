"""Answers in OpenAI's shape, and one answer out of many attempts."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.openai.reply import Chunks, Continuation, Diverged, error_body, failure, models_of, state_body, whole
from connectors.openai.request import BadParameter
from schemas.errors import QueueFull, Rejected, Retryable, RoostError
from schemas.message import Delta, Outbound, Problem, RequestState, Timings, Usage
from schemas.model import ModelStatus

OUTBOUND = Outbound(
    id="r1", channel="openai", conversation="c", text="hi", model="m", version="v1", finish="length",
    usage=Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=3), timings=Timings(queued_ms=1), notes=("cut",),
)  # fmt: skip


def delta(text: str, at: int = 0, attempt: int = 1) -> Delta:
    return Delta(request="r", attempt=attempt, at=at, text=text)


def read(*items: Delta | str) -> str:
    """What a client has read after these pieces and, last, the final text."""
    told = Continuation()
    return "".join(told.rest(item) if isinstance(item, str) else told.piece(item) for item in items)


def test_pieces_follow_each_other() -> None:
    assert read(delta("ab"), delta("cd", 2), "abcde") == "abcde"


def test_a_lost_piece_is_made_up_by_the_final_answer() -> None:
    told = Continuation()
    assert told.piece(delta("ab")) == "ab"
    assert told.piece(delta("ef", 4)) == ""
    assert told.rest("abcdef") == "cdef"


def test_a_repeated_piece_is_not_sent_twice() -> None:
    assert read(delta("ab"), delta("ab"), delta("bc", 1), "abc") == "abc"


def test_a_new_attempt_that_repeats_itself_goes_on_seamlessly() -> None:
    told = Continuation()
    assert told.piece(delta("abcd")) == "abcd"
    assert told.piece(delta("ab", 0, 2)) == ""
    assert told.piece(delta("cdef", 2, 2)) == "ef"
    assert told.piece(delta("zz", 9, 1)) == ""
    assert told.piece(delta("g", 6, 2)) == "g"
    assert told.rest("abcdefg") == ""


def test_a_new_attempt_that_differs_is_told_apart() -> None:
    told = Continuation()
    told.piece(delta("abcd"))
    told.piece(delta("ab", 0, 2))
    with pytest.raises(Diverged):
        told.piece(delta("XY", 2, 2))


def test_a_final_answer_that_differs_is_told_apart() -> None:
    told = Continuation()
    told.piece(delta("abcd"))
    with pytest.raises(Diverged):
        told.rest("abX")


def test_a_trimmed_final_answer_is_the_same_answer() -> None:
    assert read(delta("ab \n"), "ab") == "ab \n"


@given(st.text(max_size=40), st.randoms(use_true_random=False))
def test_whatever_is_lost_or_restarted_the_client_reads_the_answer_once(text: str, chance: random.Random) -> None:
    told = Continuation()
    seen = ""
    for attempt in range(1, chance.randint(1, 4) + 1):
        at = 0
        while at < len(text) and chance.random() > 0.1:
            piece = text[at : at + chance.randint(1, 5)]
            if chance.random() > 0.2:
                seen += told.piece(delta(piece, at, attempt))
                assert text.startswith(seen)
            at += len(piece)
    assert seen + told.rest(text) == text


def test_a_whole_chat_answer() -> None:
    body = whole("chat", OUTBOUND, 7, ("also",))
    assert body["id"] == "chatcmpl-r1"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "hi", "refusal": None}
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"] == {
        "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}
    }  # fmt: skip
    assert body["roost"]["notes"] == ["cut", "also"]
    assert body["roost"]["request"] == "r1"


def events(data: bytes) -> list[dict[str, object]]:
    lines = [line.removeprefix(b"data: ") for line in data.split(b"\n\n") if line]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


@pytest.mark.parametrize("usage", [True, False])
def test_chunks_are_valid_json_with_usage_only_where_asked(usage: bool) -> None:
    chunks = Chunks("chat", "r1", 'm"x', include_usage=usage)
    first, text = events(chunks.first + chunks.text('a "quote"\n\u2028\x00'))
    last = events(chunks.last(OUTBOUND))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text["choices"][0]["delta"] == {"content": 'a "quote"\n\u2028\x00'}
    assert last[0]["choices"][0] == {"index": 0, "finish_reason": "length", "delta": {}}
    assert {chunk["id"] for chunk in (first, text, *last)} == {"chatcmpl-r1"}
    assert text["model"] == 'm"x'
    assert ("usage" in text) == usage
    assert len(last) == (2 if usage else 1)
    assert chunks.last(OUTBOUND).endswith(b"data: [DONE]\n\n")
    if usage:
        assert last[1]["choices"] == []
        assert last[1]["usage"]["total_tokens"] == 7


def test_chunks_of_a_completion() -> None:
    chunks = Chunks("completion", "r1", "m", include_usage=False)
    assert chunks.first == b""
    [text] = events(chunks.text("abc"))
    assert text["object"] == "text_completion"
    assert text["choices"] == [{"index": 0, "text": "abc", "finish_reason": None}]


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
        (429, QueueFull("no"), ("rate_limit_error", None, "queue_full")),
        (503, Retryable("no"), ("server_error", None, "unavailable")),
        (500, RoostError("no"), ("server_error", None, "internal")),
    ],
)
def test_errors_have_openais_shape(status: int, error: RoostError, expected: tuple[str, str | None, str]) -> None:
    body = json.loads(error_body(status, error))["error"]
    assert (body["type"], body["param"], body["code"]) == expected
    assert body["message"] == "no"


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
