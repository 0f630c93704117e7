"""How much a text repeats itself: models that are broken say the same over and over.

Pure, so that a worker's figures for a version that serves nobody yet and those of live answers are the same measure.
"""

from __future__ import annotations

import re

RUN = 8
"""Tokens in a row that must come again. Phrases of normal text are shorter."""
TOKENS_LEAST = 3 * RUN
"""Shorter texts say too little to repeat it."""
TOKENS_MOST = 4_096
"""Looked at, at the end of the text: a model that is caught in a loop stays in it."""
CHARS_PER_TOKEN_MOST = 12
_token = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]"  # a sign of a language that has no spaces
    rf"|[^\W_]{{1,{CHARS_PER_TOKEN_MOST}}}"  # a word; `GGGGG…` is many
    r"|[^\s]"
)

_number = re.compile(r"^\s*\d+[.)、]\s*", re.MULTILINE)
"""Of a list: a loop that counts is a loop."""


def repeats(text: str) -> float:
    """Share of the text's runs of tokens that stood in it before, 0 to 1; 0 for a short text.

    Repeated n-grams as of degenerate text in Holtzman and others, "The Curious Case of Neural Text Degeneration"
    (2020), and Welleck and others, "Neural Text Generation with Unlikelihood Training" (2020: seq-rep-n).
    """
    end = text[-TOKENS_MOST * CHARS_PER_TOKEN_MOST :].lower()
    tokens = _token.findall(_number.sub("", end))[-TOKENS_MOST:]
    if len(tokens) < TOKENS_LEAST:
        return 0.0
    runs = [tuple(tokens[i : i + RUN]) for i in range(len(tokens) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs)
