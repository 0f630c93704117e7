"""The denoiser: a small UNet on 16 x 16 cells that learns the velocity, led by the text in two ways.

It attends to all text states at the two coarse levels, and a pooled state shifts and scales every block. While it
learns, it also says what stands where: object and colour of each cell, apart from each other.
"""

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as f
from transformers import CLIPTextModel

from workers.diffusion.doodler.autoencoder import LATENTS
from workers.diffusion.doodler.data import HEADS, UNNAMED
from workers.diffusion.doodler.loop import quick
from workers.diffusion.doodler.text import WIDTH

STEPS = 1000
MIDDLE, SPREAD = 650.0, 200.0
UNCONDITIONAL = 0.1
"""Share of empty captions, which guidance needs."""
SAID = 0.1
"""Weight of what the denoiser says of each cell, beside the velocity."""


def build() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=LATENTS, out_channels=LATENTS, block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn", layers_per_block=1, norm_num_groups=8, attention_head_dim=(4, 4, 4),
        cross_attention_dim=WIDTH, addition_embed_type="text", addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift", use_linear_projection=True,
    )  # fmt: skip


def scheduler() -> DPMSolverMultistepScheduler:
    """The schedule of training and the solver of the pipeline: at full noise nothing of the picture is left."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=STEPS, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True,
    )  # fmt: skip


def signal(steps: int = STEPS) -> Tensor:
    """The share of signal (cumulative alpha) of every step, ending in exactly zero (Lin et al. 2023, algorithm 1)."""
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, steps, dtype=torch.float64) ** 2, 0).sqrt()
    first, last = alphas[0].clone(), alphas[-1].clone()
    return (((alphas - last) * first / (first - last)) ** 2).float()


def emphasis(objects: Tensor) -> Tensor:
    """How much each cell counts, 1 on average, (n, 1, 16, 16): half of it all falls on the things.

    Without it, a small thing among much background counts for little, and is the first to be drawn badly.
    `objects`: (n, 16, 16), what each cell shows, 0 for nothing (`data.places`).
    """
    things = f.max_pool2d((objects > 0).float()[:, None], 3, 1, 1)
    return 0.5 + 0.5 * things / things.mean(dim=(2, 3), keepdim=True).clamp(min=1 / 256)


def moments(shares: Tensor) -> Tensor:
    """Steps for (n,) numbers from 0 to 1: evenly spread for every other one, and around MIDDLE for those between.

    At the middle steps what a thing is gets decided; those after them only make it crisp.
    """
    low, high = torch.special.ndtr((torch.tensor([0.0, STEPS]) - MIDDLE) / SPREAD)
    around = MIDDLE + SPREAD * torch.special.ndtri(low + (high - low) * shares)
    even = torch.arange(len(shares)) % 2 == 0
    return torch.where(even, STEPS * shares, around).long().clamp(0, STEPS - 1)


class Pupil(nn.Module):
    """The denoiser with heads that say, from the states before its last block, what each cell shows (`data.places`)."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = build()
        before = self.unet.up_blocks[-2]
        before.register_forward_hook(self._keep)
        width = before.resnets[-1].out_channels
        self.heads = nn.ModuleDict({name: nn.Conv2d(width, len(HEADS[name]), 1) for name in ("object2", "colour2")})
        self._states = torch.empty(0)

    def _keep(self, block: nn.Module, given: object, states: Tensor) -> None:
        self._states = states

    def forward(self, noisy: Tensor, steps: Tensor, text: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The velocity, and (n, words, 16, 16) logits of each head."""
        velocity = self.unet(noisy, steps, text).sample
        return velocity, [head(self._states) for head in self.heads.values()]


class DenoiserLoss:
    """Velocity (Salimans and Ho 2022) at a random step of a random scene with one of its captions.

    `places`: what each cell shows (`data.places`). `shares`: how often each scene is taken, in any unit.
    """

    def __init__(
        self,
        pupil: Pupil,
        encoder: CLIPTextModel,
        latents: Tensor,
        places: Tensor,
        shares: Tensor,
        tokens: Tensor,
        empty: Tensor,
        batch: int,
    ) -> None:
        self.pupil, self.encoder, self.latents, self.places = pupil, encoder, latents, places
        self.shares, self.tokens, self.empty, self.batch = shares, tokens, empty, batch
        self.signal = signal()

    def __call__(self, rng: torch.Generator, done: float) -> dict[str, Tensor]:
        n = self.batch
        rows = torch.multinomial(self.shares, n, replacement=True, generator=rng)
        which = torch.randint(self.tokens.shape[1], (n,), generator=rng)
        ids = self.tokens[rows, which].long()
        ids[torch.rand(n, generator=rng) < UNCONDITIONAL] = self.empty
        x = self.latents[rows].float()
        noise = torch.randn(x.shape, generator=rng)
        t = moments((torch.arange(n) + torch.rand(n, generator=rng)) / n)
        share = self.signal[t][:, None, None, None]
        noisy = share.sqrt() * x + (1 - share).sqrt() * noise
        velocity = share.sqrt() * noise - (1 - share).sqrt() * x
        with quick():
            with torch.no_grad():
                states = self.encoder(ids).last_hidden_state
            got, said = self.pupil(noisy, t, states)
        places = self.places[rows].long()
        weights = emphasis(places[:, 0])
        terms = {"velocity": (weights * (got.float() - velocity).square()).mean()}
        for i, name in enumerate(self.pupil.heads):
            told = f.cross_entropy(said[i].float(), places[:, i], reduction="none", ignore_index=UNNAMED)
            terms[name] = SAID * (weights[:, 0] * told).mean()
        return terms
