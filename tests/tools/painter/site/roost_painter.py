"""A backend of type `painter`: each picture has one colour, which derives from its seed. For tests alone."""

from __future__ import annotations

import hashlib
import random
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from msgspec import Struct

from schemas.errors import Rejected
from schemas.picture import Drawn, Progress, size_of
from workers import BackendSettings, BatchBackend, Finished, Job, Picture, Piece

Colour = tuple[int, int, int]
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


class _Canvas(Struct):
    job: Job
    steps: int
    done: int = 0
    cancelled: bool = False


class PainterBackend(BatchBackend):
    """All its jobs go one step on in each `step`, which takes `delay_step_ms`; a preview is told after each."""

    class Settings(BackendSettings, frozen=True):
        """`resolution` and `steps`: of a request that names none. `ballast_bytes`: by so many a picture is larger.
        `waits_for`: loading takes until this file is there."""

        resolution: str = "64x64"
        steps: int = 4
        delay_step_ms: float = 0.0
        ballast_bytes: int = 0
        waits_for: str = ""

    kinds = frozenset({"image"})
    abilities = frozenset({"n", "files"})
    slots = 8
    version = "painter-1"
    background = True

    def __init__(self, settings: BackendSettings, slots: int | None = None) -> None:
        super().__init__(settings, slots)
        self._canvases: dict[str, _Canvas] = {}

    def load(self, path: Path | None) -> None:
        settings = cast(PainterBackend.Settings, self.settings)
        while settings.waits_for and not Path(settings.waits_for).exists():
            time.sleep(0.01)

    def add(self, job: Job) -> None:
        if job.kind != "image":
            raise Rejected("kind: the painter only makes pictures", code="unsupported")
        for i, data in enumerate(job.files):
            if not data.startswith(SIGNATURES):
                raise Rejected(f"attachments[{i}]: not a picture; send a PNG or a JPEG", code="bad_picture")
        settings = cast(PainterBackend.Settings, self.settings)
        self._canvases[job.request] = _Canvas(job, job.drawing.steps or settings.steps)

    def step(self) -> Sequence[Piece]:
        settings = cast(PainterBackend.Settings, self.settings)
        if settings.delay_step_ms and not all(canvas.cancelled for canvas in self._canvases.values()):
            time.sleep(settings.delay_step_ms / 1000)
        pieces = []
        for request, canvas in list(self._canvases.items()):
            stop = canvas.cancelled or (canvas.job.cancelled is not None and canvas.job.cancelled.is_set())
            if stop:
                finished, progress = Finished(finish="cancelled"), None
            else:
                canvas.done += 1
                share = canvas.done / canvas.steps
                preview = jpeg(_faded(self._colour(canvas.job, 0), share))
                progress = Progress(step=canvas.done, steps=canvas.steps, preview=preview)
                finished = Finished(pictures=self._pictures(canvas)) if canvas.done >= canvas.steps else None
            if finished is not None:
                del self._canvases[request]
            pieces.append(Piece(request, finished=finished, progress=progress))
        return pieces

    def cancel(self, request: str) -> None:
        if request in self._canvases:
            self._canvases[request].cancelled = True

    def _pictures(self, canvas: _Canvas) -> tuple[Picture, ...]:
        job, drawing = canvas.job, canvas.job.drawing
        settings = cast(PainterBackend.Settings, self.settings)
        size = size_of(drawing.size or settings.resolution)
        assert size is not None
        return tuple(
            Picture(
                data=png(*size, self._colour(job, i), job.text, settings.ballast_bytes),
                media_type="image/png",
                drawn=Drawn(
                    prompt=job.text,
                    seed=(job.sampling.seed or 0) + i,
                    width=size[0],
                    height=size[1],
                    steps=canvas.steps,
                    guidance=drawing.guidance or 0.0,
                    negative=drawing.negative,
                    scheduler=drawing.scheduler or "brush",
                    strength=(0.75 if drawing.strength is None else drawing.strength) if job.files else None,
                ),
            )
            for i in range(job.sampling.n)
        )

    def _colour(self, job: Job, i: int) -> Colour:
        """Of the seed, and of the picture to start from."""
        start = hashlib.sha256(job.files[0]).digest() if job.files else b""
        red, green, blue = hashlib.sha256(b"%d" % ((job.sampling.seed or 0) + i) + start).digest()[:3]
        return red, green, blue


def _faded(colour: Colour, share: float) -> Colour:
    """From grey to the colour."""
    red, green, blue = (round(128 + (value - 128) * share) for value in colour)
    return red, green, blue


def png(width: int, height: int, colour: Colour, text: str = "", ballast: int = 0) -> bytes:
    """A picture of one colour that holds its prompt."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * width) * height
    note = b"prompt\0\0\0\0\0" + text.encode("utf-8", "replace")
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            chunk(b"iTXt", note),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"roSt", random.Random(0).randbytes(ballast)) if ballast else b"",
            chunk(b"IEND", b""),
        )
    )


def jpeg(colour: Colour) -> bytes:
    """8 by 8 pixels of one colour: a baseline JPEG with nothing but DC coefficients (ITU T.81)."""
    red, green, blue = colour
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    values = (round(y - 128), round(0.564 * (blue - y)), round(0.713 * (red - y)))
    bits = ""
    for value in values:
        size = abs(value).bit_length()
        bits += f"{size:04b}"  # of the 12 DC codes, all of 4 bits, number `size`
        if size:
            bits += f"{value if value > 0 else value + (1 << size) - 1:0{size}b}"
        bits += "0"  # the one AC code: end of block
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")

    def segment(mark: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, mark, len(data) + 2) + data

    dc = b"\0" + bytes((0, 0, 0, 12)) + bytes(12) + bytes(range(12))
    ac = b"\x10" + bytes((1,)) + bytes(15) + b"\0"
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
            segment(0xDB, b"\0" + b"\x08" * 64),
            segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 3) + b"\1\x11\0\2\x11\0\3\x11\0"),
            segment(0xC4, dc),
            segment(0xC4, ac),
            segment(0xDA, b"\3\1\0\2\0\3\0\0\x3f\0"),
            scan,
            b"\xff\xd9",
        )
    )
