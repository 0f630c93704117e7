"""`POST /v1/embeddings`: from its body to an `Inbound`, and from vectors to its answer. Pure.

What always holds: every vector has length 1, also one that was cut to `dimensions`.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from connectors.openai.decode import bad, decode
from connectors.openai.request import sender_of
from schemas.errors import Rejected, RoostError
from schemas.message import Inbound, Outbound, Sampling


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """Body of `POST /v1/embeddings`; `adapter` is an extension."""

    input: str | list[Any]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    adapter: str | None = None


_EMBEDDING = msgspec.json.Decoder(EmbeddingRequest)


def embedding(body: bytes) -> EmbeddingRequest:
    """Decode the body; raises `BadParameter`."""
    return decode(_EMBEDDING, body)


def embedding_inbound(request: EmbeddingRequest, *, id: str, key: str) -> Inbound:
    """The message for the bus; how the vectors are to be written travels in `reply`."""
    reply = {"kind": "embedding", "encoding": request.encoding_format or "float"}
    if request.dimensions is not None:
        reply["dimensions"] = str(request.dimensions)
    return Inbound(
        id=id,
        conversation="",
        sender=sender_of(key, request.user),
        history=(),  # a request of its own: no session is read or written
        kind="embedding",
        model=request.model or "",
        inputs=_inputs(request.input),
        sampling=Sampling(adapter=request.adapter or ""),
        reply=reply,
    )


def _inputs(given: str | list[Any]) -> tuple[str, ...]:
    if isinstance(given, str):
        return (given,)
    if not given:
        raise bad("input", "the list is empty; send at least one text", code="empty")
    for i, item in enumerate(given):
        if not isinstance(item, str):
            what = "tokens are not supported; send texts" if isinstance(item, (int, list)) else "expected a text"
            raise bad("input" if isinstance(item, int) else f"input[{i}]", what, code="unsupported")
    return tuple(given)


def vectors(outbound: Outbound, reply: Mapping[str, str]) -> tuple[list[list[float] | str], tuple[str, ...]]:
    """The vectors as they were asked for, and what there is to say about them."""
    wanted = int(reply.get("dimensions", "0"))
    notes: tuple[str, ...] = ()
    out: list[list[float] | str] = []
    for data in outbound.embeddings:
        size = len(data) // 4
        if wanted > size:
            raise bad("dimensions", f"the vectors of {outbound.model!r} have {size}; ask for as many or fewer")
        if 0 < wanted < size:
            notes = (f"vectors were cut from {size} to {wanted} dimensions; only some models are made for that",)
            data = _cut(data, wanted)
        numbers = list(struct.unpack(f"<{len(data) // 4}f", data))
        out.append(base64.b64encode(data).decode() if reply.get("encoding") == "base64" else numbers)
    return out, notes


def _cut(data: bytes, dimensions: int) -> bytes:
    numbers: Sequence[float] = struct.unpack(f"<{dimensions}f", data[: 4 * dimensions])
    length = math.sqrt(math.fsum(x * x for x in numbers)) or 1.0
    return struct.pack(f"<{dimensions}f", *(x / length for x in numbers))


def embeddings_body(outbound: Outbound, reply: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The answer, and notes for its `roost` section; raises `BadParameter` where there are fewer dimensions."""
    if outbound.reply.get("kind") != "embedding":
        raise Rejected("this Idempotency-Key belongs to a request of another kind; choose a new one", code="conflict")
    if not outbound.embeddings:
        raise RoostError("the model gave no vectors; the log has the details")
    written, notes = vectors(outbound, reply)
    tokens = outbound.usage.prompt_tokens
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(written)],
        "model": outbound.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return body, notes
