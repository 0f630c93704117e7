"""What an answer's text must be, written as a grammar for llguidance. Pure; `guide.py` follows it.

A constraint is a string, llguidance's own JSON. What always holds: JSON is written with a space or one line break at
most where white space may stand, so an answer never runs on in it, and it begins with the value itself; a request
that is too large or that no grammar can say is `Rejected` with the code `bad_format`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from schemas.errors import Rejected
from schemas.message import Format

CONSTRAINT_BYTES_MAX: Final = 65_536
"""llguidance needs some 3 ms a kilobyte of schema, and the step loop waits."""
ERROR_CHARS_MAX: Final = 300
WHITE_SPACE: Final = r"\x20|\x0A\x20{0,32}"


def constraint(form: Format | None) -> str:
    """The grammar of `form`, empty for None. JSON without a schema is an object, as OpenAI's JSON mode has it."""
    if form is None:
        return ""
    if form.type == "grammar":
        return sized(lark(_as_lark(form.grammar)))
    if form.type == "json":
        return of_schema({"type": "object"})
    if form.schema is None:
        raise refused("a format of type json_schema needs a schema")
    return of_schema(form.schema)


def of_schema(schema: dict[str, Any] | bool) -> str:
    """A grammar of JSON that `schema` describes."""
    try:
        return sized(json.dumps({"grammars": [{"json_schema": with_options(schema)}]}, ensure_ascii=False))
    except RecursionError:
        raise refused("the schema is nested too deeply") from None


def with_options(schema: dict[str, Any] | bool, *, lenient: bool = False) -> dict[str, Any]:
    """`schema` with our white space; a sender's own options for llguidance are dropped.

    `lenient`: what llguidance cannot follow is left out, instead of being refused.
    """
    whole = {"not": {}} if schema is False else {} if schema is True else schema
    options = {"whitespace_pattern": WHITE_SPACE, "lenient": lenient, "coerce_one_of": lenient}
    return {**whole, "x-guidance": options}


def lark(source: str) -> str:
    """A grammar of Lark text in llguidance's dialect."""
    return json.dumps({"grammars": [{"lark_grammar": source}]}, ensure_ascii=False)


def _as_lark(source: str) -> str:
    """GBNF is told by its `::=` and translated; all else is taken for Lark."""
    if not source.strip():
        raise refused("a format of type grammar needs a grammar, in Lark or GBNF")
    if len(source) > CONSTRAINT_BYTES_MAX:
        raise _too_large(len(source))
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        return any_to_lark(source)
    except RecursionError:
        raise refused("the grammar is nested too deeply") from None
    except Exception as error:  # noqa: BLE001  the translator has errors of many kinds
        raise refused(f"the grammar is not GBNF that can be read: {error}") from None


def sized(text: str) -> str:
    """`text`, unless it is too large."""
    if len(text) > CONSTRAINT_BYTES_MAX:
        raise _too_large(len(text))
    return text


def refused(why: str) -> Rejected:
    return Rejected(f"The answer's format cannot be followed: {why}.", code="bad_format")


def explained(error: str, constraint: str) -> str:
    """The first line of llguidance's error, and where in the schema its cause stands."""
    lines = [line.strip() for line in error.strip().splitlines() if line.strip()] or ["it has no answer"]
    first = lines[0]
    if first == "regex parse error:":
        first = f"the pattern {lines[1]!r}: {lines[-1].removeprefix('error: ')}" if len(lines) > 2 else first
    causes = {*re.findall(r'"([^"]+)"', first), *lines, first.rpartition(": ")[2]}
    for grammar in json.loads(constraint)["grammars"]:
        for path in _paths(grammar.get("json_schema"), "#", causes):
            return f"{first[:ERROR_CHARS_MAX]} (at {path})"
    return first[:ERROR_CHARS_MAX]


def _paths(value: Any, path: str, causes: set[str]) -> Iterator[str]:
    """Where a key or a text of a schema is one of `causes`."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        here = f"{path}/{key}"
        if key in causes or (isinstance(inner, str) and inner in causes):
            yield here
        yield from _paths(inner, here, causes)


def _too_large(size: int) -> Rejected:
    return refused(f"it has {size} characters, {CONSTRAINT_BYTES_MAX} at most; make the schema smaller")
