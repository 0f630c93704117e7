"""What `models[]` of `type: diffusion` may say beside the fields that every model has."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from schemas.errors import ConfigError
from schemas.picture import size_of
from workers import BackendSettings
from workers.diffusion.folder import Advice

Positive = Annotated[int, Meta(ge=1)]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

STEPS = 25
"""Where neither the request nor the settings name any, and the pipeline's own default is not lower."""
LARGER = 2.25
"""A picture may have so many times the pixels of `resolution`, unless `pixels_max` says otherwise: 768x768 where it is
512x512."""


class DiffusionSettings(BackendSettings, frozen=True, kw_only=True):
    """`None` is chosen for the model and the machine."""

    resolution: Annotated[str, Meta(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")] = "512x512"
    """Size of a picture where the request names none; the memory is planned for it."""
    steps: Positive | None = None
    """By default what the folder's roost.json says, else the pipeline's own, and 25 at most."""
    guidance: Annotated[float, Meta(ge=0, le=50)] | None = None
    """How closely to follow the words; by default as `steps`. Turbo models want 0."""
    scheduler: str = ""
    """`ddim`, `euler`, `dpm++` …; by default the one in the folder."""
    negative: str = ""
    """What should not be seen where the request does not say."""
    precision: Precision = "auto"
    """What the weights are computed in: `auto` is bfloat16 where this machine is quicker with it, else float32."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Positive | None = None
    """Threads that compute; by default all cores, at low priority."""
    batch: Annotated[int, Meta(ge=1, le=64)] | None = None
    """Pictures of `resolution` computed at once; by default as many as pay off and fit."""
    previews: bool = True
    """Show what a picture looks like while it is drawn."""
    preview_every_s: Annotated[float, Meta(ge=0, le=60)] = 0.5
    """Between two previews at least; they never cost more than a twentieth of the time. 0: after every step, whatever
    it costs."""
    side_max: Annotated[int, Meta(ge=8, le=16_384)] = 2048
    """Pixels of a picture's longer side."""
    pixels_max: Annotated[int, Meta(ge=64, le=2**28)] | None = None
    """Pixels of a whole picture; by default 2.25 times those of `resolution`."""
    steps_max: Positive = 150

    def advised(self, advice: Advice) -> DiffusionSettings:
        """With the maker's advice where these settings say nothing."""
        return replace(
            self,
            steps=self.steps or advice.steps,
            guidance=advice.guidance if self.guidance is None else self.guidance,
            scheduler=self.scheduler or advice.scheduler,
            negative=self.negative or advice.negative,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of `resolution`."""
        size = size_of(self.resolution)
        assert size is not None  # the pattern above is that of `size_of`
        return size

    @property
    def largest(self) -> int:
        """Pixels that one picture may have."""
        width, height = self.size
        return self.pixels_max or int(width * height * LARGER)

    def check(self, factor: int) -> None:
        """Raises `ConfigError` for settings that contradict each other; `factor`: what the model's sizes are multiples
        of."""
        width, height = self.size
        if width % factor or height % factor:
            raise ConfigError(f"resolution: this model draws multiples of {factor} pixels; got {self.resolution}")
        if max(width, height) > self.side_max:
            raise ConfigError(f"resolution: {self.resolution} is above side_max {self.side_max}; change one of them")
        if width * height > self.largest:
            raise ConfigError(f"resolution: {self.resolution} is above pixels_max {self.largest}; change one of them")
        if self.steps is not None and self.steps > self.steps_max:
            raise ConfigError(f"steps: {self.steps} is above steps_max {self.steps_max}; change one of them")
