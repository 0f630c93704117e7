"""Reads the calls out of an answer while it streams. Pure.

What always holds: nothing of a call is shown, nor what may become one; an answer without calls comes out exactly as
it went in, whatever the pieces; what looks like a call and is none is text, never an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from schemas.message import ToolCall
from workers.llama.engine.text import held_length
from workers.llama.prompts.tools import Style, call_id

CALLS_MAX: Final = 128
BARE_CHARS_MAX: Final = 100
_BETWEEN: Final = re.compile(r"[\s;,]*")
_BARE: Final = ('{"name":"', '{"type":"function","name":"')
"""How a call without a mark begins, without white space."""


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_number)


class _Written(msgspec.Struct):
    """A call as models write it."""

    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"")
    parameters: msgspec.Raw = msgspec.Raw(b"")


class Calls:
    """The calls of one answer. `feed` returns what may be shown now."""

    def __init__(self, style: Style, names: Iterable[str], request: str, choice: int = 0) -> None:
        """`names`: the tools; `request`, `choice`: which answer it is, and the calls' ids are made of them."""
        self._style = style
        self._names = frozenset(names)
        self._key = (request, str(choice))
        self._held = ""
        self._state: Literal["start", "text", "call"] = "start" if style.bare else "text"
        self._body = 0
        """Where in `_held` a call's JSON begins, and where its end is sought."""
        self._seek = 0
        self._found: list[tuple[str, str]] = []

    def feed(self, text: str) -> str:
        self._held += text
        shown = []
        steps = {"start": self._at_start, "text": self._in_text, "call": self._in_call}
        while (step := steps[self._state]()) is not None:
            shown.append(step)
        return "".join(shown)

    def close(self) -> tuple[str, tuple[ToolCall, ...]]:
        """The rest of the text, and all calls in order."""
        rest = self._held
        if self._state == "call":
            body = rest[self._body :]
            found = self._read(body[: len(body) - held_length(body, (self._style.end,))])
            if found or self._found:  # behind calls that are whole, one that was cut short is no text for anybody
                self._found += found or []
                rest = ""
        if self._found and rest.isspace():
            rest = ""
        numbered = enumerate(self._found[:CALLS_MAX])
        return rest, tuple(ToolCall(call_id(*self._key, str(i)), name, said) for i, (name, said) in numbered)

    def _at_start(self) -> str | None:
        """Whether the whole answer is a call without its mark."""
        body = self._held.lstrip()
        dense = re.sub(r"\s", "", body[:BARE_CHARS_MAX])
        if any(dense.startswith(bare) for bare in _BARE):
            self._state = "call"
            self._body = self._seek = len(self._held) - len(body)
        elif len(body) < BARE_CHARS_MAX and any(bare.startswith(dense) for bare in _BARE):
            return None
        else:
            self._state = "text"
        return ""

    def _in_text(self) -> str | None:
        """Show all but white space at the end, which may stand before a call, and what may begin a mark."""
        begin = self._style.begin
        at = self._held.find(begin)
        sure = self._held[: at if at >= 0 else len(self._held) - held_length(self._held, (begin,))].rstrip()
        self._held = self._held[len(sure) :]
        if at >= 0:
            self._state = "call"
            self._body = self._seek = at - len(sure) + len(begin)
            return sure
        return sure or None

    def _in_call(self) -> str | None:
        """Look for the end; a style without one has it where the answer ends."""
        end = self._style.end
        at = self._held.find(end, self._seek) if end else -1
        if at < 0:
            return None
        found = self._read(self._held[self._body : at])
        if found is None:
            self._seek = at + len(end)
            return ""
        self._state = "text"
        whole, self._held = self._held[: at + len(end)], self._held[at + len(end) :]
        self._found += found
        return "" if found else whole

    def _read(self, body: str) -> list[tuple[str, str]] | None:
        """Names and arguments; empty when it is no call of these tools, None when a string is not finished."""
        found: list[tuple[str, str]] = []
        at = _skipped(body, 0)
        while at < len(body):
            try:
                value, end = _DECODER.raw_decode(body, at)
                kind: Any = list[_Written] if isinstance(value, list) else _Written
                written = msgspec.json.decode(body[at:end], type=kind)
            except json.JSONDecodeError as error:
                return None if error.msg.startswith("Unterminated string") else []
            except (ValueError, RecursionError, msgspec.MsgspecError):
                return []
            for call in written if isinstance(written, list) else [written]:
                said = _arguments(call)
                if call.name not in self._names or said is None:
                    return []
                found.append((call.name, said))
            at = _skipped(body, end)
        return found


def _arguments(call: _Written) -> str | None:
    """The JSON of the arguments, as it was written; None if it is no object."""
    said = (bytes(call.arguments) or bytes(call.parameters) or b"{}").decode()
    if said.startswith('"'):  # some models put the JSON into a string
        said = json.loads(said)
        try:
            return said if isinstance(json.loads(said), dict) else None
        except (ValueError, RecursionError):
            return None
    return said if said.startswith("{") else None


def _skipped(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at
