"""A loaded pipeline: one call for the pictures of one round.

Everything here runs on the painter's thread. What always holds: each picture has a generator of its own, made from its
seed, so that it does not depend on which others are computed with it; the official `__call__` does the work.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from schemas.config import AdapterConfig
from workers.diffusion import graph, loading
from workers.diffusion.adapters import Adapters
from workers.diffusion.folder import Folder
from workers.diffusion.preview import Sketch, SmallDecoder, fitted
from workers.diffusion.schedulers import Schedulers
from workers.diffusion.settings import STEPS, DiffusionSettings, Precision
from workers.diffusion.sizes import Plan
from workers.diffusion.wishes import Abilities, Key
from workers.diffusion.words import Words

if TYPE_CHECKING:
    import torch

FACTOR = 8
OnStep = Callable[[int, int, "torch.Tensor"], None]
"""Step, steps, and what is denoised: (pictures, channels, height, width) where it can be told, else empty."""


class Stroke(Struct, frozen=True):
    """One picture of a round."""

    prompt: str
    negative: str
    seed: int
    start: Any = None


class Painted(Struct, frozen=True):
    """What came of a round."""

    pictures: torch.Tensor
    """(pictures, 3, height, width), 0 to 1; values that are no numbers where a picture failed."""
    unsafe: tuple[bool, ...] = ()
    """What the folder's own safety checker says, where it has one."""


class Pipeline:
    """Made by `load`'s arguments; `paint` and `close` afterwards."""

    def __init__(
        self,
        folder: Folder,
        shown: Path,
        settings: DiffusionSettings,
        plan: Plan,
        precision: Precision,
        device: str,
        adapters: Sequence[AdapterConfig] = (),
        look: Callable[..., None] = lambda *_: None,
    ) -> None:
        """Load it; raises `ConfigError`, `Untrusted` or `MemoryError`. `look` is called between the parts of a step."""
        self._pipe: Any = loading.load(folder, shown, precision, device, look)
        self._adapters = Adapters(self._pipe, adapters)
        self._fixed = device == "cpu" and not adapters and not plan.sliced
        """Whether every step computes the same operations with the same weights."""
        if plan.sliced:
            self._pipe.enable_attention_slicing()
        self._start: Any | None = loading.start_pipe(self._pipe)
        self._device = device
        self._area = math.prod(settings.size)
        self.schedulers = Schedulers(self._pipe.scheduler, settings.scheduler)
        self.can = self._abilities()
        settings.check(self.can.factor)
        self.words = self._words()
        self.preview: Callable[[torch.Tensor], torch.Tensor] | None = None
        if settings.previews:
            self.preview = self._preview(loading.preview_decoder(folder, precision, device))

    def hasten(self) -> None:
        """Spend a second on the first picture of a small model, so that the others are quicker."""
        if self._fixed:
            graph.hasten(getattr(self._pipe, "unet", None))

    def _abilities(self) -> Abilities:
        takes = loading.parameters(type(self._pipe))
        processor = getattr(self._pipe, "image_processor", None)
        factor = processor.config.vae_scale_factor if processor is not None else self._pipe.vae_scale_factor
        guidance = takes["guidance_scale"].default if "guidance_scale" in takes else 0.0
        return Abilities(
            factor=math.lcm(FACTOR, int(factor)),
            steps=min(int(takes["num_inference_steps"].default or STEPS), STEPS),
            guidance=float(guidance) if isinstance(guidance, int | float) else 0.0,
            negative="negative_prompt" in takes and "true_cfg_scale" not in takes,
            starts=self._start is not None,
            schedule=self._schedule(takes),
            adapters=self._adapters.names,
        )

    def _schedule(self, takes: Container[str]) -> int | None:
        """See `Abilities.schedule`; only a pipeline of the kind LCM takes this argument."""
        if "original_inference_steps" not in takes:
            return None
        steps = self._pipe.scheduler.config.get("original_inference_steps")
        return steps if isinstance(steps, int) else None

    def _words(self) -> Words:
        tokenizers = [getattr(self._pipe, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3")]
        longest = loading.parameters(type(self._pipe)).get("max_sequence_length")
        limit = longest.default if longest is not None and isinstance(longest.default, int) else None
        return Words([each for each in tokenizers if each is not None], limit)

    def _preview(self, decoder: Any | None) -> Sketch | SmallDecoder | None:
        import torch

        vae = getattr(self._pipe, "vae", None)
        if decoder is not None:
            return SmallDecoder(decoder)
        if vae is None or not hasattr(vae, "encode"):
            return None

        def encode(picture: torch.Tensor) -> torch.Tensor:
            coded = vae.encode(picture.to(self._device, vae.dtype))
            values = coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded[0]
            shift = vae.config.get("shift_factor") or 0.0
            scaled: torch.Tensor = (values - shift) * (vae.config.get("scaling_factor") or 1.0)
            return scaled

        factor = 2 ** (len(vae.config.get("block_out_channels") or vae.config.encoder_block_out_channels) - 1)
        with torch.inference_mode():
            return fitted(encode, factor)

    def paint(self, key: Key, strokes: Sequence[Stroke], on_step: OnStep) -> Painted:
        """Compute the pictures of a round. Whatever `on_step` raises ends it."""
        import torch

        self._adapters.use(key.adapter)
        pipe = self._pipe if key.strength is None else self._start
        assert pipe is not None
        pipe.scheduler = self.schedulers.made(key.scheduler)
        self._tile(key)

        def stepped(pipe: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            on_step(step + 1, max(step + 1, int(pipe.num_timesteps)), self._unpacked(pipe, values["latents"], key))
            return values

        with torch.inference_mode():
            made = pipe(
                **self._wanted(pipe, key, strokes),
                generator=[torch.Generator().manual_seed(stroke.seed) for stroke in strokes],
                output_type="pt",
                callback_on_step_end=stepped,
            )
        unsafe = getattr(made, "nsfw_content_detected", None) or ()
        return Painted(made.images.float().cpu(), tuple(bool(each) for each in unsafe))

    def _wanted(self, pipe: Any, key: Key, strokes: Sequence[Stroke]) -> dict[str, Any]:
        """What the pipeline is called with, of all that it takes."""
        takes = loading.parameters(type(pipe))
        wanted = {
            "prompt": [stroke.prompt for stroke in strokes],
            "negative_prompt": [stroke.negative for stroke in strokes] if key.negative else None,
            "width": key.width,
            "height": key.height,
            "num_inference_steps": key.steps,
            "guidance_scale": key.guidance,
        }
        if key.strength is not None:
            wanted |= {"image": [stroke.start for stroke in strokes], "strength": key.strength}
        return {name: value for name, value in wanted.items() if name in takes}

    def _tile(self, key: Key) -> None:
        """Pictures larger than the memory is planned for are decoded in tiles."""
        vae = getattr(self._pipe, "vae", None)
        if vae is not None and hasattr(vae, "enable_tiling"):
            (vae.enable_tiling if key.pixels > self._area else vae.disable_tiling)()

    @staticmethod
    def _unpacked(pipe: Any, values: torch.Tensor, key: Key) -> torch.Tensor:
        """Some pipelines hold what is denoised as rows of patches."""
        if values.ndim == 3 and hasattr(pipe, "_unpack_latents"):
            unpacked: torch.Tensor = pipe._unpack_latents(values, key.height, key.width, pipe.vae_scale_factor)
            return unpacked
        return values

    def close(self) -> None:
        """Free the weights."""
        import torch

        self._pipe = self._start = self.preview = None
        del self._adapters
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()
