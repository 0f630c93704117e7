"""How a model is told of tools, and how it writes calls. Pure; `calls.py` reads what it wrote.

A model calls best in the style that it was trained on, which its chat template shows: a conversation with a call is
rendered and the call looked for in the text. A template that shows none of the known styles is told of the tools in
the system message, with the style to use. What always holds: what a template cannot hold stands in the conversation
as text, so nothing of it is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, structs

from schemas.errors import Rejected
from schemas.message import Format, Message, Tool, ToolCall, token
from workers.llama.sampling.constrain import constraint, refused, sized, with_options

TOOLS_MAX: Final = 128
PARALLEL_MAX: Final = 16
"""Calls that a grammar allows in a row: small models begin to repeat themselves."""
NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
ID_LENGTH: Final = 9
"""Mistral's templates take call ids of nine letters and digits only, others take any."""


class Style(Struct, frozen=True, kw_only=True):
    """How a model writes calls: `begin`, JSON of `name` and `key`, `end`.

    `bare`: a call may also be the whole answer, without `begin`. `listed`: one JSON array of all calls.
    """

    name: str
    begin: str
    end: str = ""
    key: str = "arguments"
    bare: bool = False
    listed: bool = False


HERMES: Final = Style(name="hermes", begin="<tool_call>", end="</tool_call>")
LLAMA: Final = Style(name="llama", begin="<|python_tag|>", key="parameters", bare=True)
MISTRAL: Final = Style(name="mistral", begin="[TOOL_CALLS]", listed=True)


class Offered(Struct, frozen=True):
    """The tools of a conversation. `above`: they are the words of those whose are the `shared` messages before them."""

    tools: tuple[Tool, ...] = ()
    above: bool = False


NOTHING: Final = Offered()

_PROBE: Final = ToolCall(id="probe1234", name="look_up", arguments='{"word": "zebra"}')
PROBE_TOOL: Final = Tool(
    name="look_up",
    description="Looks a word up",
    parameters={"type": "object", "properties": {"word": {"type": "string", "description": "A word"}}},
)
PROBE: Final = (
    Message("user", "What is a zebra?"),
    Message("assistant", "", (_PROBE,)),
    Message("tool", "an animal", tool_call=_PROBE.id, name=_PROBE.name),
)
"""A conversation that shows how a template writes tools, calls and results."""
_SHOWN: Final = {
    style.name: re.compile(pattern + r'\s*\{\s*"name"\s*:\s*"look_up"\s*,\s*"' + style.key + r'"\s*:\s*\{\s*"word"')
    for style, pattern in ((HERMES, r"<tool_call>"), (MISTRAL, r"\[TOOL_CALLS\]\s*\["), (LLAMA, ""))
}


def style_in(text: str) -> Style | None:
    """The style of the call in the rendered `PROBE`; None if it shows none of the known ones, or not the tool."""
    if "Looks a word up" not in text or "an animal" not in text:
        return None
    return next((style for style in (HERMES, MISTRAL, LLAMA) if _SHOWN[style.name].search(text)), None)


def checked(tools: Sequence[Tool], choice: str) -> tuple[Tool, ...]:
    """The tools that the model is to know: none for the choice `none`. Raises `Rejected` (`bad_tools`)."""
    if len(tools) > TOOLS_MAX:
        raise _bad(f"there are {len(tools)} tools, {TOOLS_MAX} at most")
    names = [tool.name for tool in tools]
    for i, name in enumerate(names):
        if not NAME.fullmatch(name):
            raise _bad(f"tools[{i}] has the name {name[:80]!r}; use letters, digits and _ . : - , 64 at most")
        if name in names[:i]:
            raise _bad(f"two tools have the name {name!r}")
    if choice.startswith("=") and choice[1:] not in names:
        raise _bad(f"tool_choice wants {choice[1:81]!r}, which is none of the tools")
    if choice == "required" and not tools:
        raise _bad("tool_choice wants a call, and there are no tools")
    if choice not in ("auto", "none", "required") and not choice.startswith("="):
        raise _bad(f"tool_choice is {choice[:80]!r}; it must be auto, none, required or =NAME")
    return () if choice == "none" else tuple(tools)


def constraint_for(
    tools: Sequence[Tool],
    choice: str,
    parallel: bool,
    style: Style = HERMES,
    *,
    tokens: Mapping[str, int] | None = None,
    form: Format | None = None,
) -> str:
    """The grammar of an answer that may, or (`required`, `=NAME`) must call `tools`, for `constrain`.

    `tokens`: marks of the style that are single control tokens of the model; `form`: what an answer without a call
    must be. Without tools it is the constraint of `form` alone.
    """
    if not tools:
        return constraint(form)
    usable = [tool for tool in tools if choice in ("auto", "required", f"={tool.name}")]
    parallel = parallel and not choice.startswith("=")
    try:
        schema = with_options(_schema(usable, style, parallel), lenient=True)
        grammars: list[dict[str, Any]] = [{"name": "call", "json_schema": schema}]
        if form is not None and choice == "auto":
            grammars.append({**json.loads(constraint(form))["grammars"][0], "name": "answer"})
        known = tokens or {}
        free = _free(style, form is not None, parallel and bool(style.end), style.begin in known)
        source = "\n".join((
            "%llguidance {}",
            f"start: {free if choice == 'auto' else _must(style, parallel and bool(style.end))}",
            f"call: {_mark(style.begin, known)} body",
            f'body: "\\n" @call "\\n" {_mark(style.end, known)}' if style.end else "body: @call",
            f"head[lazy]: {'SAID?' if style.bare else 'TEXT'} {json.dumps(style.begin)}",
            "TEXT: /(.|\\n)*/",
            "SAID: /\\s{0,4}[^{\\s](.|\\n)*/",
        ))  # fmt: skip
        return sized(json.dumps({"grammars": [{"lark_grammar": source}, *grammars]}, ensure_ascii=False))
    except RecursionError:
        raise refused("the tools' schemas are nested too deeply") from None


def _must(style: Style, several: bool) -> str:
    """Rule of an answer that is a call, or `several`."""
    one = "body" if style.bare else "call"
    return f'{one} ("\\n" call){{0,{PARALLEL_MAX - 1}}}' if several else one


def _free(style: Style, formed: bool, several: bool, marked: bool) -> str:
    """Rule of an answer that may call. `marked`: the mark is one token, which words cannot contain."""
    if formed:
        return (
            "@answer | body | call" if style.bare else '@answer | call ("\\n" call)*' if several else "@answer | call"
        )
    words, call = "SAID | body" if style.bare else "TEXT", "TEXT call" if marked else "head body"
    return f"({call})* {words}" if several else f"{words} | {call}"


def _mark(mark: str, tokens: Mapping[str, int]) -> str:
    return f"<[{tokens[mark]}]>" if mark in tokens else json.dumps(mark)


def _schema(tools: Sequence[Tool], style: Style, parallel: bool) -> dict[str, Any]:
    """JSON Schema of a call, or of the list of calls. What llguidance cannot follow of a tool's own is left out."""
    at = "#/items/anyOf" if style.listed else "#/anyOf"
    calls = []
    for i, tool in enumerate(tools):
        arguments = _moved({"type": "object", **tool.parameters}, f"{at}/{i}/properties/{style.key}")
        parts = {"name": {"const": tool.name}, style.key: arguments}
        calls.append({"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False})
    one: dict[str, Any] = {"anyOf": calls}
    if not style.listed:
        return one
    return {"type": "array", "items": one, "minItems": 1, "maxItems": PARALLEL_MAX if parallel else 1}


def _moved(schema: Any, to: str) -> Any:
    """A schema whose references within itself still hold when it stands at `to` of a larger one."""
    if isinstance(schema, dict):
        return {
            key: to + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, to)
            for key, value in schema.items()
        }
    return [_moved(value, to) for value in schema] if isinstance(schema, list) else schema


# -- what a template gets


def described(tool: Tool) -> dict[str, Any]:
    """A tool in OpenAI's shape, which templates expect."""
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def line(message: Message, *, as_text: bool = False) -> dict[str, Any]:
    """A message in the shape that templates expect; `as_text`: arguments of calls as JSON text, which some want."""
    out: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.tool_calls:
        out["tool_calls"] = [
            {
                "id": short(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments if as_text else _object(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        out["tool_call_id"] = short(message.tool_call)
        if message.name:
            out["name"] = message.name
    return out


def short(given: str) -> str:
    """A call's id as all templates take it."""
    return given if len(given) == ID_LENGTH and given.isascii() and given.isalnum() else call_id(given)


def call_id(*parts: str) -> str:
    """An id of a call, the same for the same parts."""
    return token("call", *parts)[:ID_LENGTH]


def preamble(tools: Sequence[Tool], style: Style = HERMES) -> str:
    """What tells a model of tools whose template cannot."""
    known = "\n".join(json.dumps(described(tool), ensure_ascii=False) for tool in tools)
    example = f'{style.begin}\n{{"name": <name of the tool>, "{style.key}": <its arguments as JSON>}}\n{style.end}'
    return (
        f"You may call these tools:\n<tools>\n{known}\n</tools>\n"
        f"To call a tool, write a JSON object with its name and arguments between marks:\n{example}\n"
        "Otherwise answer in words."
    )


def introduced(messages: Sequence[Message], tools: Sequence[Tool], style: Style = HERMES) -> list[Message]:
    """The conversation with the preamble behind the first system message, which is made if there is none."""
    if not tools:
        return list(messages)
    text = preamble(tools, style)
    if messages and messages[0].role == "system":
        return [Message("system", f"{messages[0].text}\n\n{text}"), *messages[1:]]
    return [Message("system", text), *messages]


def reworded(message: Message, word: Callable[[str], str]) -> Message:
    """The message in which `word` gave other words for all that its author wrote, also within JSON."""
    if not message.tool_calls and message.role != "tool":
        return structs.replace(message, text=word(message.text))
    calls = tuple(ToolCall(word(c.id), word(c.name), _arguments(c.arguments, word)) for c in message.tool_calls)
    name = word(message.name) if message.name else ""
    tool_call = word(message.tool_call) if message.tool_call else ""
    return structs.replace(message, text=word(message.text), tool_calls=calls, tool_call=tool_call, name=name)


def tool_reworded(tool: Tool, word: Callable[[str], str]) -> Tool:
    """The same for a tool."""
    return Tool(word(tool.name), word(tool.description), _within(tool.parameters, word))


def _arguments(text: str, word: Callable[[str], str]) -> str:
    value = _object(text)
    return word(text) if isinstance(value, str) else json.dumps(_within(value, word), ensure_ascii=False)


def _within(value: Any, word: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {word(key): _within(inner, word) for key, inner in value.items()}
    if isinstance(value, list):
        return [_within(inner, word) for inner in value]
    text = value if isinstance(value, str) else json.dumps(value)
    said = word(text)
    return value if said == text else said


def told(messages: Sequence[Message], style: Style = HERMES) -> list[Message]:
    """The conversation with calls and results as text, for templates that do not know them."""
    out = []
    for message in messages:
        if message.tool_calls:
            parts = [message.text] if message.text else []
            out.append(Message(message.role, "\n".join([*parts, *(_written(c, style) for c in message.tool_calls)])))
        elif message.role == "tool":
            out.append(Message("user", f"<tool_response>\n{message.text}\n</tool_response>"))
        else:
            out.append(message)
    return out


def _written(call: ToolCall, style: Style) -> str:
    body = f'{{"name": {json.dumps(call.name)}, "{style.key}": {call.arguments}}}'
    return f"{style.begin}\n{body}\n{style.end}" if style.end else body


def _object(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _bad(why: str) -> Rejected:
    return Rejected(f"The tools cannot be used: {why}.", code="bad_tools")
