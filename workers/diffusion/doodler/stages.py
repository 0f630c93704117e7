"""Each stage of the training as one function of the work folder. A stage that has its result does nothing."""

import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from workers.diffusion.doodler import autoencoder, data, denoiser, pipeline, text, tokens
from workers.diffusion.doodler.loop import Stage, finished, load, together, train
from workers.diffusion.doodler.plan import Plan
from workers.diffusion.doodler.render import rendered

PAIRED = 2.5
"""How often the denoiser is shown a scene of two different things for once that it is shown another: what belongs to
which of them is what it learns last."""
TRAIN = "train"
"""Folder of the training set inside the work folder."""


def words(folder: Path, plan: Plan) -> CLIPTokenizer:
    place = folder / "tokenizer"
    if not (place / "tokenizer_config.json").exists():
        tokens.build(seed=plan.seed).save_pretrained(place)
    return CLIPTokenizer.from_pretrained(place, local_files_only=True)


def array(folder: Path, name: str) -> Tensor:
    """An array of the work folder, mapped and not read."""
    return torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c"))


def keep(path: Path, values: Tensor) -> None:
    """Write an array, whole or not at all."""
    draft = path.with_suffix(".draft.npy")
    np.save(draft, values.numpy())
    os.replace(draft, path)


def _pyramid(folder: Path, plan: Plan) -> AutoencoderKL:
    """The small autoencoder before it is trained; each channel of its latents has mean 0 and spread 1."""
    torch.manual_seed(plan.seed)
    module = autoencoder.build(autoencoder.INNER, data.SIDE)
    pictures = array(folder, f"{TRAIN}/pictures")[:1024]
    autoencoder.start(module, autoencoder.scaled(pictures[:64]))
    some = autoencoder.encoded(module, pictures)
    autoencoder.normalise(module, some.mean(dim=(0, 2, 3)), some.std(dim=(0, 2, 3)) + 1e-4)
    return module


def _inner(rank: int, world: int, folder: Path, plan: Plan) -> None:
    module = _pyramid(folder, plan)
    module.encoder.requires_grad_(False)
    module.quant_conv.requires_grad_(False)
    batch = min(4, plan.batch)
    pictures, latents = (array(folder, name)[: plan.scenes] for name in (f"{TRAIN}/pictures", "latents"))
    loss = autoencoder.InnerLoss(module, pictures, latents, batch)
    stage = Stage("inner", plan.inner_steps, plan.inner_s, 1e-3, batch, ema=True, seed=plan.seed)
    train(rank, world, stage, module, loss, folder)


def inner(folder: Path, plan: Plan) -> None:
    """The latents of all pictures, and the small autoencoder, which learns to draw what they leave out."""
    if not (folder / "latents.npy").exists():
        pictures = array(folder, f"{TRAIN}/pictures")
        keep(folder / "latents.npy", autoencoder.encoded(_pyramid(folder, plan), pictures).half())
    if not finished(folder / "inner.pt", plan.inner_steps, plan.inner_s):
        together(_inner, folder, plan.processes, folder, plan)


def _text(rank: int, world: int, folder: Path, plan: Plan) -> None:
    torch.manual_seed(plan.seed)
    tokenizer = words(folder, plan)
    reader = text.Reader(text.build(tokenizer), tokenizer.eos_token_id)
    batch = min(32, 8 * plan.batch)  # captions are short
    captions, labels = (array(folder, f"{TRAIN}/{name}")[: plan.scenes] for name in ("tokens", "labels"))
    loss = text.ReaderLoss(reader, captions, labels, batch)
    stage = Stage("text", plan.text_steps, plan.text_s, 1e-3, batch, muon_lr=2e-3, ema=True, seed=plan.seed)
    train(rank, world, stage, reader, loss, folder)


def reading(folder: Path, plan: Plan) -> None:
    """The text encoder, on captions alone."""
    if not finished(folder / "text.pt", plan.text_steps, plan.text_s):
        together(_text, folder, plan.processes, folder, plan)


def encoder(folder: Path, plan: Plan) -> CLIPTextModel:
    """The finished text encoder."""
    tokenizer = words(folder, plan)
    reader = text.Reader(text.build(tokenizer), tokenizer.eos_token_id)
    load(reader, folder / "text.pt")
    return reader.encoder


def _denoise(rank: int, world: int, folder: Path, plan: Plan, refined: bool) -> None:
    torch.manual_seed(plan.seed)
    pupil = denoiser.Pupil()
    if refined:
        load(pupil, folder / "denoise.pt").train()
    pupil.to(memory_format=torch.channels_last)
    empty = torch.tensor(tokens.ids(words(folder, plan), [""])[0])
    paired = array(folder, f"{TRAIN}/labels")[:, list(data.HEADS).index("relation")] > 0
    loss = denoiser.DenoiserLoss(
        pupil, encoder(folder, plan), array(folder, "latents"), array(folder, f"{TRAIN}/places"),
        torch.where(paired, PAIRED, 1.0), array(folder, f"{TRAIN}/tokens"), empty, plan.batch,
    )  # fmt: skip
    stage = Stage(
        "denoise", plan.denoise_steps, plan.denoise_s, 1e-3, plan.batch, muon_lr=4e-3, ema=True, seed=plan.seed
    )
    if refined:
        stage = replace(
            stage, name="refine", steps=plan.refine_steps, seconds=plan.refine_s, lr=2.5e-4, muon_lr=1e-3,
            seed=plan.seed + 1,
        )  # fmt: skip
    train(rank, world, stage, pupil, loss, folder)


def denoising(folder: Path, plan: Plan) -> None:
    """The denoiser, on cached latents."""
    if not finished(folder / "denoise.pt", plan.denoise_steps, plan.denoise_s):
        together(_denoise, folder, plan.processes, folder, plan, False)


def refining(folder: Path, plan: Plan) -> None:
    """The denoiser once more, in smaller steps."""
    if not finished(folder / "refine.pt", plan.refine_steps, plan.refine_s):
        together(_denoise, folder, plan.processes, folder, plan, True)


def _normal(folder: Path) -> AutoencoderKL:
    module = autoencoder.build(autoencoder.INNER, data.SIDE)
    load(module, folder / "inner.pt")
    return module


def _outer(rank: int, world: int, folder: Path, plan: Plan) -> None:
    torch.manual_seed(plan.seed)
    pictures = array(folder, "sharp")
    large = autoencoder.growing(autoencoder.grown(_normal(folder), autoencoder.scaled(pictures[:4])))
    loss = autoencoder.OuterLoss(large, pictures, array(folder, "sharp-latents"))
    stage = Stage("outer", plan.outer_steps, plan.outer_s, 1e-3, 1, ema=True, seed=plan.seed)
    train(rank, world, stage, large, loss, folder)


def outer(folder: Path, plan: Plan) -> None:
    """The three outer levels of the autoencoder, on pictures of 512 pixels."""
    if finished(folder / "outer.pt", plan.outer_steps, plan.outer_s):
        return
    if not (folder / "sharp-latents.npy").exists():
        first = plan.seed * data.SEEDS
        seeds = random.Random(plan.seed).sample(range(first, first + plan.scenes), plan.sharp_scenes)
        keep(folder / "sharp.npy", torch.from_numpy(rendered(seeds, 512)))
        small = torch.from_numpy(rendered(seeds, data.SIDE))
        keep(folder / "sharp-latents.npy", autoencoder.encoded(_normal(folder), small))
    together(_outer, folder, plan.processes, folder, plan)


def assembled(folder: Path, plan: Plan) -> Path:
    """The finished pipeline folder, of whatever the stages have reached."""
    pupil = denoiser.Pupil()
    load(pupil, folder / "refine.pt")
    large = load(autoencoder.build(autoencoder.OUTER + autoencoder.INNER, 512), folder / "outer.pt")
    place = folder / "pipeline"
    pipeline.write(place, words(folder, plan), encoder(folder, plan), pupil.unet, large)
    return place
