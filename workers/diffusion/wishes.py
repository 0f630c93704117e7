"""What a request asks for, checked against what the model can do. Pure but for a start picture, which is decoded here.

What always holds: a `Wish` can be computed as it stands; what cannot be is refused by the name of its field, and
nothing is left out in silence.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from schemas.errors import Rejected
from schemas.picture import Drawn, size_of
from workers import Job
from workers.diffusion import start_picture
from workers.diffusion.schedulers import Schedulers
from workers.diffusion.settings import DiffusionSettings
from workers.diffusion.words import Words

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPT_CHARS_MAX = 20_000
"""No model reads more than some hundred words; this much may be cut and said."""
GUIDANCE_MAX = 50.0
STRENGTH = 0.75
"""How much of a start picture changes, where the request does not say."""
PICTURES_MAX = 64
SEEDS = 2**32


class Key(Struct, frozen=True):
    """What pictures that are computed together have in common."""

    width: int
    height: int
    steps: int
    guidance: float
    negative: bool
    scheduler: str
    adapter: str
    strength: float | None
    """None without a picture to start from."""

    @property
    def pixels(self) -> int:
        return self.width * self.height


class Wish(Struct, frozen=True, kw_only=True):
    """One request, ready to be computed."""

    key: Key
    prompt: str
    negative: str
    seed: int
    pictures: int
    tokens: int
    start: Any = None
    """The picture to start from, of the size of the key."""
    notes: tuple[str, ...] = ()

    def drawn(self, number: int) -> Drawn:
        """How its picture of this number is made."""
        key = self.key
        return Drawn(
            prompt=self.prompt,
            seed=self.seed_of(number),
            width=key.width,
            height=key.height,
            steps=key.steps,
            guidance=key.guidance,
            negative=self.negative,
            scheduler=key.scheduler,
            strength=key.strength,
            adapter=key.adapter,
        )

    def seed_of(self, number: int) -> int:
        return (self.seed + number) % SEEDS


class Abilities(Struct, frozen=True, kw_only=True):
    """What one model can do."""

    factor: int
    """Sizes are multiples of it."""
    steps: int
    """The pipeline's own default …"""
    guidance: float
    negative: bool
    starts: bool
    """It can start from a picture."""
    schedule: int | None = None
    """Steps that the model was distilled from (LCM): from a picture, too, it does as many as are asked for, out of the
    share of these that `strength` is. None: it does that share of those that are asked for."""
    adapters: Collection[str] = ()


class Wishes:
    """Makes the wishes of one model."""

    def __init__(self, settings: DiffusionSettings, can: Abilities, schedulers: Schedulers, words: Words) -> None:
        self._settings = settings
        self._can = can
        self._schedulers = schedulers
        self._words = words

    def of(self, job: Job) -> Wish:
        """Raises `Rejected`."""
        if job.kind != "image":
            raise Rejected("kind: this model makes pictures and cannot answer; ask another", code="unsupported")
        drawing, sampling = job.drawing, job.sampling
        prompt = _text("text", job.text)
        if not prompt.strip():
            raise Rejected("text: empty; say what the picture shows", code="empty")
        if not 1 <= sampling.n <= PICTURES_MAX:
            raise Rejected(f"n: expected 1 to {PICTURES_MAX}, got {sampling.n}", code="bad_value")
        width, height = self._size(drawing.size)
        negative, notes = self._negative(drawing.negative)
        steps = self._steps(drawing.steps)
        strength = self._strength(drawing.strength, steps, started=bool(job.files))
        key = Key(
            width=width,
            height=height,
            steps=steps,
            guidance=self._guidance(drawing.guidance),
            negative=bool(negative),
            scheduler=self._schedulers.named(drawing.scheduler),
            adapter=self._adapter(sampling.adapter),
            strength=strength,
        )
        self._schedulers.check_steps(key.scheduler, steps)
        read = self._words.read(prompt)
        return Wish(
            key=key,
            prompt=prompt,
            negative=negative,
            seed=(sampling.seed or 0) % SEEDS,
            pictures=sampling.n,
            tokens=read.tokens,
            start=self._start(job.files, (width, height)),
            notes=tuple(note for note in (read.note, *notes) if note),
        )

    def _size(self, wanted: str) -> tuple[int, int]:
        size = size_of(wanted) if wanted else self._settings.size
        if size is None:
            raise Rejected(
                f"size: expected WIDTHxHEIGHT as in {self._settings.resolution}, got {wanted[:40]!r}", code="bad_value"
            )
        width, height = size
        factor, side, most = self._can.factor, self._settings.side_max, self._settings.largest
        if width % factor or height % factor:
            raise Rejected(
                f"size: this model draws multiples of {factor} pixels; got {width}x{height}", code="bad_value"
            )
        if max(width, height) > side or width * height > most:
            raise Rejected(
                f"size: {width}x{height} is too large; at most {side} a side and {most} pixels in all "
                f"(as in {self._settings.resolution}, or up to {most / math.prod(self._settings.size):g} times that)",
                code="too_large",
            )
        return width, height

    def _steps(self, wanted: int | None) -> int:
        steps = self._settings.steps or self._can.steps if wanted is None else wanted
        if not 1 <= steps <= self._settings.steps_max:
            raise Rejected(f"steps: expected 1 to {self._settings.steps_max}, got {steps}", code="bad_value")
        return steps

    def _guidance(self, wanted: float | None) -> float:
        given = self._settings.guidance if wanted is None else wanted
        guidance = self._can.guidance if given is None else given
        if not 0 <= guidance <= GUIDANCE_MAX:  # false for NaN, too
            raise Rejected(f"guidance: expected 0 to {GUIDANCE_MAX:g}, got {guidance:g}", code="bad_value")
        return float(guidance)

    def _negative(self, wanted: str) -> tuple[str, tuple[str, ...]]:
        negative = _text("negative", wanted or self._settings.negative)
        if not self._can.negative:
            if wanted:
                raise Rejected("negative: this model knows no negative prompt; leave it out", code="unsupported")
            return "", ()
        return negative, (self._words.read(negative, "negative prompt").note,) if negative else ()

    def _strength(self, wanted: float | None, steps: int, *, started: bool) -> float | None:
        if not started:
            if wanted is not None:
                raise Rejected("strength: there is no picture to start from; attach one", code="bad_value")
            return None
        strength = STRENGTH if wanted is None else wanted
        if not 0 <= strength <= 1:
            raise Rejected(f"strength: expected 0 to 1, got {strength:g}", code="bad_value")
        schedule = self._can.schedule
        if schedule is None and int(steps * strength) < 1:
            raise Rejected(
                f"strength: {strength:g} of {steps} steps is less than one; raise it, or the steps", code="bad_value"
            )
        if schedule is not None and int(schedule * strength) < steps:
            raise Rejected(
                f"strength: {strength:g} leaves this model {int(schedule * strength)} steps, and {steps} are asked "
                "for; raise it, or lower the steps",
                code="bad_value",
            )
        return float(strength)

    def _adapter(self, wanted: str) -> str:
        if wanted and wanted not in self._can.adapters:
            known = ", ".join(sorted(self._can.adapters)) or "none"
            raise Rejected(f"adapter: this model has no {wanted[:80]!r}; it has: {known}", code="unknown_adapter")
        return wanted

    def _start(self, files: tuple[bytes, ...], size: tuple[int, int]) -> Image | None:
        if not files:
            return None
        if not self._can.starts:
            raise Rejected("attachments: this model cannot start from a picture; leave it out", code="unsupported")
        if len(files) > 1:
            raise Rejected("attachments: one picture to start from is taken; send one", code="bad_value")
        return start_picture.opened(files[0], size)


def _text(field: str, text: str) -> str:
    if len(text) > PROMPT_CHARS_MAX:
        raise Rejected(f"{field}: {len(text)} characters; at most {PROMPT_CHARS_MAX} are taken", code="too_large")
    return text.encode("utf-8", "replace").decode()
