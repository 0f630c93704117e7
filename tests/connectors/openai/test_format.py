"""The form of an answer, in OpenAI's words and in llama-server's."""

import json
from typing import Any

import pytest

from connectors.openai.decode import BadParameter
from connectors.openai.request import chat, chat_inbound, completion, completion_inbound
from schemas.message import Format

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def format_in(**fields: Any) -> Format | None:
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]} | fields).encode()
    return chat_inbound(chat(body), id="i", key="k").sampling.format


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Format(type="json")),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "strict": True, "schema": SCHEMA},
                }
            },
            Format(type="json_schema", schema=SCHEMA),
        ),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, Format(type="json_schema", schema=SCHEMA)),
        ({"response_format": {"type": "text"}, "json_schema": SCHEMA}, Format(type="json_schema", schema=SCHEMA)),
        ({"json_schema": {}}, Format(type="json_schema", schema={})),
        ({"grammar": 'root ::= "a"'}, Format(type="grammar", grammar='root ::= "a"')),
        ({"grammar": ""}, None),
    ],
)
def test_each_way_to_ask_for_a_form_is_understood(fields: dict[str, Any], expected: Format | None) -> None:
    assert format_in(**fields) == expected


def test_a_completion_has_a_form_too() -> None:
    asked = completion(json.dumps({"prompt": "x", "response_format": {"type": "json_object"}}).encode())
    assert completion_inbound(asked, id="i", key="k").sampling.format == Format(type="json")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "json_object", "schema": 123}}, "response_format.schema"),
        ({"json_schema": "object"}, "json_schema"),
        ({"grammar": 5}, "grammar"),
        ({"response_format": {"type": "json_object"}, "json_schema": SCHEMA}, "json_schema"),
        ({"json_schema": SCHEMA, "grammar": 'root ::= "a"'}, "grammar"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadParameter) as caught:
        format_in(**fields)
    assert caught.value.param == param
    assert param in caught.value.message
