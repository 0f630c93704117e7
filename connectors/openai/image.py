"""`POST /v1/images/generations` and `/v1/images/edits`: from their bodies to an `Inbound`. Pure.

What always holds: a parameter that would change the picture and cannot be met is refused by its name; one that only
hints at how good it should be is taken, and named in the answer's notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from connectors.openai.decode import bad, decode, explained, refuse, short
from connectors.openai.request import Seed, sender_of
from schemas.message import Attachment, Inbound, Sampling
from schemas.picture import Drawing

PARTIAL_IMAGES_MAX = 3


class ImageRequest(Struct, frozen=True, kw_only=True):
    """Body of `POST /v1/images/generations`. Extensions: `seed`, `steps`, `guidance`, `negative_prompt`, `scheduler`,
    `adapter`.
    """

    prompt: str
    model: str | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    size: str | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: str | None = None
    output_compression: int | None = None
    background: str | None = None
    quality: str | None = None
    style: str | None = None
    moderation: str | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=PARTIAL_IMAGES_MAX)] | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    seed: Seed | None = None
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    scheduler: str | None = None
    adapter: str | None = None


class EditRequest(ImageRequest, frozen=True, kw_only=True):
    """Fields of `POST /v1/images/edits`; `strength` is an extension. The picture to start from comes as a file."""

    input_fidelity: str | None = None
    strength: float | None = None


NO_EFFECT = ("quality", "style", "moderation", "output_compression", "input_fidelity")
_IMAGE = msgspec.json.Decoder(ImageRequest)
R = TypeVar("R", bound=ImageRequest)


def image(body: bytes) -> ImageRequest:
    """Decode and check the body of `POST /v1/images/generations`; raises `BadParameter`."""
    return _checked(decode(_IMAGE, body))


def edit(fields: Mapping[str, str]) -> EditRequest:
    """The same of a form's fields, which are all texts."""
    try:
        return _checked(msgspec.convert(dict(fields), EditRequest, strict=False))
    except msgspec.ValidationError as error:
        raise explained(error) from None


def _checked(request: R) -> R:
    if not request.prompt.strip():
        raise bad("prompt", "say what the picture shall show", code="empty")
    if request.output_format not in (None, "png"):
        raise bad("output_format", f"only png is made here, not {short(request.output_format)!r}", code="unsupported")
    refuse((request.background == "transparent", "background", "a transparent background"))
    if request.background not in (None, "auto", "opaque"):
        raise bad("background", f"expected auto or opaque, got {short(request.background)!r}")
    if request.stream and request.response_format == "url":
        raise bad("response_format", "a stream holds the pictures themselves; leave it out", code="unsupported")
    if request.partial_images and not request.stream:
        raise bad("partial_images", "needs stream: true")
    return request


def image_inbound(request: ImageRequest, *, id: str, key: str, start: Attachment | None = None) -> Inbound:
    """The message for the bus; how the pictures are to be told travels in `reply`. `start`: a picture to begin with."""
    return Inbound(
        id=id,
        conversation="",
        sender=sender_of(key, request.user),
        text=request.prompt,
        history=(),  # a request of its own: no session is read or written
        kind="image",
        model=request.model or "",
        attachments=() if start is None else (start,),
        sampling=Sampling(
            seed=None if request.seed is None else request.seed % 2**32,
            n=1 if request.n is None else request.n,
            adapter=request.adapter or "",
        ),
        drawing=Drawing(
            size=request.size if request.size and request.size != "auto" else "",
            steps=request.steps,
            guidance=request.guidance,
            negative=request.negative_prompt or "",
            scheduler=request.scheduler or "",
            strength=request.strength if isinstance(request, EditRequest) else None,
        ),
        stream=bool(request.stream),
        reply={
            "kind": "image" if start is None else "image_edit",
            "format": request.response_format or "b64_json",
            "partial": str(request.partial_images or 0),
        },
    )


def ignored(request: ImageRequest) -> tuple[str, ...]:
    """Sentences about parameters that were accepted and have no effect."""
    given = {name: getattr(request, name, None) for name in NO_EFFECT}
    return tuple(f"{name} has no effect here" for name, value in given.items() if value not in (None, "auto"))
