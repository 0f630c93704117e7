"""Embeddings: what is asked, and vectors in the form that was asked for."""

import base64
import json
import math
import struct
from typing import Any

import pytest

from connectors.openai.decode import BadParameter
from connectors.openai.embedding import embedding, embedding_inbound
from connectors.openai.reply import whole
from schemas.errors import Rejected, RoostError
from schemas.message import Inbound, Outbound, Usage


def vector(*numbers: float) -> bytes:
    length = math.hypot(*numbers)
    return struct.pack(f"<{len(numbers)}f", *(x / length for x in numbers))


def inbound(**fields: Any) -> Inbound:
    return embedding_inbound(embedding(json.dumps(fields).encode()), id="i", key="k")


def answered(asked: Inbound, *vectors: bytes) -> dict[str, Any]:
    outbound = Outbound(
        id="r1", channel="openai", conversation="c", model="m", usage=Usage(prompt_tokens=4),
        embeddings=vectors or (vector(3, 4, 12), vector(1, 0, 0)), reply=asked.reply,
    )  # fmt: skip
    return whole(asked.reply, outbound, 7)


def test_texts_are_asked_for_in_a_request_of_its_own() -> None:
    one, two = inbound(input="hello", model="auto", user="ann"), inbound(input=["a", "b"], model="m")
    assert (one.kind, one.inputs, one.text, one.history, one.model) == (
        "embedding", ("hello",), "", (), "auto"
    )  # fmt: skip
    assert one.sender.id == "k/ann"
    assert (two.inputs, two.model) == (("a", "b"), "m")


def test_vectors_come_as_numbers_with_usage() -> None:
    body = answered(inbound(input=["a", "b"]))
    assert (body["object"], body["model"]) == ("list", "m")
    assert [(row["object"], row["index"]) for row in body["data"]] == [("embedding", 0), ("embedding", 1)]
    assert body["data"][0]["embedding"] == pytest.approx([3 / 13, 4 / 13, 12 / 13])
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert body["roost"]["request"] == "r1"


def test_vectors_come_in_base64_with_the_same_numbers() -> None:
    body = answered(inbound(input="a", encoding_format="base64"), vector(3, 4, 12))
    data = base64.b64decode(body["data"][0]["embedding"])
    assert data == vector(3, 4, 12)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_fewer_dimensions_are_cut_and_have_length_1_and_a_note(encoding: str) -> None:
    body = answered(inbound(input="a", dimensions=2, encoding_format=encoding), vector(3, 4, 12))
    told = body["data"][0]["embedding"]
    numbers = told if encoding == "float" else struct.unpack("<2f", base64.b64decode(told))
    assert list(numbers) == pytest.approx([0.6, 0.8])
    assert "from 3 to 2" in body["roost"]["notes"][0]


def test_as_many_dimensions_as_there_are_need_no_note() -> None:
    assert answered(inbound(input="a", dimensions=3))["roost"]["notes"] == []


def test_more_dimensions_than_there_are_are_refused() -> None:
    with pytest.raises(BadParameter, match="have 3") as caught:
        answered(inbound(input="a", dimensions=4))
    assert caught.value.param == "dimensions"


def test_a_vector_that_is_cut_to_nothing_stays_finite() -> None:
    body = answered(inbound(input="a", dimensions=1), vector(0, 1))
    assert body["data"][0]["embedding"] == [0.0]


def test_an_answer_without_vectors_is_no_success() -> None:
    asked = inbound(input="a")
    with pytest.raises(RoostError):
        whole(asked.reply, Outbound(id="r", channel="c", conversation="c", reply=asked.reply), 7)
    other = Outbound(id="r", channel="c", conversation="c", text="hi", reply={"kind": "chat"})
    with pytest.raises(Rejected, match="Idempotency-Key"):
        whole(asked.reply, other, 7)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": ["a", [1, 2]]}, "input[1]"),
        ({"input": {"content": "a"}}, "input"),
        ({"input": ["a", None]}, "input[1]"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "model": 5}, "model"),
    ],
)
def test_a_refusal_names_the_parameter(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadParameter) as caught:
        inbound(**fields)
    assert caught.value.param == param
