"""Turns, failures and shadow answers as samples for `ops.watch`. Pure.

What always holds: what was cancelled, has no text to judge, or failed by its sender's fault, is no sample of a version.
"""

from __future__ import annotations

from ops.watch import ALIKE_CHARS_MIN, Sample
from schemas.message import Inbound
from schemas.model import FailedAnswer, ShadowAnswer
from schemas.repeats import repeats
from schemas.turn import Turn

SENDERS = frozenset(
    {
        "rejected", "bad_request", "bad_format", "bad_sampling", "bad_tools", "context_overflow", "empty", "malformed",
        "template", "too_large", "too_many", "unknown_adapter", "unknown_model", "unsupported",
    }
)  # fmt: skip
"""Codes of refusals: the request could not be answered by any version."""
ANOTHERS = frozenset(
    {"model_unloaded", "model_removed", "model_not_loaded", "bus_unavailable", "sessions_unavailable", "disconnected"}
)
"""Codes of attempts that the machine cut short: a model on its way out, a server that was away."""
TOKENS_FOR_PACE = 8
"""An answer of fewer tokens says little about the time for each."""


def of_turn(turn: Turn) -> Sample | None:
    """A finished exchange."""
    inbound, kind = turn.inbound, turn.inbound.kind
    if turn.finish == "cancelled" or kind == "embedding":
        return None
    began = turn.finished_at - turn.timings.total_ms / 1000
    if turn.error is not None:
        if turn.error.code in SENDERS | ANOTHERS:
            return None
        return Sample(ok=False, worker=turn.worker, began=began, ended=turn.finished_at)
    text, usage, timings = turn.text.strip(), turn.usage, turn.timings
    wordless = kind == "image" or turn.finish == "tool_calls"
    tokens = usage.completion_tokens
    timed = timings.first_token_ms > 0 and timings.total_ms >= timings.first_token_ms
    return Sample(
        empty=None if wordless else not text,
        repeats=0.0 if wordless else repeats(text),
        text=hash(" ".join(text.split())) if len(text) >= ALIKE_CHARS_MIN else 0,
        question=question(inbound),
        unread=max(0, usage.prompt_tokens - usage.cached_tokens),
        first_ms=timings.first_token_ms if timed else None,
        token_ms=(timings.total_ms - timings.first_token_ms) / (tokens - 1)
        if timed and tokens >= TOKENS_FOR_PACE
        else None,
        worker=turn.worker,
        began=began,
        ended=turn.finished_at,
    )


def question(inbound: Inbound) -> int:
    """The same for a question that was asked again."""
    history = tuple(line.text for line in inbound.history or ())
    return hash((inbound.system, history, inbound.text, tuple(a.sha256 for a in inbound.attachments)))


def of_failure(failure: FailedAnswer) -> Sample | None:
    """An attempt that failed."""
    if failure.code in SENDERS | ANOTHERS:
        return None
    return Sample(ok=False, worker=failure.worker, began=failure.at, ended=failure.at)


def of_shadow(answer: ShadowAnswer) -> Sample:
    """An answer that nobody saw. Its times say nothing: it was made beside the one that somebody waited for."""
    empty = answer.text_chars == 0 if answer.ok else None
    return Sample(
        ok=answer.ok, empty=empty, repeats=answer.repeats, worker=answer.worker, began=answer.at, ended=answer.at
    )
