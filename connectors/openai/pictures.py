"""Pictures of an answer in the words of OpenAI's API: as objects, and as links in a chat. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from schemas.errors import Rejected, RoostError
from schemas.message import Attachment, Choice, Outbound, Usage

ALT_CHARS_MAX = 100
EVENT = {"image": "image_generation", "image_edit": "image_edit"}
"""How the events of a stream begin, by the endpoint's name in a request's `reply`."""


class Shown(Struct, frozen=True):
    """One picture of an answer, with where it can be opened or with its bytes, as was asked for."""

    file: Attachment
    url: str = ""
    data: bytes = b""

    @property
    def size(self) -> str:
        drawn = self.file.drawn
        return f"{drawn.width}x{drawn.height}" if drawn is not None else "auto"


def images_body(
    outbound: Outbound, reply: Mapping[str, str], shown: Sequence[Shown], created: int, roost: dict[str, Any]
) -> dict[str, Any]:
    """The answer of both endpoints; raises as `check_pictures` does."""
    check_pictures(outbound, shown)
    return {
        "created": created,
        "background": "opaque",
        "output_format": "png",
        "size": shown[0].size,
        "data": [{"url": one.url} if reply.get("format") == "url" else {"b64_json": one.data} for one in shown],
        "usage": images_usage(outbound.usage),
        "model": outbound.model,
        "roost": roost,
    }


def check_pictures(outbound: Outbound, shown: Sequence[Shown]) -> None:
    """Raises where an answer cannot be told by an endpoint of pictures."""
    if outbound.reply.get("kind") not in EVENT:
        raise Rejected("this Idempotency-Key belongs to a request of another kind; choose a new one", code="conflict")
    if not shown:
        raise RoostError("the model gave no picture; the log has the details")


def images_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"text_tokens": usage.prompt_tokens, "image_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def linked(outbound: Outbound, shown: Sequence[Shown]) -> Outbound:
    """For a chat: each picture as a Markdown image behind the answer's text, further ones as further answers."""
    if not shown:
        return outbound
    links = [f"![{_alt(one)}]({one.url})" for one in shown]
    text = "\n\n".join(filter(None, (outbound.text, links[0])))
    more = tuple(Choice(text=link, finish=outbound.finish) for link in links[1:])
    return replace(outbound, text=text, more=(*outbound.more, *more))


def _alt(one: Shown) -> str:
    """The prompt as a picture's caption: without what Markdown would take for more than words."""
    words = one.file.drawn.prompt if one.file.drawn is not None else one.file.name
    return re.sub(r"[\[\]()<>\\`*_!|#\s]+", " ", words).strip()[:ALT_CHARS_MAX]
