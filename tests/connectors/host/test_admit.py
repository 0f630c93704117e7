"""Admission: what a message may be, and how many one sender may send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.host.admit import SENDERS_REMEMBERED, Meter, check_message
from schemas.config import LimitConfig
from schemas.errors import QueueFull, Rejected
from schemas.message import Attachment, Inbound, Message, Sampling, Sender, Tool, ToolCall

LIMITS = LimitConfig(text_chars_max=100, history_messages_max=4, attachments_max=2)
PICTURE = Attachment(sha256="0" * 64, media_type="image/png", size_bytes=1)


def inbound(text: str = "hi", **fields: Any) -> Inbound:
    return Inbound(id="r", conversation="c", sender=Sender("s"), text=text, **fields)


CALLED = Message("assistant", "", (ToolCall("c1", "weather", "{}"),))


GOOD = [
    inbound("x" * 100),
    inbound("世界" * 50),
    inbound("", attachments=(PICTURE,)),
    inbound("", history=(Message("user", "hi"),)),
    inbound("", history=(Message("user", "hi"), CALLED, Message("tool", "x", tool_call="c1"))),
    inbound("", kind="embedding", inputs=("a", "b"), history=()),
    inbound(sampling=Sampling(temperature=0.0, top_p=1.0, seed=2**32 - 1, max_tokens=1, stop=("x",) * 16)),
]
BAD: list[tuple[Inbound, str]] = [
    (inbound("x" * 101), "too_large"),
    (inbound(""), "empty"),
    (inbound(" \n\t"), "empty"),
    (inbound("", history=(Message("system", ""),)), "empty"),
    (inbound("a\0b"), "bad_text"),
    (inbound("\ud800"), "bad_text"),
    (inbound(system="x" * 101), "too_large"),
    (inbound(system="\0"), "bad_text"),
    (inbound("", history=(Message("user", "x"),) * 5), "too_large"),
    (inbound("", history=(Message("user", "x" * 101),)), "too_large"),
    (inbound("", history=(Message("user", "a\0"),)), "bad_text"),
    (inbound(attachments=(PICTURE,) * 3), "too_large"),
    (inbound("", history=(Message("tool", "x", tool_call="c1"),)), "bad_value"),
    (inbound("", history=(CALLED, Message("tool", "x", tool_call="c2"))), "bad_value"),
    (inbound("", history=(Message("assistant", "", (ToolCall("c1", "a b"),)),)), "bad_value"),
    (inbound("", history=(Message("assistant", "", (ToolCall("c1", "f", "x" * 101),)),)), "too_large"),
    (inbound("", history=(Message("assistant", "", (ToolCall("c1", "f", "x" * 100),) * 5),)), "too_large"),
    (inbound("", history=(Message("assistant", "", (ToolCall("c1", "f"),) * 129),)), "too_large"),
    (inbound(sampling=Sampling(tools=(Tool("f"),))), "unsupported"),
    (inbound("", kind="embedding", history=()), "bad_value"),
    (inbound("hi", kind="chat", inputs=("a",), history=()), "bad_value"),
    (inbound("", kind="embedding", inputs=("a", " "), history=()), "empty"),
    (inbound("", kind="embedding", inputs=("x" * 101,), history=()), "too_large"),
    (inbound("", kind="embedding", inputs=("a\0",), history=()), "bad_text"),
    (inbound(sampling=Sampling(max_tokens=0)), "bad_value"),
    (inbound(sampling=Sampling(temperature=-0.1)), "bad_value"),
    (inbound(sampling=Sampling(temperature=float("nan"))), "bad_value"),
    (inbound(sampling=Sampling(top_p=1.1)), "bad_value"),
    (inbound(sampling=Sampling(min_p=-1.0)), "bad_value"),
    (inbound(sampling=Sampling(seed=2**32)), "bad_value"),
    (inbound(sampling=Sampling(stop=("",))), "bad_value"),
    (inbound(sampling=Sampling(stop=("x" * 257,))), "bad_value"),
    (inbound(sampling=Sampling(stop=("x",) * 17)), "bad_value"),
]


@pytest.mark.parametrize("message", GOOD, ids=range(len(GOOD)))
def test_what_is_within_the_limits_may_come_in(message: Inbound) -> None:
    check_message(message, LIMITS)


@pytest.mark.parametrize(("message", "code"), BAD, ids=range(len(BAD)))
def test_what_is_not_is_refused_with_its_reason(message: Inbound, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_message(message, LIMITS)
    assert refused.value.code == code
    assert refused.value.message


def test_a_sender_has_a_burst_and_then_a_rate() -> None:
    meter = Meter(LimitConfig(sender_burst=3, sender_rate_per_s=2.0))
    for _ in range(3):
        meter.admit("ann", 100.0)
    with pytest.raises(Rejected) as refused:
        meter.admit("ann", 100.1)
    assert refused.value.code == "rate_limited"
    meter.admit("bob", 100.1)
    meter.admit("ann", 100.6)
    with pytest.raises(Rejected):
        meter.admit("ann", 100.6)


def test_unanswered_messages_of_one_sender_have_a_limit() -> None:
    meter = Meter(LimitConfig(sender_queue_max=2))
    for request in ("r1", "r2"):
        meter.admit("ann", 0.0)
        meter.opened("ann", request)
    with pytest.raises(QueueFull) as full:
        meter.admit("ann", 0.0)
    assert full.value.code == "sender_full"
    meter.admit("bob", 0.0)
    meter.closed("unknown")
    meter.closed("r1")
    meter.closed("r1")
    meter.admit("ann", 0.0)


def test_no_more_senders_are_remembered_than_the_limit() -> None:
    meter = Meter(LimitConfig(sender_burst=1, sender_rate_per_s=0.001))
    meter.admit("first", 0.0)
    for i in range(SENDERS_REMEMBERED):
        meter.admit(f"s{i}", 0.0)
    meter.admit("first", 0.0)  # forgotten, so it has its burst again
    with pytest.raises(Rejected):
        meter.admit(f"s{SENDERS_REMEMBERED - 1}", 0.0)


@given(st.lists(st.floats(0.0, 1.0), max_size=60))
def test_over_any_time_no_more_is_admitted_than_burst_and_rate(pauses: list[float]) -> None:
    meter, now, admitted = Meter(LimitConfig(sender_burst=5, sender_rate_per_s=3.0)), 0.0, 0
    for pause in pauses:
        now += pause
        try:
            meter.admit("ann", now)
            admitted += 1
        except Rejected:
            pass
    assert admitted <= 5 + 3.0 * now + 1e-6
