"""Streaming text: whole characters, no stop strings."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from workers.llama.engine.text import TextStream, first_stop, held_length

letters = st.text(alphabet="ab", max_size=40)
stops_of = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({c % (len(data) + 1) for c in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


@given(st.text(max_size=60), st.lists(st.integers(0, 400), max_size=60))
def test_any_cutting_of_the_bytes_gives_the_same_text(text: str, cuts: list[int]) -> None:
    stream = TextStream()
    shown = [stream.feed(p) for p in pieces(text.encode("utf-8"), cuts)]
    assert "".join(shown) + stream.close() == text
    assert all("\ufffd" not in s for s in shown) or "\ufffd" in text


@given(letters, stops_of, st.lists(st.integers(0, 60), max_size=40))
def test_the_text_ends_before_the_first_stop_string(text: str, stops: list[str], cuts: list[int]) -> None:
    stream = TextStream(stops)
    shown = ""
    for piece in pieces(text.encode(), cuts):
        shown += stream.feed(piece)
        assert first_stop(shown, stops) < 0 or not stops
    shown += stream.close()
    at = first_stop(text, stops)
    if not stream.stopped:
        assert shown == text
        assert at < 0
    else:
        assert text.startswith(shown)
        assert any(text[len(shown) :].startswith(s) for s in stops)
        assert first_stop(shown, stops) < 0


@given(letters, stops_of)
def test_only_a_possible_beginning_of_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    kept = held_length(text, stops)
    expected = [n for n in range(1, len(text) + 1) if any(len(s) > n and s.startswith(text[-n:]) for s in stops)]
    assert kept == max(expected, default=0)


def test_half_a_character_at_the_end_is_left_out() -> None:
    stream = TextStream()
    assert stream.feed("né".encode()[:2]) == "n"
    assert stream.close() == ""


def test_bytes_that_are_no_text_do_not_stop_the_stream() -> None:
    stream = TextStream()
    assert stream.feed(b"a\xff\xfeb") == "a\ufffd\ufffdb"


def test_a_stop_string_over_three_tokens_is_found() -> None:
    stream = TextStream(["\nUser:"])
    assert [stream.feed(p) for p in (b"Hi.\n", b"Us", b"er", b": x")] == ["Hi.", "", "", ""]
    assert stream.stopped
    assert stream.close() == ""
