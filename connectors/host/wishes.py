"""The checks of what a request asks for beside its text: sampling, tools, formats, pictures, texts to embed. Pure.

What always holds: a refusal begins with the name of the field, and says what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.config import LimitConfig
from schemas.errors import Rejected
from schemas.message import Attachment, Format, Sampling
from schemas.picture import Drawing, size_of

TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TOP_LOGPROBS_MAX = 20
"""As many as OpenAI tells; each costs a part of the answer's size for every token."""
DEPTH_MAX = 64
"""Levels of a JSON Schema; the ones that people write have fewer than ten."""
SIDE_MIN = 64
SIDE_UNIT = 8
"""Autoencoders halve a picture's sides three times or more."""
GUIDANCE_MAX = 30.0
NEGATIVE_CHARS_MAX = 2_000
SCHEDULER = re.compile(r"[a-z0-9_+-]{1,32}")
RANGES = (
    ("temperature", 0.0, 5.0),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
)


def check_sampling(sampling: Sampling, limits: LimitConfig) -> None:
    """Raises `Rejected` for values that no backend should be given."""
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise _bad("max_tokens", "at least 1", sampling.max_tokens)
    for name, low, high in RANGES:
        value = getattr(sampling, name)
        if value is not None and not low <= value <= high:
            raise _bad(name, f"{low:g} to {high:g}", f"{value:g}")
    if sampling.seed is not None and not 0 <= sampling.seed < 2**32:
        raise _bad("seed", f"0 to {2**32 - 1}", sampling.seed)
    if len(sampling.stop) > 16 or any(not s or len(s) > 256 for s in sampling.stop):
        raise Rejected("stop: expected at most 16 strings of 1 to 256 characters", code="bad_value")
    if not 1 <= sampling.n <= limits.answers_max:
        raise _bad("n", f"1 to {limits.answers_max} (limits.answers_max)", sampling.n)
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= TOP_LOGPROBS_MAX:
        raise _bad("logprobs", f"0 to {TOP_LOGPROBS_MAX}", sampling.logprobs)
    told = sampling.n * (sampling.logprobs + 1) if sampling.logprobs is not None else 0
    if told > limits.logprobs_max:
        raise Rejected(
            f"logprobs: {told} for each place in {sampling.n} answers; at most {limits.logprobs_max} are told "
            "(limits.logprobs_max)",
            code="too_large",
        )
    _check_bias(sampling.logit_bias, limits)
    if len(sampling.adapter) > 64:
        raise Rejected("adapter: expected a name of at most 64 characters", code="bad_value")
    if sampling.format is not None:
        check_format(sampling.format, limits)
    check_tools(sampling, limits)


def _check_bias(bias: dict[str, float], limits: LimitConfig) -> None:
    if len(bias) > limits.logit_bias_max:
        raise Rejected(
            f"logit_bias: {len(bias)} tokens; at most {limits.logit_bias_max} are taken (limits.logit_bias_max)",
            code="too_large",
        )
    for token, value in bias.items():
        if not (token.isascii() and token.isdigit() and len(token) <= 9):
            raise Rejected(f"logit_bias: expected numbers of tokens as keys, got {token[:40]!r}", code="bad_value")
        if not -100 <= value <= 100:
            raise _bad(f"logit_bias.{token}", "-100 to 100", f"{value:g}")


def check_tools(sampling: Sampling, limits: LimitConfig) -> None:
    """Names, numbers and sizes of the tools, and that the chosen one is among them."""
    tools = sampling.tools
    if len(tools) > limits.tools_max:
        raise Rejected(
            f"tools: {len(tools)}; at most {limits.tools_max} are taken (limits.tools_max)", code="too_large"
        )
    names: set[str] = set()
    for i, tool in enumerate(tools):
        if not TOOL_NAME.fullmatch(tool.name):
            raise Rejected(
                f"tools[{i}].name: expected 1 to 64 letters, digits, _ and -, got {tool.name[:80]!r}", code="bad_value"
            )
        if tool.name in names:
            raise Rejected(f"tools[{i}].name: {tool.name!r} is there twice; names must differ", code="bad_value")
        names.add(tool.name)
        if depth(tool.parameters) > DEPTH_MAX:
            raise Rejected(f"tools[{i}].parameters: nested more than {DEPTH_MAX} levels deep", code="too_large")
    size = len(msgspec.json.encode(tools)) if tools else 0
    if size > limits.tools_chars_max:
        raise Rejected(
            f"tools: {size} characters; at most {limits.tools_chars_max} are taken (limits.tools_chars_max)",
            code="too_large",
        )
    choice = sampling.tool_choice
    if choice.startswith("="):
        if choice[1:] not in names:
            raise Rejected(f"tool_choice: there is no tool {choice[1:81]!r} among `tools`", code="bad_value")
    elif choice not in ("auto", "none", "required"):
        raise Rejected(f"tool_choice: expected auto, none, required or =NAME, got {choice[:80]!r}", code="bad_value")
    elif choice == "required" and not tools:
        raise Rejected("tool_choice: required, but there are no tools", code="bad_value")


def check_format(format: Format, limits: LimitConfig) -> None:
    """A schema or grammar that is there, and of a size that can be compiled. Whether it is a right one, the model's
    backend tells."""
    if format.type == "json_schema" and format.schema is None:
        raise Rejected("format.schema: missing; a format of type json_schema needs one", code="bad_value")
    if format.type == "grammar" and not format.grammar.strip():
        raise Rejected("format.grammar: missing; a format of type grammar needs one", code="bad_value")
    if depth(format.schema) > DEPTH_MAX:
        raise Rejected(f"format.schema: nested more than {DEPTH_MAX} levels deep", code="too_large")
    size = len(format.grammar) + (len(msgspec.json.encode(format.schema)) if format.schema is not None else 0)
    if size > limits.format_chars_max:
        raise Rejected(
            f"format: {size} characters; at most {limits.format_chars_max} are taken (limits.format_chars_max)",
            code="too_large",
        )


def check_drawing(drawing: Drawing, attachments: Sequence[Attachment], limits: LimitConfig) -> None:
    """Raises `Rejected` for what no model could draw; what only some can, the model's backend tells."""
    if drawing.size:
        _check_size(drawing.size, limits.picture_side_max)
    most = limits.picture_steps_max
    if drawing.steps is not None and not 1 <= drawing.steps <= most:
        raise _bad("steps", f"1 to {most} (limits.picture_steps_max)", drawing.steps)
    if drawing.guidance is not None and not 0 <= drawing.guidance <= GUIDANCE_MAX:
        raise _bad("guidance", f"0 to {GUIDANCE_MAX:g}", f"{drawing.guidance:g}")
    if len(drawing.negative) > NEGATIVE_CHARS_MAX:
        raise Rejected(
            f"negative: {len(drawing.negative)} characters; at most {NEGATIVE_CHARS_MAX} are taken", code="too_large"
        )
    if drawing.scheduler and not SCHEDULER.fullmatch(drawing.scheduler):
        raise _bad("scheduler", "a name such as euler, of 32 characters at most", repr(drawing.scheduler[:40]))
    if drawing.strength is not None and not 0 <= drawing.strength <= 1:
        raise _bad("strength", "0 to 1", f"{drawing.strength:g}")
    if drawing.strength is not None and not attachments:
        raise Rejected("strength: there is no picture to start from; attach one", code="bad_value")


def _check_size(size: str, most: int) -> None:
    sides = size_of(size)
    if sides is None:
        raise _bad("size", "WIDTHxHEIGHT in pixels, such as 512x512", repr(size[:40]))
    for side in sides:
        if not SIDE_MIN <= side <= most:
            raise _bad("size", f"sides of {SIDE_MIN} to {most} pixels (limits.picture_side_max)", size)
        if side % SIDE_UNIT:
            raise _bad("size", f"sides that are multiples of {SIDE_UNIT}", size)


def check_picture(prompt: str, attachments: Sequence[Attachment], limits: LimitConfig) -> None:
    """The words and files of a request that is known to be for a picture; raises `Rejected`."""
    if not prompt.strip():
        raise Rejected("text: say what the picture shall show", code="empty")
    if len(prompt) > limits.picture_prompt_chars_max:
        raise Rejected(
            f"text: {len(prompt)} characters; a picture's prompt has at most {limits.picture_prompt_chars_max} "
            "(limits.picture_prompt_chars_max)",
            code="too_large",
        )
    if len(attachments) > 1:
        raise Rejected(f"attachments: {len(attachments)}; a picture starts from one", code="bad_value")
    for i, file in enumerate(attachments):
        if not file.media_type.startswith("image/"):
            raise Rejected(f"attachments[{i}]: {file.media_type[:80]!r} is no picture to start from", code="media_type")


def check_inputs(inputs: tuple[str, ...], limits: LimitConfig) -> None:
    """How many texts to embed, and how long they are together."""
    if len(inputs) > limits.inputs_max:
        raise Rejected(
            f"inputs: {len(inputs)} texts; at most {limits.inputs_max} are taken (limits.inputs_max)", code="too_large"
        )
    chars = sum(map(len, inputs))
    if chars > limits.inputs_chars_max:
        raise Rejected(
            f"inputs: {chars} characters together; at most {limits.inputs_chars_max} are taken "
            "(limits.inputs_chars_max)",
            code="too_large",
        )
    for i, text in enumerate(inputs):
        if not text.strip():
            raise Rejected(f"inputs[{i}]: the text is empty", code="empty")


def depth(value: Any) -> int:
    """Levels of objects and lists within each other; without recursion, as the value is a stranger's."""
    deepest, open_ = 0, [(value, 1)]
    while open_ and deepest <= DEPTH_MAX:
        item, level = open_.pop()
        if isinstance(item, (dict, list, tuple)):
            deepest = max(deepest, level)
            open_.extend((inner, level + 1) for inner in (item.values() if isinstance(item, dict) else item))
    return deepest


def _bad(name: str, expected: str, got: object) -> Rejected:
    return Rejected(f"{name}: expected {expected}, got {got}", code="bad_value")
