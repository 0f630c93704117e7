"""What form the answer must have: OpenAI's `response_format`, and llama-server's `json_schema` and `grammar`. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from connectors.openai.decode import bad, short
from schemas.message import Format

Schema = dict[str, Any] | bool


class JsonSchema(Struct, frozen=True):
    """OpenAI's envelope of a schema. `strict` is always so here: the grammar lets nothing else through."""

    schema: Schema | None = None
    name: str | None = None


class ResponseFormat(Struct, frozen=True):
    """`schema` beside `json_object` is llama-server's way to write a JSON Schema."""

    type: str
    json_schema: JsonSchema | None = None
    schema: Schema | None = None


def format_of(wanted: ResponseFormat | None, schema: Schema | None, grammar: str | None) -> Format | None:
    """The one format that was asked for; none for plain text."""
    given = _response_format(wanted) if wanted is not None else None
    formats = [] if given is None else [given]
    if schema is not None:
        formats.append(Format(type="json_schema", schema=schema))
    if grammar:
        formats.append(Format(type="grammar", grammar=grammar))
    if len(formats) > 1:
        param = "grammar" if grammar else "json_schema"
        raise bad(param, "response_format, json_schema and grammar exclude each other; send one of them")
    return formats[0] if formats else None


def _response_format(wanted: ResponseFormat) -> Format | None:
    if wanted.type == "text":
        return None
    if wanted.type == "json_object":
        if wanted.schema is not None:
            return Format(type="json_schema", schema=wanted.schema)
        return Format(type="json")
    if wanted.type != "json_schema":
        raise bad("response_format.type", f"expected text, json_object or json_schema, got {short(wanted.type)!r}")
    if wanted.json_schema is None or wanted.json_schema.schema is None:
        raise bad("response_format.json_schema.schema", "missing; it is the schema that the answer must keep to")
    return Format(type="json_schema", schema=wanted.json_schema.schema)
