"""How much of a prompt a model reads. What is beyond that is cut, and said.

Knows tokenizers and no pipeline. What always holds: what is cut is told with the last words that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

LIMIT_MAX = 4096
"""A tokenizer that knows no limit says some 10^30."""
SHOWN_WORDS = 4


class Read(Struct, frozen=True):
    """`tokens` of the prompt that the model reads; `note`: where the rest begins."""

    tokens: int
    note: str = ""


class Words:
    """The tokenizer that decides: of several the one that reads most."""

    def __init__(self, tokenizers: Sequence[Any], limit: int | None = None) -> None:
        """`limit`: the pipeline's own, where it cuts earlier than its tokenizer does."""
        limits = [(min(int(each.model_max_length), LIMIT_MAX), i) for i, each in enumerate(tokenizers)]
        self.limit, best = max(limits, default=(LIMIT_MAX, -1))
        if limit is not None and len(limits) > 1:
            self.limit = min(self.limit, limit)
        self._tokenizer = tokenizers[best] if limits else None

    def read(self, prompt: str, what: str = "prompt") -> Read:
        """Count the tokens; `what` the text is, for the note."""
        if self._tokenizer is None:
            return Read(0)
        fast = bool(getattr(self._tokenizer, "is_fast", False))
        coded = self._tokenizer(prompt, truncation=False, return_offsets_mapping=fast, verbose=False)
        count = len(coded["input_ids"])
        if count <= self.limit:
            return Read(count)
        kept = prompt
        if fast:
            special = self._tokenizer.num_special_tokens_to_add()
            ends = [end for _, end in coded["offset_mapping"] if end]
            kept = prompt[: ends[max(0, self.limit - special - 1)]]
        shown = " ".join(kept.split()[-SHOWN_WORDS:])
        where = f" it read up to “…{shown[-80:]}”" if fast else " the end was left out"
        return Read(self.limit, f"the {what} has {count} tokens and this model reads {self.limit}:{where}")
