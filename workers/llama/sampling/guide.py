"""Keeps answers to their constraints with llguidance: one `Guide` a model, one `Follow` an answer.

What always holds: a grammar was compiled in the trial process before it is compiled here; what is known of it, also
that it cannot be followed, is not found out twice; no tokenizer is made before the first constraint.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workers.llama.native.library import c
from workers.llama.sampling.constrain import explained, refused
from workers.llama.sampling.trial import Trial

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

GRAMMARS_MAX: Final = 32
"""Compiled grammars that are kept; one of a usual schema has under a megabyte."""


class Guide:
    """The constraints of one model. Close it before the model."""

    def __init__(self, vocab: Any, ending: frozenset[int], texts: Callable[[], list[bytes]]) -> None:
        """`vocab`: llama.cpp's own; `ending`: the tokens that end an answer; `texts`: the bytes of all tokens, those of
        control tokens behind 0xff."""
        self._vocab = vocab
        self._ending = sorted(ending)
        self._texts = texts
        self._tokenizer: LLTokenizer | None = None
        self._known: OrderedDict[str, LLMatcher | str] = OrderedDict()
        self._trial = Trial()

    def follow(self, constraint: str) -> Follow:
        """A constraint at its beginning; raises `Rejected` (`bad_format`) for one that cannot be followed."""
        known = self._known.get(constraint)
        if known is None:
            known = self._known[constraint] = self._compiled(constraint)
            if len(self._known) > GRAMMARS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(constraint)
        if isinstance(known, str):
            raise refused(explained(known, constraint))
        return Follow(known.deep_copy())

    def _compiled(self, constraint: str) -> LLMatcher | str:
        """The grammar, or what is wrong with it."""
        from llguidance import LLMatcher

        if self._tokenizer is None:
            self._trial.start()
            self._tokenizer = self._made()
        error = self._trial.error(constraint)
        if error:
            return error
        matcher = LLMatcher(self._tokenizer, constraint, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()
        return matcher.get_error() or matcher

    def _made(self) -> LLTokenizer:
        """llguidance's own maker takes tokens such as `<tool_call>` for control tokens, which text cannot contain."""
        from llguidance import LLTokenizer

        tokenise = ctypes.cast(c._lib.llama_tokenize, ctypes.c_void_p).value
        make: Any = LLTokenizer.from_llamacpp  # type: ignore[attr-defined]
        made: LLTokenizer = make(
            tokens=self._texts(), vocab_ptr=self._vocab, tokenize_fptr=tokenise, eos_token=self._ending, slices=None
        )
        return made

    def close(self) -> None:
        self._known.clear()
        self._tokenizer = None
        self._trial.close()


class Follow:
    """How far one answer is in its constraint. Methods raise `Rejected` when it cannot be followed any further."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allows(self, token: int) -> bool:
        return self._matcher.validate_tokens([token]) == 1

    def masked(self, logits: Any, banned: frozenset[int]) -> Any:
        """A copy of `logits` with forbidden tokens at minus infinity; what is banned stays if there is nothing else."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(mask, count=len(logits), bitorder="little").view(bool)
        if banned:
            rest = allowed.copy()
            rest[list(banned)] = False
            allowed = rest if rest.any() else allowed
        return np.where(allowed, logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def forced(self) -> Sequence[int]:
        """Tokens that must come next; not accepted yet."""
        return self._matcher.compute_ff_tokens()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise refused(self._matcher.get_error().partition("\n")[0])
