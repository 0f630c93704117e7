"""Pre- and postprocessing: values in, values out."""

from __future__ import annotations

from schemas.config import ModelConfig
from schemas.errors import Retryable
from schemas.message import (
    Attachment,
    Choice,
    Format,
    Inbound,
    Message,
    Problem,
    Route,
    Sampling,
    Sender,
    Timings,
    TokenLogprob,
    ToolCall,
    Usage,
)
from schemas.picture import Drawn
from schemas.session import Entry
from workers import Finished
from workers.host.pipeline import entries_of, job_of, refusal_of, reply_of, seed_of, state_of
from workers.host.prompts import FRONT_END

MODEL = ModelConfig(name="m", type="echo")
INBOUND = Inbound(
    id="r1", conversation="c1", sender=Sender("ann"), text="and now?", channel="web", model="m", reply={"to": "x"}
)


def entry(role: str, text: str, request: str, error: Problem | None = None) -> Entry:
    return Entry(role=role, text=text, request=request, at=1.0, error=error)  # type: ignore[arg-type]


def lines(*args: object, **fields: object) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in job_of(*args, **fields).messages]  # type: ignore[arg-type]


def test_the_conversation_comes_before_the_newest_message() -> None:
    history = [entry("user", "hi", "r0"), entry("assistant", "hello", "r0")]
    assert lines(INBOUND, history, MODEL) == [("user", "hi"), ("assistant", "hello"), ("user", "and now?")]


def test_exchanges_that_failed_are_left_out() -> None:
    failed = Problem("model_failed", "no")
    history = [
        entry("user", "hi", "r0"),
        entry("assistant", "hello", "r0"),
        entry("user", "broken", "rx"),
        entry("assistant", "", "rx", failed),
    ]
    assert lines(INBOUND, history, MODEL) == [("user", "hi"), ("assistant", "hello"), ("user", "and now?")]


def test_an_answer_of_pictures_is_a_line_of_its_own() -> None:
    drawn = Drawn(prompt="a red boat", seed=1, width=64, height=64, steps=4)
    file = Attachment(sha256="0" * 64, media_type="image/png", size_bytes=1, drawn=drawn)
    asked = Entry(role="user", text="/image a red boat", request="r0", at=1.0)
    answered = Entry(role="assistant", text="", request="r0", at=2.0, attachments=(file, file))
    assert lines(INBOUND, [asked, answered], MODEL)[1:] == [
        ("assistant", "(a picture: a red boat)"),
        ("user", "and now?"),
    ]


def test_an_exchange_that_failed_first_and_was_answered_later_counts_once() -> None:
    history = [
        entry("user", "hi", "r0"),
        entry("assistant", "", "r0", Problem("exhausted", "no")),
        entry("user", "hi", "r0"),
        entry("assistant", "hello", "r0"),
    ]
    assert lines(INBOUND, history, MODEL) == [("user", "hi"), ("assistant", "hello"), ("user", "and now?")]


def test_a_history_that_the_caller_brings_replaces_the_stored_one() -> None:
    inbound = Inbound(id="r", conversation="r", sender=Sender("k"), history=(Message("user", "brought"),))
    assert lines(inbound, [entry("user", "stored", "r0")], MODEL) == [("user", "brought")]


def test_the_system_prompt_is_the_requests_or_the_models_and_stands_first() -> None:
    model = ModelConfig(name="m", type="echo", system="Be brief.")
    asked = Inbound(id="r", conversation="c", sender=Sender("s"), text="hi", system="Be long.")
    brought = Inbound(
        id="r", conversation="c", sender=Sender("s"), history=(Message("system", "Own."), Message("user", "x"))
    )
    raw = Inbound(id="r", conversation="c", sender=Sender("s"), text="raw", kind="completion")
    assert lines(INBOUND, [], model)[0] == ("system", "Be brief.")
    assert lines(asked, [], model)[0] == ("system", "Be long.")
    assert lines(brought, [], model) == [("system", "Own."), ("user", "x")]
    assert lines(raw, [], model) == [("user", "raw")]
    empty = Inbound(id="r", conversation="c", sender=Sender("s"), text="hi", system="")
    assert lines(empty, [], model) == [("user", "hi")], "an empty one is none"


def code(**fields: object) -> Inbound:
    return Inbound(id="r", conversation="c", sender=Sender("s"), text="a login form", kind="code", **fields)  # type: ignore[arg-type]


def test_a_code_question_without_a_system_prompt_gets_roosts_own_as_the_operators_words() -> None:
    job = job_of(code(), [], MODEL)
    assert [(m.role, m.text) for m in job.messages] == [("system", FRONT_END), ("user", "a login form")]
    assert (job.kind, job.shared) == ("chat", 1)


def test_whoever_has_a_system_prompt_keeps_it_for_code_too() -> None:
    model = ModelConfig(name="m", type="echo", system="Be brief.")
    silent = ModelConfig(name="m", type="echo", system="")
    assert lines(code(), [], model)[0] == ("system", "Be brief.")
    assert lines(code(system="Own."), [], MODEL)[0] == ("system", "Own.")
    for inbound, configured in ((code(system=""), MODEL), (code(), silent)):
        assert lines(inbound, [], configured) == [("user", "a login form")], "an empty one is none"
    brought = code(history=(Message("system", "Theirs."), Message("user", "x")))
    assert lines(brought, [], MODEL)[0] == ("system", "Theirs.")


def test_an_answer_with_a_format_is_not_told_to_write_a_block() -> None:
    assert lines(code(sampling=Sampling(format=Format(type="json"))), [], MODEL) == [("user", "a login form")]


def test_only_code_gets_the_prompt_for_code() -> None:
    for kind in ("auto", "chat", "long", "completion"):
        inbound = Inbound(id="r", conversation="c", sender=Sender("s"), text="x", kind=kind)
        assert lines(inbound, [], MODEL) == [("user", "x")]


def test_kinds_are_those_that_backends_know() -> None:
    def kind(asked: str) -> str:
        return job_of(Inbound(id="r", conversation="c", sender=Sender("s"), text="x", kind=asked), [], MODEL).kind  # type: ignore[arg-type]

    asked = ("auto", "chat", "code", "long", "completion", "embedding", "image")
    assert [kind(k) for k in asked] == ["chat"] * 4 + ["completion", "embedding", "image"]


def test_texts_to_embed_go_along_without_messages() -> None:
    inbound = Inbound(id="r", conversation="c", sender=Sender("s"), kind="embedding", inputs=("a", "b"), history=())
    model = ModelConfig(name="m", type="echo", system="Be brief.")
    job = job_of(inbound, [], model)
    assert (job.inputs, job.messages) == (("a", "b"), ())


def test_every_attempt_at_a_request_has_the_same_seed_unless_it_names_one() -> None:
    assert job_of(INBOUND, [], MODEL).sampling.seed == job_of(INBOUND, [], MODEL).sampling.seed == seed_of("r1")
    assert seed_of("r1") != seed_of("r2")
    named = Inbound(id="r", conversation="c", sender=Sender("s"), text="x", sampling=Sampling(seed=0))
    assert job_of(named, [], MODEL).sampling.seed == 0


def test_a_tenant_is_a_sender_on_a_channel() -> None:
    def tenant(channel: str, sender: str) -> str:
        return job_of(Inbound(id="r", conversation="c", sender=Sender(sender), channel=channel), [], MODEL).tenant

    assert tenant("web", "ann") == tenant("web", "ann")
    assert len({tenant("web", "ann"), tenant("nats", "ann"), tenant("web", "bob"), tenant("we", "bann")}) == 4


def test_the_reply_carries_what_the_connector_noted() -> None:
    finished = Finished(finish="length", usage=Usage(1, 2, 0), notes=("cut",))
    reply = reply_of(INBOUND, "text", finished, "v1", Timings(total_ms=5.0))
    assert (reply.id, reply.channel, reply.conversation, reply.text) == ("r1", "web", "c1", "text")
    assert (reply.finish, reply.version, reply.usage.completion_tokens, reply.notes) == ("length", "v1", 2, ("cut",))
    assert reply.reply == {"to": "x"}
    refusal = refusal_of(INBOUND, Retryable("away", code="model_failed"))
    assert refusal.error == Problem("model_failed", "away")
    assert (refusal.finish, refusal.text, refusal.reply) == ("error", "", {"to": "x"})


def test_the_reply_carries_all_that_the_backend_brought() -> None:
    call, more, told = ToolCall("c", "f"), Choice(text="other"), TokenLogprob("a", -1.0)
    routed = Inbound(id="r", conversation="c", sender=Sender("s"), route=Route(reason="failover", wanted="big"))
    finished = Finished(finish="tool_calls", tool_calls=(call,), more=(more,), embeddings=(b"\0" * 4,))
    reply = reply_of(routed, "a", finished, "v1", Timings(), (told,))
    assert (reply.tool_calls, reply.more, reply.embeddings, reply.logprobs) == ((call,), (more,), (b"\0" * 4,), (told,))
    assert reply.route == refusal_of(routed, Retryable("away")).route == routed.route


def test_an_exchange_adds_two_lines_to_its_conversation_and_none_to_the_callers() -> None:
    reply = reply_of(INBOUND, "yes", Finished(), "v1", Timings())
    asked, answered = entries_of(INBOUND, reply, 9.0)
    assert (asked.role, asked.text, asked.request) == ("user", "and now?", "r1")
    assert (answered.role, answered.text, answered.request, answered.at) == ("assistant", "yes", "r1", 9.0)
    brought = Inbound(id="r", conversation="r", sender=Sender("k"), history=())
    assert entries_of(brought, reply, 9.0) == []


def test_the_state_of_a_request_names_who_asked_what() -> None:
    state = state_of(INBOUND)
    assert (state.id, state.state, state.sender, state.asked, state.conversation) == (
        "r1",
        "running",
        "ann",
        "and now?",
        "c1",
    )
