"""Which model answers, and why."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.host.recall import Last
from connectors.host.route import ANSWER_TOKENS, Asked, Chosen, Seat, route
from schemas.config import ModelConfig, Routes
from schemas.errors import Rejected, Retryable
from schemas.message import Attachment

PICTURES = ModelConfig(name="pictures", type="diffusion")
CHAT = ModelConfig(name="chat", type="llama")
OTHER = ModelConfig(name="other", type="llama")
DEFAULT = ModelConfig(name="default", type="llama", default=True)
CODER = ModelConfig(name="coder", type="llama", routes=("code",))
QWEN = ModelConfig(name="qwen", type="llama", routes=Routes(languages=("zh",)))
WIDE = ModelConfig(name="wide", type="llama", routes=("long",))
CODE = "Write a Python function that reverses a list"
DRAW = "Draw a cat wearing a top hat"


def seats(*models: ModelConfig, **special: Seat) -> dict[str, Seat]:
    """Live models: ready, four slots, unless `special` says otherwise."""
    kinds = {"diffusion": ("image",), "embedding": ("embedding",)}
    usual = {m.name: Seat(state="ready", slots=4, kinds=kinds.get(m.type, ("chat", "completion"))) for m in models}
    return {**usual, **special}


def ask(text: str, *models: ModelConfig, live: Any = ..., depths: dict[str, int] | None = None, **asked: Any) -> Chosen:
    return route(Asked(text=text, **asked), models, seats(*models) if live is ... else live, depths)


def outcome(chosen: Chosen) -> tuple[str, str, str]:
    return chosen.model, chosen.kind, chosen.route.reason


# -- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [None, {}, seats(CHAT, OTHER, DEFAULT)])
@pytest.mark.parametrize(
    ("wanted", "connector", "models", "chosen"),
    [
        ("other", "chat", [CHAT, OTHER], "other"),
        ("", "other", [CHAT, OTHER], "other"),
        ("auto", "", [CHAT, OTHER], "chat"),
        ("", "", [CHAT, DEFAULT], "default"),
        ("", "", [PICTURES, CHAT, OTHER], "chat"),
        ("pictures", "", [PICTURES, CHAT], "pictures"),
        ("", "", [PICTURES], "pictures"),
    ],
)
def test_the_model_asked_for_then_the_connectors_then_the_default_then_the_first_for_chat(
    wanted: str, connector: str, models: list[ModelConfig], chosen: str, live: Any
) -> None:
    asked = Asked(text="hello there", model=wanted, usual=connector)
    assert route(asked, models, live).model == chosen


@pytest.mark.parametrize(("wanted", "connector"), [("gpt-9", ""), ("", "gpt-9"), ("../../etc", "chat")])
def test_an_unknown_model_is_refused_with_the_ones_there_are(wanted: str, connector: str) -> None:
    with pytest.raises(Rejected, match="there are: chat, other") as refused:
        ask("hi", CHAT, OTHER, model=wanted, usual=connector)
    assert refused.value.code == "unknown_model"


def test_a_named_model_is_not_left_for_its_text_its_language_its_window_or_its_queue() -> None:
    for text in (CODE, DRAW, "你好，今天天气怎么样", "word " * 9000):
        live = seats(PICTURES, CODER, QWEN, WIDE, chat=Seat(state="asleep", context=512))
        chosen = ask(text, CHAT, PICTURES, CODER, QWEN, WIDE, live=live, depths={"chat": 99}, model="chat")
        assert outcome(chosen) == ("chat", "chat", "named")
        assert chosen.route.why == ""


def test_what_is_asked_of_a_named_model_is_of_a_kind_that_it_is_for() -> None:
    both = ModelConfig(name="both", type="llama", routes=("chat", "code"))
    assert ask("hello", CHAT, CODER, model="coder").kind == "code"
    assert ask("hello", CHAT, both, model="both").kind == "chat"
    assert ask(CODE, CHAT, both, model="both").kind == "code"
    assert ask(CODE, CHAT, both, model="both", typed=False).kind == "chat"
    assert ask("a cat", CHAT, PICTURES, model="pictures").kind == "image"
    assert ask("go on", CHAT, model="chat", kind="completion").kind == "completion"


# -- commands -------------------------------------------------------------------------------------------------

SWIFT = ModelConfig(name="swift", type="llama", routes=Routes(commands=("/fast", "/code")))


@pytest.mark.parametrize(
    ("text", "models", "expected", "left"),
    [
        ("/code sort a list", [CHAT, CODER], ("coder", "code", "command"), "sort a list"),
        ("/CODE sort a list", [CHAT, CODER], ("coder", "code", "command"), "sort a list"),
        ("\uff0fcode 排序", [CHAT, CODER], ("coder", "code", "command"), "排序"),
        ("/image a cat", [CHAT, PICTURES], ("pictures", "image", "command"), "a cat"),
        ("/long\nsum up", [CHAT, WIDE], ("wide", "long", "command"), "sum up"),
        ("/chat " + CODE, [CHAT, CODER], ("chat", "chat", "command"), CODE),
        ("/model other what is\nthis", [CHAT, OTHER], ("other", "chat", "command"), "what is\nthis"),
        ("/fast hello", [CHAT, SWIFT], ("swift", "chat", "command"), "hello"),
        ("/code hello", [CHAT, CODER, SWIFT], ("swift", "chat", "command"), "hello"),
        ("/etc/passwd is what?", [CHAT, CODER], ("chat", "chat", "default"), "/etc/passwd is what?"),
        ("/unknown word", [CHAT, CODER], ("chat", "chat", "default"), "/unknown word"),
        ("see /code here", [CHAT, CODER], ("chat", "chat", "default"), "see /code here"),
    ],
)
def test_a_command_at_the_beginning_chooses_and_is_taken_off(
    text: str, models: list[ModelConfig], expected: tuple[str, str, str], left: str
) -> None:
    chosen = ask(text, *models)
    assert (outcome(chosen), chosen.text) == (expected, left)


@pytest.mark.parametrize("asked", [{"model": "chat"}, {"typed": False}, {"kind": "completion"}])
def test_a_program_that_names_a_model_or_brings_its_history_or_a_raw_prompt_speaks_no_commands(
    asked: dict[str, Any],
) -> None:
    assert ask("/image a cat", CHAT, PICTURES, **asked).model == "chat"
    assert ask("/image a cat", CHAT, PICTURES, **asked).text == "/image a cat"


@pytest.mark.parametrize(
    ("text", "code"),
    [("/code", "empty"), ("/model", "empty"), ("/model chat", "empty"), ("/model gpt-9 hi", "unknown_model")],
)
def test_a_command_that_asks_for_nothing_is_refused(text: str, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        ask(text, CHAT, CODER)
    assert refused.value.code == code


# -- kinds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tell me a story", ("chat", "chat", "default")),
        (CODE, ("coder", "code", "kind")),
        (DRAW, ("pictures", "image", "kind")),
        ("画一只戴帽子的猫", ("pictures", "image", "kind")),
    ],
)
def test_the_text_decides_where_nothing_else_is_said(text: str, expected: tuple[str, str, str]) -> None:
    assert outcome(ask(text, CHAT, PICTURES, CODER)) == expected


def test_the_reason_is_told_in_words() -> None:
    assert ask(CODE, CHAT, CODER).route.why == "this is about code"
    assert ask("hello", CHAT, CODER).route.why == ""


def test_an_explicit_kind_is_not_guessed_again() -> None:
    assert outcome(ask(DRAW, CHAT, PICTURES, CODER, kind="code")) == ("coder", "code", "kind")
    assert outcome(ask(CODE, CHAT, CODER, kind="chat")) == ("chat", "chat", "default")


def test_a_kind_that_nobody_can_do_is_refused() -> None:
    with pytest.raises(Rejected) as refused:
        ask("a cat", CHAT, kind="image")
    assert refused.value.code == "unsupported_kind"


def test_code_goes_to_a_model_for_chat_where_none_is_marked_for_it() -> None:
    assert outcome(ask(CODE, CHAT, OTHER)) == ("chat", "code", "default")


def test_without_a_model_for_pictures_the_refusal_says_what_to_add() -> None:
    with pytest.raises(Rejected, match=r"diffusion.*config\.yaml") as refused:
        ask("/image a cat", CHAT)
    assert refused.value.code == "unsupported_kind"


@pytest.mark.parametrize("asked", [{"text": "/image a cat"}, {"text": "a cat", "kind": "image"}])
def test_a_picture_is_not_waited_for_while_nobody_can_make_one(asked: dict[str, str]) -> None:
    with pytest.raises(Retryable, match=r"pictures.*roost status") as refused:
        route(Asked(**asked), [CHAT, PICTURES], seats(CHAT))  # type: ignore[arg-type]
    assert refused.value.code == "no_live_model"


def test_while_nobody_knows_who_lives_a_picture_waits_in_its_queue() -> None:
    assert ask("/image a cat", CHAT, PICTURES, live=None).model == "pictures"
    assert ask("a cat", CHAT, PICTURES, live=seats(CHAT), model="pictures", kind="image").model == "pictures"


def test_several_pictures_are_guessed_as_one_is_and_tools_speak_for_talk() -> None:
    assert ask(DRAW, CHAT, PICTURES, abilities=frozenset({"n"})).model == "pictures"
    assert ask(DRAW, CHAT, PICTURES, abilities=frozenset({"n", "tools"})).model == "chat"


@pytest.mark.parametrize("live", [{}, seats(CHAT), seats(CHAT, pictures=Seat(state="failed", kinds=("image",)))])
def test_a_picture_is_guessed_only_where_one_can_be_made(live: Any) -> None:
    alive = {name: seat for name, seat in live.items() if seat.state != "failed"}
    assert outcome(ask(DRAW, CHAT, PICTURES, live=alive)) == ("chat", "chat", "default")


def test_a_program_with_its_own_history_or_tools_gets_no_picture() -> None:
    assert ask(DRAW, CHAT, PICTURES, typed=False).kind == "chat"
    assert ask(DRAW, CHAT, PICTURES, abilities=frozenset({"tools"})).kind == "chat"


def test_a_source_file_makes_it_a_question_about_code() -> None:
    file = Attachment(sha256="0", media_type="text/plain", size_bytes=1, name="Main.JAVA")
    assert ask("what is this?", CHAT, CODER, attachments=(file,)).model == "coder"


def test_the_connectors_own_model_comes_after_wishes_and_before_guesses() -> None:
    assert outcome(ask(CODE, CHAT, OTHER, CODER, usual="other")) == ("other", "chat", "named")
    assert outcome(ask("/code x", CHAT, OTHER, CODER, usual="other")) == ("coder", "code", "command")
    assert outcome(ask("a cat", CHAT, OTHER, PICTURES, usual="other", kind="image")) == ("pictures", "image", "kind")


def test_what_the_backend_says_counts_more_than_its_type() -> None:
    both = ModelConfig(name="both", type="llama")
    live = seats(CHAT, both=Seat(state="ready", kinds=("chat", "embedding")))
    assert ask("", CHAT, both, live=live, kind="embedding").model == "both"


def test_a_model_that_has_what_the_request_needs_goes_before_one_that_lacks_it() -> None:
    live = seats(CHAT, other=Seat(state="ready", abilities=("tools",)))
    assert ask("hi", CHAT, OTHER, live=live, abilities=frozenset({"tools"})).model == "other"


# -- language and window --------------------------------------------------------------------------------------


def test_a_model_for_the_language_goes_before_the_others() -> None:
    assert outcome(ask("今天天气怎么样", CHAT, QWEN)) == ("qwen", "chat", "language")
    assert outcome(ask("what is the weather like today", QWEN, CHAT)) == ("chat", "chat", "language")
    assert ask("ok", CHAT, QWEN, language="zh-CN").model == "qwen"
    assert ask("ok", CHAT, QWEN, language="zh-CN", last=Last("chat")).model == "chat"


def test_a_prompt_that_fits_no_other_window_goes_to_the_model_for_long_ones() -> None:
    live = seats(chat=Seat(state="ready", context=2048), wide=Seat(state="asleep", context=32768))
    fits = 2048 - ANSWER_TOKENS
    assert outcome(ask("hi", CHAT, WIDE, live=live, tokens=fits)) == ("chat", "chat", "default")
    assert outcome(ask("hi", CHAT, WIDE, live=live, tokens=fits + 1)) == ("wide", "chat", "context")
    assert ask("hi", CHAT, WIDE, live=live, tokens=10**6).model == "wide", "none holds it: the widest"


def test_the_models_own_system_prompt_needs_room_too() -> None:
    wordy = ModelConfig(name="chat", type="llama", system="word " * 400)
    live = seats(chat=Seat(state="ready", context=2048), wide=Seat(state="ready", context=32768))
    assert ask("hi", wordy, WIDE, live=live, tokens=1500).model == "wide"


# -- load -----------------------------------------------------------------------------------------------------


def test_loaded_goes_before_asleep_and_short_queues_before_long_ones() -> None:
    asleep = seats(OTHER, chat=Seat(state="asleep"))
    assert outcome(ask("hi", CHAT, OTHER, live=asleep)) == ("other", "chat", "load")
    assert ask("hi", CHAT, OTHER, depths={"chat": 6}).model == "chat", "less than a round of its slots waits"
    busy = ask("hi", CHAT, OTHER, depths={"chat": 7})
    assert (outcome(busy), busy.route.wanted) == (("other", "chat", "load"), "chat")
    assert ask("hi", CHAT, OTHER, depths={"chat": 8, "other": 12}).model == "chat"


def test_load_moves_no_conversation() -> None:
    for live, depths in ((seats(OTHER, chat=Seat(state="asleep")), {}), (seats(CHAT, OTHER), {"chat": 50})):
        chosen = route(Asked(text="and then?", last=Last("chat")), [CHAT, OTHER], live, depths)
        assert outcome(chosen) == ("chat", "chat", "default")
    assert ask("and then?", CHAT, OTHER, last=Last("other")).model == "other", "nor does calm move it back"


def test_another_kind_and_an_explicit_wish_do_move_a_conversation() -> None:
    last = Last("chat")
    assert ask(CODE, CHAT, CODER, last=last).model == "coder"
    assert ask("What is the capital of France?", CHAT, CODER, last=Last("coder", "code")).model == "chat"
    assert ask("hi", CHAT, OTHER, last=last, model="other").model == "other"


@pytest.mark.parametrize("text", ["make it blue", "now add a test", "把它改成蓝色"])
def test_a_short_message_about_what_was_said_stays_with_the_model_for_code(text: str) -> None:
    assert outcome(ask(text, CHAT, CODER, last=Last("coder", "code"))) == ("coder", "code", "kind")
    assert ask(text, CHAT, CODER, last=Last("chat", "chat")).model == "chat"


# -- failover -------------------------------------------------------------------------------------------------

SAFE = ModelConfig(name="safe", type="llama", routes=Routes(kinds=("code",), fallback=("other", "chat")))


def test_a_named_model_without_a_live_worker_is_replaced_by_its_fallback_alone() -> None:
    chosen = ask("hi", CHAT, SAFE, live=seats(CHAT), model="safe")
    assert outcome(chosen)[::2] == ("chat", "failover")
    assert (chosen.route.wanted, chosen.route.why) == ("safe", "safe has no live worker")
    assert outcome(ask("hi", CHAT, OTHER, live=seats(CHAT), model="other")) == ("other", "chat", "named")
    assert ask("hi", CHAT, OTHER, SAFE, live=seats(CHAT, OTHER), model="safe").model == "other"


def test_a_model_for_a_kind_without_a_live_worker_is_replaced_by_the_next_able_one() -> None:
    chosen = ask(CODE, PICTURES, CHAT, CODER, live=seats(PICTURES, CHAT))
    assert (outcome(chosen), chosen.route.wanted) == (("chat", "code", "failover"), "coder")
    assert outcome(ask("hello you", CHAT, OTHER, live=seats(OTHER))) == ("other", "chat", "failover")


def test_a_conversation_whose_model_died_goes_on_with_another() -> None:
    assert outcome(ask("go on", CHAT, OTHER, live=seats(CHAT), last=Last("other"))) == ("chat", "chat", "failover")


@pytest.mark.parametrize("live", [None, {}, seats(PICTURES)])
def test_without_a_live_alternative_the_message_waits_for_the_model_it_should_have(live: Any) -> None:
    assert outcome(ask(CODE, CHAT, PICTURES, CODER, live=live)) == ("coder", "code", "kind")


@pytest.mark.parametrize("state", ["ready", "asleep", "loading"])
def test_a_model_that_is_asleep_or_loading_lives(state: str) -> None:
    assert ask("hi", CHAT, SAFE, live=seats(CHAT, safe=Seat(state=state)), model="safe").model == "safe"
