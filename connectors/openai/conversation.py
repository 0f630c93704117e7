"""OpenAI's `messages` and `tools`, and what they become. Pure.

What always holds: a result of a tool belongs to a call that stands before it, and what a model cannot be shown (images,
sound) is refused by its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from connectors.openai.decode import bad, short
from schemas.message import Message, Role, Tool, ToolCall

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


class ImageUrl(Struct, frozen=True):
    url: str = ""


class Part(Struct, frozen=True):
    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class CalledFunction(Struct, frozen=True):
    name: str
    arguments: str = "{}"


class Call(Struct, frozen=True):
    id: str
    function: CalledFunction | None = None
    type: str = "function"


class ChatMessage(Struct, frozen=True):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    function_call: Any = None


class Function(Struct, frozen=True):
    """`strict` needs no place of its own: arguments are held to their schema as far as the model's backend can."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolSpec(Struct, frozen=True):
    type: str = "function"
    function: Function | None = None


class NamedFunction(Struct, frozen=True):
    name: str


class ToolChoice(Struct, frozen=True):
    type: str
    function: NamedFunction | None = None


def tools_of(specs: Sequence[ToolSpec]) -> tuple[Tool, ...]:
    """The tools; limits and names are admission's business."""
    out = []
    for i, spec in enumerate(specs):
        if spec.type != "function":
            raise bad(f"tools[{i}].type", f"expected function, got {short(spec.type)!r}", code="unsupported")
        if spec.function is None:
            raise bad(f"tools[{i}].function", "missing")
        function = spec.function
        out.append(Tool(function.name, function.description or "", function.parameters or {}))
    return tuple(out)


def tool_choice_of(choice: str | ToolChoice | None) -> str:
    """`auto`, `none`, `required` or `=NAME`."""
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise bad("tool_choice", f"expected auto, none, required or a function, got {short(choice)!r}")
        return choice
    if choice.type != "function":
        raise bad("tool_choice.type", f"expected function, got {short(choice.type)!r}", code="unsupported")
    if choice.function is None:
        raise bad("tool_choice.function", "missing")
    return f"={choice.function.name}"


def conversation_of(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """All lines of the conversation."""
    called: dict[str, str] = {}
    return tuple(_message(f"messages[{i}]", message, called) for i, message in enumerate(messages))


def _message(place: str, message: ChatMessage, called: dict[str, str]) -> Message:
    """One line; `called` holds the names of the functions called so far, by the id of the call."""
    if message.role == "function" or message.function_call:
        raise bad(place, "function calls of the old kind are not supported; send tool_calls", code="unsupported")
    role = ROLES.get(message.role)
    if role is None:
        raise bad(f"{place}.role", f"expected system, developer, user, assistant or tool, got {short(message.role)!r}")
    calls: tuple[ToolCall, ...] = ()
    if message.tool_calls:
        if role != "assistant":
            raise bad(f"{place}.tool_calls", "only an assistant's message has them")
        calls = tuple(_call(f"{place}.tool_calls[{j}]", call) for j, call in enumerate(message.tool_calls))
        called.update((call.id, call.name) for call in calls)
    if role != "tool":
        return Message(role, _text(place, message.content, needed=not calls), calls)
    if not message.tool_call_id:
        raise bad(f"{place}.tool_call_id", "missing; it says which call this is the result of")
    if message.tool_call_id not in called:
        raise bad(f"{place}.tool_call_id", f"no tool call before it has the id {short(message.tool_call_id)!r}")
    name = called[message.tool_call_id]
    return Message(role, _text(place, message.content), tool_call=message.tool_call_id, name=name)


def _call(place: str, call: Call) -> ToolCall:
    if call.type != "function":
        raise bad(f"{place}.type", f"expected function, got {short(call.type)!r}", code="unsupported")
    if call.function is None:
        raise bad(f"{place}.function", "missing")
    if not call.id:
        raise bad(f"{place}.id", "empty; the result of the call is found by it")
    return ToolCall(call.id, call.function.name, call.function.arguments)


def _text(place: str, content: str | list[Part] | None, *, needed: bool = True) -> str:
    if content is None:
        if needed:
            raise bad(f"{place}.content", "expected a text")
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(_part(f"{place}.content[{j}]", part) for j, part in enumerate(content))


def _part(place: str, part: Part) -> str:
    if part.type == "text" and part.text is not None:
        return part.text
    if part.type == "text":
        raise bad(f"{place}.text", "expected a text")
    if part.type == "image_url":
        raise bad(place, "the models here take no images; send text", code="unsupported")
    raise bad(f"{place}.type", f"{short(part.type)!r} is not supported; send text")
