"""The autoencoder, grown in two steps: first on pictures of 64 pixels, then three levels on each side, to 512.

The small one is the inside of the large one: both have the same latents, 16 x 16 cells of 12 numbers for a picture.
So the denoiser can be trained on latents of small pictures, which cost a sixty-fourth. They are a linear pyramid
(`start`): mean colours and differences of each cell, which know nothing of its neighbours. So flat ground is the same
numbers everywhere, and the denoiser need not draw what an encoder hid in it. The small encoder stays as it is. The
decoder learns what the pyramid leaves out, and starts as its inverse: from chance it would find colours after hours.
"""

import torch
from diffusers import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as f

from workers.diffusion.doodler.loop import quick

LATENTS = 12
INNER = (16, 32, 64)
OUTER = (16, 16, 16)
NORM_GROUPS = 1
"""A group of few channels would leave only signs of a flat area's colour."""
LEVEL = 2.0
"""A constant in two channels: beside it, a norm leaves the colours almost as they are."""
KEPT = 8
"""Channels that pass the linear pyramid on: each of red, green and blue with both signs, for SiLU(x) - SiLU(-x) = x,
and LEVEL with both signs."""
DETAILS = (((-1, 1), (-1, 1)), ((-1, -1), (1, 1)), ((1, -1), (-1, 1)))
"""Signs of the four pixels of a cell in its differences: across, down, diagonal (Haar)."""
NOISE = 0.1
"""Spread of what is added to latents, whose own spread is 1, while the decoder learns."""
DRAWN = 0.35
"""How strongly a difference is drawn at the start; the decoder finds the rest."""


def build(widths: tuple[int, ...], side: int) -> AutoencoderKL:
    levels = len(widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=widths, layers_per_block=1, latent_channels=LATENTS, norm_num_groups=NORM_GROUPS,
        sample_size=side, scaling_factor=1.0, mid_block_add_attention=False, force_upcast=False,
    )  # fmt: skip


@torch.no_grad()
def start(module: AutoencoderKL, pictures: Tensor) -> None:
    """Make it the linear pyramid that means, differences and their inverse are.

    `pictures`: (n, 3, side, side) from -1 to 1, by which the gains are set. Every channel from KEPT on stays at chance.
    """
    _straight(module)
    encoder, decoder = module.encoder, module.decoder
    for conv in (encoder.conv_in, decoder.conv_in):
        conv.weight[:KEPT] = 0
        conv.bias[:KEPT] = 0
        for k in range(3):
            conv.weight[2 * k, k, 1, 1], conv.weight[2 * k + 1, k, 1, 1] = 1, -1
        conv.bias[6], conv.bias[7] = LEVEL, -LEVEL
    for conv in (encoder.conv_out, decoder.conv_out):
        conv.weight[:3] = 0
        conv.bias[:3] = 0
        for k in range(3):
            conv.weight[k, 2 * k, 1, 1], conv.weight[k, 2 * k + 1, 1, 1] = 1, -1
    for mixed in (module.quant_conv, module.post_quant_conv):
        assert mixed is not None
        nn.init.dirac_(mixed.weight)
        nn.init.zeros_(mixed.bias)
    cells = module.encode(pictures).latent_dist.mean[:, :3]
    gain = _gain(cells, f.adaptive_avg_pool2d(pictures, cells.shape[-2:]))
    encoder.conv_out.weight[:3] *= gain
    decoder.conv_out.weight[:3] *= _gain(module.decode(module.encode(pictures).latent_dist.mean).sample, pictures)
    _details(module, 2 * gain)


def _gain(found: Tensor, wanted: Tensor) -> Tensor:
    return (found * wanted).sum() / found.square().sum()


def _straight(module: nn.Module, kept: int = KEPT) -> None:
    """Blocks add nothing, and the first `kept` channels are averaged on the way down and repeated on the way up."""
    for part in module.modules():
        if isinstance(part, ResnetBlock2D):
            nn.init.zeros_(part.conv2.weight)
            nn.init.zeros_(part.conv2.bias)
            if (wider := part.conv_shortcut) is not None:
                columns = wider.weight.shape[1]
                nn.init.normal_(wider.weight, std=columns**-0.5)
                nn.init.dirac_(wider.weight[:columns])
                nn.init.zeros_(wider.bias)
        elif isinstance(part, Downsample2D | Upsample2D):
            weight, bias = part.conv.weight, part.conv.bias
            weight[:kept] = 0
            bias[:kept] = 0
            for row in range(kept):
                if isinstance(part, Downsample2D):
                    weight[row, row, :2, :2] = 0.25
                else:
                    weight[row, row, 1, 1] = 1


def _details(module: AutoencoderKL, gain: Tensor) -> None:
    """The last halving keeps the differences inside its cells too, and the first doubling draws them."""
    encoder, decoder = module.encoder, module.decoder
    halving = [part for part in encoder.modules() if isinstance(part, Downsample2D)][-1].conv
    doubling = next(part for part in decoder.modules() if isinstance(part, Upsample2D)).conv
    for number, (signs, k) in enumerate((signs, k) for signs in DETAILS for k in range(3)):
        drawn = torch.tensor(signs, dtype=torch.float32)
        kernel = torch.zeros(3, 3)
        if signs == DETAILS[0]:
            kernel[1, 0], kernel[1, 2] = DRAWN, -DRAWN
        elif signs == DETAILS[1]:
            kernel[0, 1], kernel[2, 1] = DRAWN, -DRAWN
        else:
            kernel[::2, ::2] = DRAWN / 2 * drawn
        row, latent = KEPT + 2 * number, 3 + number
        encoder.conv_out.weight[latent] = 0
        encoder.conv_out.bias[latent] = 0
        for at, sign in ((row, 1), (row + 1, -1)):
            for conv in (halving, doubling, decoder.conv_in):
                conv.weight[at] = 0
                conv.bias[at] = 0
            halving.weight[at, 2 * k, :2, :2] = sign * drawn / 4
            encoder.conv_out.weight[latent, at, 1, 1] = sign * gain
            decoder.conv_in.weight[at, latent, 1, 1] = sign
        doubling.weight[2 * k, row], doubling.weight[2 * k + 1, row] = kernel, -kernel


def scaled(pictures: Tensor) -> Tensor:
    """(n, height, width, 3) bytes as (n, 3, height, width) from -1 to 1."""
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def picture_loss(got: Tensor, wanted: Tensor) -> Tensor:
    """Mean distance of colours plus that of their differences to the right and below: flat areas and crisp edges."""
    got, wanted = got.float(), wanted.float()
    error = got - wanted
    across, down = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    return error.abs().mean() + 0.3 * error.square().mean() + 0.5 * (across + down)


class InnerLoss:
    """The decoder draws small pictures from their latents, with a little noise, for the denoiser's are not exact."""

    def __init__(self, module: AutoencoderKL, pictures: Tensor, latents: Tensor, batch: int) -> None:
        self.module, self.pictures, self.latents, self.batch = module, pictures, latents, batch

    def __call__(self, rng: torch.Generator, done: float) -> dict[str, Tensor]:
        rows = torch.randint(len(self.pictures), (self.batch,), generator=rng)
        z = self.latents[rows].float()
        # torch 2.13 crashes in the backward pass of a group norm whose input needs no gradient.
        noisy = (z + NOISE * torch.randn(z.shape, generator=rng)).requires_grad_()
        with quick():
            got = self.module.decode(noisy).sample
        return {"picture": picture_loss(got, scaled(self.pictures[rows]))}


@torch.no_grad()
def normalise(module: AutoencoderKL, mean: Tensor, spread: Tensor) -> None:
    """Fold `(latent - mean) / spread` per channel into the 1 x 1 convolutions beside the latents: exact."""
    before, after = module.quant_conv, module.post_quant_conv
    assert before is not None
    assert after is not None
    before.weight[:LATENTS] /= spread[:, None, None, None]
    before.bias[:LATENTS] = (before.bias[:LATENTS] - mean) / spread
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= spread[None, :, None, None]


@torch.no_grad()
def encoded(module: AutoencoderKL, pictures: Tensor, batch: int = 64) -> Tensor:
    """Means of the latents of (n, side, side, 3) bytes."""
    found = []
    for rows in pictures.split(batch):
        x = scaled(rows)
        with quick():
            found.append(module.encode(x).latent_dist.mean.float())
    return torch.cat(found)


@torch.no_grad()
def grown(inner: AutoencoderKL, pictures: Tensor) -> AutoencoderKL:
    """The large autoencoder: the inside copied, the outer levels such that it draws the small picture enlarged.

    `pictures`: (n, 3, 512, 512) from -1 to 1.
    """
    large = build(OUTER + INNER, 512)
    start(large, pictures)
    _straight(large, OUTER[0])
    source, target = inner.state_dict(), large.state_dict()
    for name, value in source.items():
        place = name
        if name.startswith("encoder.down_blocks."):
            level = int(name.split(".")[2])
            place = name.replace(f"down_blocks.{level}.", f"down_blocks.{level + len(OUTER)}.", 1)
        if name != "encoder.conv_in.weight" and name != "encoder.conv_in.bias":
            target[place] = value
    large.load_state_dict(target)
    return large


class OuterLoss:
    """Parts of 512-pixel pictures: the decoder draws them from the small encoder's latents, the encoder finds those.

    Most steps take a part of 6 x 6 cells; the last third takes whole pictures more and more, for the statistics of the
    norms are those of what is decoded at once.
    """

    def __init__(self, module: AutoencoderKL, pictures: Tensor, latents: Tensor) -> None:
        self.module, self.pictures, self.latents = module, pictures, latents

    def __call__(self, rng: torch.Generator, done: float) -> dict[str, Tensor]:
        whole = float(torch.rand(1, generator=rng)) < 0.05 + 0.4 * max(0.0, done * 3 - 2)
        cells = 16 if whole else 6
        row = int(torch.randint(len(self.pictures), (1,), generator=rng))
        top, left = (int(torch.randint(17 - cells, (1,), generator=rng)) for _ in range(2))
        z = self.latents[row : row + 1, :, top : top + cells, left : left + cells]
        x = self.pictures[row : row + 1, top * 32 : (top + cells) * 32, left * 32 : (left + cells) * 32]
        x = scaled(x)
        # torch 2.13 crashes in the backward pass of a group norm whose input needs no gradient.
        noisy = (z + 0.08 * torch.randn(z.shape, generator=rng)).requires_grad_()
        with quick():
            got = self.module.decode(noisy).sample
            found = self.module.encode(x).latent_dist.mean.float()
        return {"picture": picture_loss(got, x), "latents": 0.3 * f.smooth_l1_loss(found, z)}


def growing(large: AutoencoderKL) -> AutoencoderKL:
    """The large autoencoder with its deepest parts, which are trained already, held fast."""
    deep = ("mid_block", "decoder.conv_in", "quant_conv", "decoder.up_blocks.0")
    for name, parameter in large.named_parameters():
        parameter.requires_grad_(not any(part in name for part in deep))
    return large
