"""What a message asks for: talk, code or a picture. Pure, deterministic, English and Chinese, below 0.2 ms.

It leans to `chat`: a wrong `code` or `image` sends a person to the wrong model, a missed one still gets an answer.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

from connectors.host import vocabulary as words

Asked = Literal["chat", "code", "image"]

HEAD_CHARS, TAIL_CHARS = 1_000, 300
"""What is asked for stands at the beginning or the end of a long message; between them stands what it is about."""
ENOUGH = 3
OBJECT_WORDS = 6
"""So far behind its verb an object may stand."""
FOLLOW_WORDS_MAX = 14
FOLLOW_CHARS_MAX = 30

_WORD = re.compile(r"[a-z0-9]+(?:[.'+#/-]+[a-z0-9]+)*(?:\+\+|#)?")
_HAN = re.compile(r"[\u4e00-\u9fff]")


def classify(text: str) -> Asked:
    """The kind of request that `text` most likely is."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    lower = text.lower()
    tokens = _WORD.findall(lower)
    chinese = not text.isascii() and _HAN.search(text) is not None
    code = _code(text, lower, tokens) + (_chinese_code(text, tokens) if chinese else 0)
    if code >= ENOUGH:
        return "code"
    if (chinese and _chinese_image(text)) or _image(lower, tokens):
        return "image"
    return "chat"


def follows(text: str) -> bool:
    """Whether a message is short and speaks of what was said before: it belongs to the model that said it."""
    if not text.isascii() and _HAN.search(text):
        return len(text) <= FOLLOW_CHARS_MAX and words.ZH_FOLLOWS.search(text) is not None
    tokens = _WORD.findall(text.lower()[: 12 * FOLLOW_WORDS_MAX])
    return len(tokens) <= FOLLOW_WORDS_MAX and not words.FOLLOWS.isdisjoint(tokens)


def _code(text: str, lower: str, tokens: list[str]) -> int:
    """How much speaks for code: what looks like code, names of tools, and a programmer's verbs with their objects."""
    score = 0
    if words.SYNTAX.search(lower) or words.EXCEPTIONS.search(text):
        score += ENOUGH
    known = set(tokens)
    score += sum(words.TECH[word] for word in known & words.TECH.keys())
    score += ENOUGH * len(words.PAIRS.intersection(pairwise(tokens)))
    score += sum(2 for i, word in enumerate(tokens) if word in words.AMBIGUOUS and _named(tokens, i))
    made = _made(tokens)
    if made < 0:
        return score + made - ENOUGH if score < 2 * ENOUGH else score
    score += made
    if score and not known.isdisjoint(words.ASKS | words.MAKERS):
        score += 1
    return score - 3 * len(known & words.PEOPLE)


def _named(tokens: list[str], i: int) -> bool:
    """Whether the everyday word at `i` is the name of a programming language here."""
    before = tokens[i - 1] if i else ""
    after = tokens[i + 1] if i + 1 < len(tokens) else ""
    return (before in ("in", "to", "my", "plain") and after in ("", "with", "using", "please", "code")) or (
        after in words.PARTS
    )


def _made(tokens: list[str]) -> int:
    """2 for a maker's verb with a programmer's object (1 for a wish), -1 for a writer's, 0 for none."""
    for i, word in enumerate(tokens):
        if word not in words.MAKERS and word not in words.WANTERS:
            continue
        made = 0
        for later in tokens[i + 1 : i + 1 + OBJECT_WORDS]:
            if later in words.ENDS:
                break
            if later in words.WORKS:
                made = -1
            elif later in words.PARTS:
                made = 2 if word in words.MAKERS else 1
        if made:
            return made
    return 0


def _image(lower: str, tokens: list[str]) -> bool:
    if not tokens:
        return False
    if "?" not in lower and (words.CAPTION.match(lower) or len(words.STYLES.findall(lower)) >= 2):
        return True
    for i, word in enumerate(tokens[:16]):
        if word in words.DRAWS and _drawn(tokens[i + 1 : i + 1 + OBJECT_WORDS]):
            return True
        wish = word in words.WISHES
        if (wish or word in words.RENDERS) and _pictured(tokens[i + 1 :], wish=wish):
            return True
        if word not in words.POLITE:
            return False
    return False


def _drawn(after: list[str]) -> bool:
    """Whether what follows a verb such as draw can be drawn."""
    if not after or after[0] == "you" or after[0] in words.PARTICLES:
        return False
    return words.DRAWN_NOT.isdisjoint(after[:4])


def _pictured(after: list[str], *, wish: bool) -> bool:
    """Whether a picture is the object. A mere wish (`I want …`) must say of what."""
    for i, word in enumerate(after[: OBJECT_WORDS + 2]):
        if word in words.BETWEEN_NOT:
            return False
        if word in words.PICTURES:
            if not words.PAPERS.isdisjoint(after):
                return False
            return not wish or any(w in ("of", "showing", "with", "that", "where", "for") for w in after[i + 1 : i + 3])
    return False


def _chinese_code(text: str, tokens: list[str]) -> int:
    score = 0
    if any(token in words.TECH or token in words.AMBIGUOUS for token in tokens):
        score += 1
    if words.ZH_CODE.search(text):
        score += ENOUGH
    if words.ZH_MADE.search(text):
        score += ENOUGH
    return score - (2 * ENOUGH if words.ZH_CODE_NOT.search(text) else 0)


def _chinese_image(text: str) -> bool:
    if words.ZH_IMAGE_NOT.search(text):
        return False
    return any(p.search(text) for p in (words.ZH_DRAW, words.ZH_MADE_IMAGE, words.ZH_CAPTION))
