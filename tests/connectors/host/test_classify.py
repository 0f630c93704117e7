"""What a message asks for: judged on labelled messages, of which the rules have seen only the first half."""

from __future__ import annotations

from pathlib import Path
from time import thread_time

import pytest

from connectors.host.classify import classify, follows

DATA = Path(__file__).parent / "data"
PRECISION, RECALL = 0.95, 0.85
TIME_S = 0.0002


def labelled(which: str) -> list[tuple[str, str]]:
    rows = (DATA / f"intents_{which}.tsv").read_text(encoding="utf-8").splitlines()
    return [(kind, text.replace("\\n", "\n")) for kind, text in (row.split("\t", 1) for row in rows)]


@pytest.mark.parametrize("which", ["tune", "held_out"])
@pytest.mark.parametrize("kind", ["code", "image"])
def test_code_and_pictures_are_told_from_talk(which: str, kind: str) -> None:
    rows = labelled(which)
    right = sum(label == kind == classify(text) for label, text in rows)
    said = [text for label, text in rows if classify(text) == kind and label != kind]
    missed = [text for label, text in rows if label == kind and classify(text) != kind]
    assert right / (right + len(said)) >= PRECISION, f"called {kind}: {said}"
    assert right / (right + len(missed)) >= RECALL, f"missed {kind}: {missed}"


def test_the_messages_are_many_in_both_languages_and_in_one_half_only() -> None:
    tune, held_out = labelled("tune"), labelled("held_out")
    assert len(tune) + len(held_out) >= 200
    assert not set(tune) & set(held_out)
    for rows in (tune, held_out):
        for kind in ("chat", "code", "image"):
            for chinese in (True, False):
                of_both = [
                    text for label, text in rows if label == kind and any(c >= "\u4e00" for c in text) is chinese
                ]
                assert len(of_both) >= 10


@pytest.mark.parametrize(
    "text",
    [
        "What is the postal code of Vienna?",
        "Please draw the curtains",
        "picture this: you are alone on an island",
        "write a story about a programmer",
        "Write a script for a short play",
        "画蛇添足是什么意思",
        "北京的邮政编码是多少？",
        "",
        "?!",
        "\ud800",
    ],
)
def test_what_only_sounds_like_code_or_a_picture_is_talk(text: str) -> None:
    assert classify(text) == "chat"


def test_the_request_behind_a_long_paste_is_heard() -> None:
    assert classify("word " * 20_000 + "\n\nWrite a Python function that counts these words.") == "code"


def test_a_message_takes_less_than_a_fifth_of_a_millisecond() -> None:
    texts = [text for _, text in labelled("tune")]
    best = min(_spent(texts) for _ in range(5))
    assert best / len(texts) < TIME_S


@pytest.mark.parametrize("text", ["a" * 100_000, "draw " * 20_000, "画" * 100_000, "select " * 20_000, "<" * 100_000])
def test_a_hostile_text_takes_hardly_longer_than_any_other_of_its_length(text: str) -> None:
    usual = min(_spent(["How are you today? " * 5_300]) for _ in range(3))
    assert min(_spent([text]) for _ in range(3)) < 20 * usual


def _spent(texts: list[str]) -> float:
    began = thread_time()  # of this thread: other processes do not count
    for text in texts:
        classify(text)
    return thread_time() - began


@pytest.mark.parametrize(
    "text", ["make it red", "and now in blue, please, with that border", "再加一个按钮", "它不工作"]
)
def test_a_short_message_that_speaks_of_what_was_said_follows(text: str) -> None:
    assert follows(text)


@pytest.mark.parametrize("text", ["What is the capital of France?", "讲个笑话", "it " * 40])
def test_a_message_that_stands_for_itself_does_not(text: str) -> None:
    assert not follows(text)
