"""Who may send, how much and what: the checks before a message is accepted. Pure but for the clock it is given."""

from __future__ import annotations

from collections import OrderedDict

from schemas.config import LimitConfig
from schemas.errors import QueueFull, Rejected
from schemas.message import Inbound

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
        if len(inbound.history) > limits.history_messages_max:
            raise Rejected(
                f"{len(inbound.history)} messages; at most {limits.history_messages_max} are taken", code="too_large"
            )
        for i, message in enumerate(inbound.history):
            check_text(message.text, f"message {i}", limits)
        if sum(len(m.text) for m in inbound.history) > 4 * limits.text_chars_max:
            raise Rejected(f"all messages together exceed {4 * limits.text_chars_max} characters", code="too_large")
    if len(inbound.attachments) > limits.attachments_max:
        raise Rejected(f"{len(inbound.attachments)} attachments; at most {limits.attachments_max}", code="too_large")
    asks = inbound.text.strip() or inbound.attachments or any(m.text.strip() for m in inbound.history or ())
    if not asks:
        raise Rejected("the message is empty", code="empty")
    sampling = inbound.sampling
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise Rejected(f"max_tokens: expected at least 1, got {sampling.max_tokens}", code="bad_value")
    for name, low, high in (("temperature", 0.0, 5.0), ("top_p", 0.0, 1.0), ("min_p", 0.0, 1.0)):
        value = getattr(sampling, name)
        if value is not None and not low <= value <= high:
            raise Rejected(f"{name}: expected {low:g} to {high:g}, got {value:g}", code="bad_value")
    if sampling.seed is not None and not 0 <= sampling.seed < 2**32:
        raise Rejected(f"seed: expected 0 to {2**32 - 1}, got {sampling.seed}", code="bad_value")
    if len(sampling.stop) > 16 or any(not s or len(s) > 256 for s in sampling.stop):
        raise Rejected("stop: expected at most 16 strings of 1 to 256 characters", code="bad_value")


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
