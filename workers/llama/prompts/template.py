"""The model's own chat template. It comes from a model file, so it is untrusted code and runs in a sandbox.

Not a place for house rules: what the template says is what the model was trained on. What always holds: a
template can neither reach Python objects nor take unbounded time or memory; one that fails is `Rejected` for that
conversation, or replaced by ChatML when it cannot be compiled at all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from schemas.errors import Rejected
from schemas.message import Message, Tool
from workers.llama.prompts import tools as calling

log = logging.getLogger(__name__)

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SOURCE_CHARS_MAX = 262_144
"""The longest templates in use have about 20,000 characters."""
LOOP_TURNS_MAX = 100_000
"""Turns of all `range` loops of one rendering together."""
TEXT_CHARS_MAX = 4_000_000
"""A rendered conversation; also the longest string that a template may build by repetition."""
PADDING = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})
"""Methods that can make a gigabyte from a number; chat templates do not need them."""


class _Refused(TemplateError):
    """The template itself refused the conversation with `raise_exception`."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, int) and isinstance(right, int):
            return left % right
        if operator == "*":
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if not hasattr(sized, "__len__") or (isinstance(times, int) and len(sized) * times <= TEXT_CHARS_MAX):
                return left * right
        raise SecurityError(f"the operator {operator} is not available here")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in PADDING and super().is_safe_attribute(obj, attr, value)


class ChatTemplate:
    """Renders a conversation to the text that the model continues."""

    def __init__(
        self, source: str | None, bos: str = "", eos: str = "", now: Callable[[], datetime] = datetime.now
    ) -> None:
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._now = now
        self.fallback = ""
        """Why the model's own template is not used; empty when it is."""
        if not source:
            self._choose_chatml("the model file has no chat template")
        elif len(source) > SOURCE_CHARS_MAX:
            self._choose_chatml(f"the model's chat template has {len(source)} characters, {SOURCE_CHARS_MAX} at most")
        else:
            self._compile(source)
        self.style = calling.HERMES
        """How the model writes calls."""
        self._knows_tools = self._as_text = False
        self._learn()

    def _learn(self) -> None:
        """Find out by trying whether and how the template writes tools and calls."""
        for as_text in (False, True):
            self._as_text = as_text
            try:
                style = calling.style_in(self._run(calling.PROBE, (calling.PROBE_TOOL,)))
            except (_Refused, Rejected):
                continue
            if style is not None:
                self.style, self._knows_tools = style, True
                return
        self._as_text = False

    def _compile(self, source: str) -> None:
        try:
            self._template = _environment().from_string(source)
        except (TemplateError, RecursionError, OverflowError, MemoryError) as error:
            self._choose_chatml(f"the model's chat template does not compile ({error})")

    def _choose_chatml(self, reason: str) -> None:
        self.fallback = reason
        log.warning("%s; ChatML is used instead", reason)
        self._template = _environment().from_string(CHATML)

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The text up to where the answer begins; raises `Rejected` when the template cannot hold the conversation.

        Templates that know no tools, no system role, several calls at once, or that want user and assistant in turn,
        get the conversation folded so.
        """
        if self._knows_tools and (tools or any(m.tool_calls or m.role == "tool" for m in messages)):
            try:
                return self._run(messages, tools)
            except (_Refused, Rejected):
                pass
        written = calling.told(messages, self.style)
        if not self._knows_tools:
            written, tools = calling.introduced(written, tools, self.style), ()
        try:
            return self._run(written, tools)
        except _Refused:
            pass
        try:
            return self._run(folded(written), tools)
        except _Refused as error:
            raise Rejected(f"the model's chat template refuses this conversation: {error}", code="template") from None

    def _run(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        out: list[str] = []
        chars = 0
        values = {
            "messages": [calling.line(m, as_text=self._as_text) for m in messages],
            "add_generation_prompt": True,
            "range": _Range(),
            "strftime_now": lambda form: self._now().strftime(str(form)),
            **({"tools": [calling.described(tool) for tool in tools]} if tools else {}),
            **self._tokens,
        }
        try:
            for part in self._template.generate(**values):
                chars += len(part)
                if chars > TEXT_CHARS_MAX:
                    raise SecurityError(f"more than {TEXT_CHARS_MAX} characters")  # noqa: TRY301
                out.append(part)
        except _Refused:
            raise
        except Exception as error:  # noqa: BLE001 - whatever foreign code does wrong is the template's failure
            raise Rejected(f"the model's chat template failed: {error}", code="template") from None
        return "".join(out)


class _Range:
    """`range` with one budget for a whole rendering, so that nested loops end."""

    def __init__(self) -> None:
        self._left = LOOP_TURNS_MAX

    def __call__(self, *bounds: int) -> range:
        turns = range(*bounds)
        self._left -= len(turns) + 1
        if self._left < 0:
            raise SecurityError(f"more than {LOOP_TURNS_MAX} turns of loops")
        return turns


def folded(messages: Sequence[Message]) -> list[Message]:
    """Without system messages (their text goes in front of the next user message) and with roles in turn."""
    out: list[Message] = []
    for message in messages:
        role = "user" if message.role == "system" else message.role
        if out and out[-1].role == role:
            out[-1] = Message(role, f"{out[-1].text}\n\n{message.text}")
        else:
            out.append(Message(role, message.text))
    return out


def _environment() -> _Environment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.filters.pop("center", None)
    environment.filters.pop("format", None)
    environment.globals.clear()
    environment.globals.update(raise_exception=_raise, namespace=Namespace)
    return environment


def _raise(message: object) -> None:
    raise _Refused(str(message))


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=min(indent, 8) if indent else None)
