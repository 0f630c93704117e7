"""Files on their way into a job and out of it: attachments by their hash, pictures that were made.

A backend that takes no files is told what text files hold in the words of the message that they came with.

What always holds: a picture is in the blob store before anybody is told its hash; what a message was sent with and is
not there any more is said, not left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from bus.contract import Bus
from schemas.errors import Rejected
from schemas.message import Attachment, Inbound
from schemas.picture import EXTENSION
from schemas.session import Entry
from workers import Picture


async def fetched(bus: Bus, attachments: Sequence[Attachment]) -> tuple[bytes, ...]:
    """What they hold, one for one; raises `Rejected` for one that has aged out, and what the blob store raises."""
    files = []
    for i, attachment in enumerate(attachments):
        data = await bus.blobs.get(attachment.sha256)
        if data is None:
            raise Rejected(
                f"attachments[{i}]: {attachment.name or attachment.sha256[:12]} is not kept any more; send it again",
                code="gone",
            )
        files.append(data)
    return tuple(files)


async def texts(bus: Bus, inbound: Inbound, history: Sequence[Entry]) -> dict[str, str]:
    """What the text files of a conversation hold, by hash; a file that is none is left out.

    Raises `Rejected` for one of the newest message that has aged out, or where they are too long together.
    """
    asked = [file for file in inbound.attachments if _may_be_text(file)]
    read = zip(asked, await fetched(bus, asked), strict=True)
    found = {file.sha256: text for file, data in read if (text := _text(data)) is not None}
    chars, most = sum(map(len, found.values())), bus.config.limits.text_chars_max
    if chars > most:
        raise Rejected(
            f"attachments: they have {chars} characters; at most {most} are taken (limits.text_chars_max)",
            code="too_large",
        )
    for file in (file for entry in history for file in entry.attachments if _may_be_text(file)):
        if file.sha256 not in found:
            data = await bus.blobs.get(file.sha256)
            if data is not None and (text := _text(data)) is not None:
                found[file.sha256] = text
    return found


def _may_be_text(file: Attachment) -> bool:
    return not file.media_type.startswith(("image/", "audio/", "video/"))


def _text(data: bytes) -> str | None:
    """As UTF-8; None for anything else."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


async def stored(bus: Bus, pictures: Sequence[Picture], *, model: str, version: str) -> tuple[Attachment, ...]:
    """Put the pictures of an answer into the blob store, where they stay for `limits.blob_age_s`."""
    return tuple(
        [
            Attachment(
                sha256=await bus.blobs.put(picture.data),
                media_type=picture.media_type,
                size_bytes=len(picture.data),
                name=f"{model}-{picture.drawn.seed}.{EXTENSION.get(picture.media_type, 'bin')}",
                drawn=replace(picture.drawn, model=model, version=version),
            )
            for picture in pictures
        ]
    )
