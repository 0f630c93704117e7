"""A form with files (`multipart/form-data`), read within limits of size, time and number of parts."""

from __future__ import annotations

import asyncio

from aiohttp import BodyPartReader, web
from msgspec import Struct

from connectors.openai.decode import bad
from schemas.config import HttpConfig
from schemas.errors import Rejected

PARTS_MAX = 64
FIELD_BYTES_MAX = 100_000
SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


class Upload(Struct, frozen=True):
    """One file of a form. Its name is the sender's word and nothing more."""

    field: str
    name: str
    data: bytes


class Form(Struct, frozen=True):
    fields: dict[str, str]
    files: tuple[Upload, ...]


async def read_form(request: web.Request, config: HttpConfig) -> Form:
    """Raises `Rejected` for what is no such form, or is too large, late or broken."""
    if request.content_type != "multipart/form-data":
        raise Rejected("send a form with Content-Type: multipart/form-data", code="media_type")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Rejected("send the form without Content-Encoding", code="media_type")
    if request.content_length is not None and request.content_length > config.body_bytes_max:
        raise _too_large(config)
    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await _read(request, config)
    except TimeoutError:
        raise Rejected(f"the form did not arrive within {config.body_timeout_s:g} s", code="timeout") from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(config) from None
    except (ValueError, AssertionError, RuntimeError, web.RequestPayloadError):
        raise Rejected("the form ended early or is malformed", code="malformed") from None


async def _read(request: web.Request, config: HttpConfig) -> Form:
    fields: dict[str, str] = {}
    files: list[Upload] = []
    left, parts = config.body_bytes_max, 0
    async for part in await request.multipart():
        parts += 1
        if not isinstance(part, BodyPartReader) or parts > PARTS_MAX:
            raise Rejected(f"the form: expected at most {PARTS_MAX} plain parts", code="too_large")
        name = part.name or ""
        data = bytearray()
        while chunk := await part.read_chunk():
            data += chunk
            if len(data) > left:
                raise _too_large(config)
        left -= len(data)
        if part.filename is not None:
            files.append(Upload(name, part.filename[:200], bytes(data)))
        elif len(data) > FIELD_BYTES_MAX:
            raise bad(name, f"{len(data)} bytes; a field of a form has at most {FIELD_BYTES_MAX}", code="too_large")
        else:
            fields[name] = _text(name, bytes(data))
    return Form(fields, tuple(files))


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise bad(name, "not valid UTF-8") from None


def picture_of(form: Form) -> tuple[Upload, str]:
    """The one picture to start from, and its media type by its first bytes; raises `BadParameter`."""
    if any(file.field == "mask" for file in form.files):
        raise bad("mask", "painting in a part of a picture is not supported here; leave it out", code="unsupported")
    found = [file for file in form.files if file.field in ("image", "image[]")]
    if len(found) != 1:
        raise bad("image", f"expected one file, got {len(found)}")
    data = found[0].data
    for signature, media_type in SIGNATURES:
        if data.startswith(signature):
            return found[0], media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return found[0], "image/webp"
    raise bad("image", "expected a PNG, JPEG or WebP file", code="media_type")


def _too_large(config: HttpConfig) -> Rejected:
    return Rejected(f"the body is larger than {config.body_bytes_max} bytes", code="too_large")
