"""The denoiser: a small UNet on 16 x 16 cells that learns the velocity, led by the text in two ways.

It attends to all text states at the two coarse levels, and a pooled state shifts and scales every block.
"""

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as f
from transformers import CLIPTextModel

from workers.diffusion.doodler.autoencoder import LATENTS
from workers.diffusion.doodler.loop import quick
from workers.diffusion.doodler.text import WIDTH

STEPS = 1000
UNCONDITIONAL = 0.1
"""Share of empty captions, which guidance needs."""


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


class DenoiserLoss:
    """Velocity (Salimans and Ho 2022) at a random step of a random scene with one of its captions."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        encoder: CLIPTextModel,
        latents: Tensor,
        tokens: Tensor,
        empty: Tensor,
        batch: int,
    ) -> None:
        self.unet, self.encoder, self.latents, self.tokens, self.empty, self.batch = (
            unet, encoder, latents, tokens, empty, batch,
        )  # fmt: skip
        self.signal = signal()

    def __call__(self, rng: torch.Generator, done: float) -> dict[str, Tensor]:
        n = self.batch
        rows = torch.randint(len(self.latents), (n,), generator=rng)
        which = torch.randint(self.tokens.shape[1], (n,), generator=rng)
        ids = self.tokens[rows, which].long()
        ids[torch.rand(n, generator=rng) < UNCONDITIONAL] = self.empty
        x = self.latents[rows].float()
        noise = torch.randn(x.shape, generator=rng)
        t = ((torch.arange(n) + torch.rand(n, generator=rng)) / n * STEPS).long().clamp(max=STEPS - 1)
        share = self.signal[t][:, None, None, None]
        noisy = share.sqrt() * x + (1 - share).sqrt() * noise
        velocity = share.sqrt() * noise - (1 - share).sqrt() * x
        with quick():
            with torch.no_grad():
                states = self.encoder(ids).last_hidden_state
            got = self.unet(noisy, t, states).sample
        return {"velocity": f.mse_loss(got.float(), velocity)}
