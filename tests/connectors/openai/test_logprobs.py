"""Log probabilities in OpenAI's two shapes."""

import math

from connectors.openai.logprobs import Offsets, chat_logprobs, completion_logprobs
from schemas.message import TokenLogprob, TopToken

HELLO = TokenLogprob("Hello", -0.25, tuple(b"Hello"), (TopToken("Hello", -0.25), TopToken("Hi", -2.0)))


def test_a_chat_names_each_token_with_its_bytes_and_rivals() -> None:
    told = chat_logprobs((HELLO, TokenLogprob(" é", -0.5)))
    assert told is not None
    assert told["refusal"] is None
    assert told["content"][0] == {
        "token": "Hello", "logprob": -0.25, "bytes": list(b"Hello"),
        "top_logprobs": [
            {"token": "Hello", "logprob": -0.25, "bytes": list(b"Hello")},
            {"token": "Hi", "logprob": -2.0, "bytes": list(b"Hi")},
        ],
    }  # fmt: skip
    assert told["content"][1]["bytes"] == list(" é".encode())
    assert told["content"][1]["top_logprobs"] == []


def test_without_tokens_there_is_nothing_to_tell() -> None:
    assert chat_logprobs(()) is None
    assert completion_logprobs((), Offsets()) is None


def test_a_completion_has_lists_beside_each_other() -> None:
    unlikely = TokenLogprob(" x", -9.0, top=(TopToken(" y", -0.1),))
    told = completion_logprobs((HELLO, unlikely), Offsets())
    assert told == {
        "tokens": ["Hello", " x"],
        "token_logprobs": [-0.25, -9.0],
        "top_logprobs": [{"Hello": -0.25, "Hi": -2.0}, {" y": -0.1, " x": -9.0}],
        "text_offset": [0, 5],
    }


def test_a_character_of_several_tokens_begins_with_the_first() -> None:
    crab = "🦀".encode()
    parts = [TokenLogprob("\ufffd", -1.0, tuple(part)) for part in (crab[:2], crab[2:])]
    told = completion_logprobs((*parts, TokenLogprob("!", -1.0)), Offsets())
    assert told is not None
    assert told["text_offset"] == [0, 0, 1]


def test_what_could_not_have_come_is_a_number_still() -> None:
    told = chat_logprobs((TokenLogprob("x", -math.inf),))
    assert told is not None
    assert told["content"][0]["logprob"] == -9999.0
