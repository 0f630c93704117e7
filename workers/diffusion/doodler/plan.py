"""How much of everything one training run gets."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Plan:
    """Numbers of pictures and steps; of every stage also the seconds of each core it may take at most.

    A run whose seconds are never reached does the same steps on every machine; on a slower one a stage ends
    when its time is up, with its learning rate brought down all the same.
    """

    seed: int = 5
    scenes: int = 40_000
    unnamed: int = 20_000
    """Scenes in colours that have no name, for the denoiser."""
    sharp_scenes: int = 500
    processes: int = 2
    batch: int = 24
    inner_steps: int = 8000
    inner_s: float = 260
    text_steps: int = 6000
    text_s: float = 360
    denoise_steps: int = 16_000
    denoise_s: float = 5000
    refine_steps: int = 2000
    refine_s: float = 900
    outer_steps: int = 5000
    outer_s: float = 320

    def within(self, hours: float) -> "Plan":
        """The same run with its limits of time in proportion: all of it, rendering included, in about `hours`."""
        share = hours * 3600 / (self.inner_s + self.text_s + self.denoise_s + self.refine_s + self.outer_s + 240)
        return replace(
            self, inner_s=self.inner_s * share, text_s=self.text_s * share, denoise_s=self.denoise_s * share,
            refine_s=self.refine_s * share, outer_s=self.outer_s * share,
        )  # fmt: skip


MINIATURE = Plan(
    processes=1,
    scenes=64,
    unnamed=16,
    sharp_scenes=2,
    batch=4,
    inner_steps=2,
    text_steps=1,
    denoise_steps=1,
    refine_steps=1,
    outer_steps=1,
)
"""Goes through every stage in seconds; its pictures are noise."""
