"""Files on their way into a job and out of it: attachments by their hash, pictures that were made.

What always holds: a picture is in the blob store before anybody is told its hash; what a message was sent with and is
not there any more is said, not left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from bus.contract import Bus
from schemas.errors import Rejected
from schemas.message import Attachment
from schemas.picture import EXTENSION
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
