"""Who may send, how much and what: the checks before a message is accepted. Pure but for the clock it is given."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from connectors.host.wishes import TOOL_NAME, check_drawing, check_inputs, check_sampling
from schemas.config import LimitConfig
from schemas.errors import QueueFull, Rejected
from schemas.message import Inbound, Message
from schemas.picture import Drawing

SENDERS_REMEMBERED = 10_000


def check_text(text: str, what: str, limits: LimitConfig) -> None:
    """Raises `Rejected` for text that no model should be given."""
    if len(text) > limits.text_chars_max:
        raise Rejected(
            f"{what} has {len(text)} characters; at most {limits.text_chars_max} are taken (limits.text_chars_max)",
            code="too_large",
        )
    if "\0" in text:
        raise Rejected(f"{what} contains a NUL character at position {text.index(chr(0))}; remove it", code="bad_text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Rejected(f"{what} is not valid Unicode at position {error.start}", code="bad_text") from None


def check_message(inbound: Inbound, limits: LimitConfig) -> None:
    """Raises `Rejected` naming what is wrong with the content."""
    check_text(inbound.text, "the text", limits)
    if inbound.system is not None:
        check_text(inbound.system, "the system prompt", limits)
    if inbound.history is not None:
        check_history(inbound.history, limits)
    if len(inbound.attachments) > limits.attachments_max:
        raise Rejected(f"{len(inbound.attachments)} attachments; at most {limits.attachments_max}", code="too_large")
    if inbound.history is None and inbound.sampling.tools:
        raise Rejected(
            "tools: a stored conversation keeps no tool calls; bring the whole conversation along in the request",
            code="unsupported",
        )
    check_inputs(inbound.inputs, limits)
    if bool(inbound.inputs) != (inbound.kind == "embedding"):
        raise Rejected("inputs: texts to embed, for kind embedding and no other", code="bad_value")
    for i, text in enumerate(inbound.inputs):
        check_text(text, f"inputs[{i}]", limits)
    history = inbound.history or ()
    asks = inbound.text.strip() or inbound.attachments or inbound.inputs or any(m.text.strip() for m in history)
    if not asks:
        raise Rejected("the message is empty", code="empty")
    check_sampling(inbound.sampling, limits)
    check_text(inbound.drawing.negative, "negative", limits)
    check_drawing(inbound.drawing, inbound.attachments, limits)
    if inbound.drawing != Drawing() and inbound.kind not in ("auto", "image"):
        raise Rejected("drawing: for kind image and no other", code="bad_value")


def check_history(history: Sequence[Message], limits: LimitConfig) -> None:
    """A conversation that the caller brings along: its size, and that results of tools follow their calls."""
    if len(history) > limits.history_messages_max:
        raise Rejected(f"{len(history)} messages; at most {limits.history_messages_max} are taken", code="too_large")
    called: set[str] = set()
    for i, message in enumerate(history):
        check_text(message.text, f"message {i}", limits)
        _check_calls(message, i, limits)
        if message.role == "tool" and message.tool_call not in called:
            raise Rejected(
                f"messages[{i}].tool_call: no tool call before it has the id {message.tool_call[:80]!r}",
                code="bad_value",
            )
        called.update(call.id for call in message.tool_calls)
    if sum(map(_chars, history)) > 4 * limits.text_chars_max:
        raise Rejected(f"all messages together exceed {4 * limits.text_chars_max} characters", code="too_large")


def _check_calls(message: Message, index: int, limits: LimitConfig) -> None:
    """The tool calls of one line of a conversation."""
    if len(message.tool_calls) > limits.tools_max:
        raise Rejected(
            f"messages[{index}].tool_calls: {len(message.tool_calls)}; at most {limits.tools_max} are taken",
            code="too_large",
        )
    for i, call in enumerate(message.tool_calls):
        where = f"messages[{index}].tool_calls[{i}]"
        if not TOOL_NAME.fullmatch(call.name):
            raise Rejected(f"{where}: {call.name[:80]!r} is no name of a tool", code="bad_value")
        check_text(call.arguments, where, limits)


def _chars(message: Message) -> int:
    return len(message.text) + sum(len(call.arguments) for call in message.tool_calls)


class Meter:
    """Rate and unanswered messages of each sender: a token bucket and a count."""

    def __init__(self, limits: LimitConfig) -> None:
        self._limits = limits
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._open: dict[str, set[str]] = {}
        self._sender_of: dict[str, str] = {}

    def admit(self, sender: str, now: float) -> None:
        """Take one token; raises `Rejected(rate_limited)` or `QueueFull`."""
        waiting = len(self._open.get(sender, ()))
        if waiting >= self._limits.sender_queue_max:
            raise QueueFull(
                f"{waiting} of your messages are unanswered; at most {self._limits.sender_queue_max} may be",
                after_s=5.0,
                code="sender_full",
            )
        tokens, then = self._buckets.pop(sender, (float(self._limits.sender_burst), now))
        tokens = min(self._limits.sender_burst, tokens + (now - then) * self._limits.sender_rate_per_s)
        if tokens < 1:
            self._buckets[sender] = (tokens, now)
            raise Rejected(
                f"more than {self._limits.sender_rate_per_s:g} messages a second; slow down", code="rate_limited"
            )
        self._buckets[sender] = (tokens - 1, now)
        if len(self._buckets) > SENDERS_REMEMBERED:
            self._buckets.popitem(last=False)

    def opened(self, sender: str, request: str) -> None:
        self._open.setdefault(sender, set()).add(request)
        self._sender_of[request] = sender

    def closed(self, request: str) -> None:
        """A request is answered or was not stored; unknown ones (of an earlier process) are ignored."""
        sender = self._sender_of.pop(request, None)
        if sender is not None:
            self._open[sender].discard(request)
            if not self._open[sender]:
                del self._open[sender]
