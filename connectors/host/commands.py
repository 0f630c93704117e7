"""Commands at the beginning of a message: words such as `/code` that choose a model or a kind. Pure.

An unknown `/word` is no command: paths and fractions begin like that too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from schemas.config import ModelConfig, routes_of
from schemas.errors import Rejected
from schemas.message import Kind

KINDS: dict[str, Kind] = {"/chat": "chat", "/code": "code", "/image": "image", "/long": "long"}
MODEL = "/model"
_FIRST = re.compile(r"\s*[/\uff0f]([^\s/\uff0f]{1,48})(?:\s+|\Z)")  # a Chinese keyboard may write the wide slash


class Command(Struct, frozen=True, kw_only=True):
    """What a message's first word chose, and the message without it. `word` is empty where there was none."""

    text: str
    word: str = ""
    model: str = ""
    kind: Kind = "auto"


def command_of(text: str, models: Sequence[ModelConfig]) -> Command:
    """Take the command off a message. The operator's own words come before the built-in ones.

    Raises `Rejected` for `/model` without a name; whether the name is one is for the router to say.
    """
    match = _FIRST.match(text)
    if match is None:
        return Command(text=text)
    word, rest = "/" + match[1].lower(), text[match.end() :]
    for model in models:
        if word in (own.lower() for own in routes_of(model).commands):
            return Command(text=rest, word=word, model=model.name)
    if word in KINDS:
        return Command(text=rest, word=word, kind=KINDS[word])
    if word != MODEL:
        return Command(text=text)
    name, *more = rest.split(maxsplit=1)[:2] or [""]
    if not name:
        raise Rejected(f"/model NAME: name one of {', '.join(model.name for model in models)}", code="empty")
    return Command(text=more[0] if more else "", word=word, model=name)
