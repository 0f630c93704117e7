"""Log probabilities in the two shapes of OpenAI's API. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from schemas.message import TokenLogprob, TopToken

LOWEST = -9999.0
"""What OpenAI says of a token that could not have come; JSON has no infinity."""


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """`logprobs` of a chat's choice; None where none were asked for."""
    if not tokens:
        return None
    return {
        "content": [{**_told(token), "top_logprobs": [_told(top) for top in token.top]} for token in tokens],
        "refusal": None,
    }


def _told(token: TokenLogprob | TopToken) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": max(token.logprob, LOWEST),
        "bytes": list(token.bytes or token.token.encode()),
    }


class Offsets:
    """Where each token begins in the answer, in characters; a character of several tokens begins with the first."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = 0

    def of(self, token: TokenLogprob) -> int:
        at = self._at
        self._at += len(self._decoder.decode(bytes(token.bytes) or token.token.encode()))
        return at


def completion_logprobs(tokens: Sequence[TokenLogprob], offsets: Offsets) -> dict[str, Any] | None:
    """`logprobs` of a completion's choice. The chosen token is among the likeliest, as one more where it was not."""
    if not tokens:
        return None
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [max(token.logprob, LOWEST) for token in tokens],
        "top_logprobs": [_likeliest(token) if token.top else None for token in tokens],
        "text_offset": [offsets.of(token) for token in tokens],
    }


def _likeliest(token: TokenLogprob) -> dict[str, float]:
    likeliest = {top.token: max(top.logprob, LOWEST) for top in token.top}
    return {**likeliest, token.token: max(token.logprob, LOWEST)}
