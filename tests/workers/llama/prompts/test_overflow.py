"""Plans for what does not fit, and the memory of summaries. A token here is a word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.message import Message, ToolCall
from workers.llama.prompts.overflow import (
    Summaries,
    line,
    parts,
    request,
    split,
    summarised,
    summary_tokens,
    with_summary,
)


def size(text: str) -> int:
    return len(text.split())


def said(*texts: str) -> list[Message]:
    return [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]  # type: ignore[arg-type]


OLD = said("I am Ann", "Hello Ann", "My dog is Rex", "A fine name", "He is old", "How old?")


def test_a_summary_is_found_for_the_same_words_and_for_longer_ones_that_begin_so() -> None:
    kept = Summaries()
    kept.keep("ann", "c", OLD[:4], "Ann has a dog")
    assert kept.find("ann", "c", OLD[:4]) == (4, "Ann has a dog")
    assert kept.find("ann", "c", OLD) == (4, "Ann has a dog")
    assert kept.find("ann", "another", OLD) == (4, "Ann has a dog")
    assert kept.find("ann", "c", OLD[:3]) == (0, "")


def test_the_longest_one_is_found() -> None:
    kept = Summaries()
    for n in (2, 4, 1):
        kept.keep("ann", "c", OLD[:n], f"first {n}")
    assert kept.find("ann", "c", OLD) == (4, "first 4")


def test_nobody_else_finds_it() -> None:
    kept = Summaries()
    kept.keep("ann", "c", OLD, "Ann has a dog")
    assert kept.find("bob", "c", OLD) == (0, "")
    assert kept.find("", "c", OLD) == (0, "")


def test_words_that_were_changed_since_are_not_covered() -> None:
    kept = Summaries()
    kept.keep("ann", "c", OLD, "Ann has a dog")
    for i in range(len(OLD)):
        changed = [*OLD[:i], Message(OLD[i].role, "something else"), *OLD[i + 1 :]]
        assert kept.find("ann", "c", changed) == (0, "")


def test_what_a_session_has_forgotten_is_still_covered_in_that_conversation_alone() -> None:
    kept = Summaries()
    kept.keep("ann", "c", OLD, "Ann has a dog")
    assert kept.find("ann", "c", OLD[2:]) == (4, "Ann has a dog")
    assert kept.find("ann", "c", OLD[3:]) == (0, "")  # too little to be sure
    assert kept.find("ann", "another", OLD[2:]) == (0, "")
    kept.keep("ann", "", OLD, "Ann has a dog")
    assert kept.find("ann", "", OLD[2:]) == (0, "")


def test_the_one_that_was_used_least_recently_is_forgotten() -> None:
    kept = Summaries(limit=2)
    kept.keep("ann", "", OLD[:1], "one")
    kept.keep("ann", "", OLD[:2], "two")
    kept.find("ann", "", OLD[:1])
    kept.keep("ann", "", OLD[:3], "three")
    assert [kept.find("ann", "", OLD[:n])[1] for n in (1, 2, 3)] == ["one", "one", "three"]


texts_of = st.lists(st.text("ab ", max_size=80), min_size=1, max_size=12)


@given(texts_of, st.integers(4, 30), st.integers(0, 3))
def test_parts_hold_all_lines_in_order_and_fit(texts: list[str], room: int, begin: int) -> None:
    messages = said(*texts)
    found = parts(messages, begin, room, size)
    together = "".join(piece for part in found for piece in part.lines)
    assert together == "".join(line(m) for m in messages[begin:])
    for part in found:
        assert sum(size(piece) + 1 for piece in part.lines) <= room
    ends = [part.upto for part in found]
    assert ends == sorted(ends)
    assert ends[-1:] == ([len(messages)] if begin < len(messages) else [])


def test_a_message_that_is_not_read_to_its_end_is_not_covered() -> None:
    found = parts(said("a b", "c " * 40, "d"), 0, 12, size)
    of_the_long_one = [part.upto for part in found if any("c" in piece for piece in part.lines)]
    assert len(of_the_long_one) > 2
    assert set(of_the_long_one[:-1]) == {1}
    assert of_the_long_one[-1] >= 2


def test_a_text_without_spaces_is_split_too() -> None:
    assert split("x" * 100, 20, len) == ["x" * 12, "x" * 13] * 4
    assert split("x", 1, len) == ["x"]


def test_the_request_holds_what_is_known_and_what_is_new() -> None:
    instruction, asked = request("Ann has a dog.", ["User: He is old"], 40)
    assert instruction.role == "system"
    assert asked.role == "user"
    for words in ("Ann has a dog.", "User: He is old", "40 words"):
        assert words in asked.text
    assert "before" not in request("", ["User: hello"], 40)[1].text


def test_calls_and_results_of_tools_are_told() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("1", "weather", '{"city": "Oslo"}'),))
    assert 'weather({"city": "Oslo"})' in line(call)
    assert line(Message("tool", "rain", tool_call="1")) == "Tool: rain"


def test_the_summary_stands_in_the_senders_line_after_the_system_prompt() -> None:
    system = Message("system", "Be kind.")
    told = with_summary([system, *OLD[2:4]], 1, "Ann greeted.")
    assert told[0] == system
    assert [m.role for m in told] == ["system", "user", "assistant"]
    assert told[1].text.index("Ann greeted.") < told[1].text.index("My dog is Rex")
    before_a_result = with_summary([system, Message("tool", "rain")], 1, "Ann asked.")
    assert [m.role for m in before_a_result] == ["system", "user", "tool"]


def test_notes_have_figures() -> None:
    assert summarised(1, 0, 900, 512) == "The oldest message was summarised: prompt 900 tokens, window 512."
    assert "9 oldest messages were summarised" in summarised(9, 2, 900, 512)
    assert "2 of them" in summarised(9, 2, 900, 512)
    assert summary_tokens(512) == 64
    assert summary_tokens(1_000_000) == 512
