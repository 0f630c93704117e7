"""The trained parts as one standard diffusers folder: no code of its own, safetensors only."""

import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from workers.diffusion.doodler.denoiser import scheduler


def write(
    folder: Path, tokenizer: CLIPTokenizer, encoder: CLIPTextModel, unet: UNet2DConditionModel, vae: AutoencoderKL
) -> None:
    """Write the folder, whole or not at all, in half precision (which loads in any)."""
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(draft, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(draft, folder)


def read(folder: Path) -> StableDiffusionPipeline:
    """The folder as anybody would load it."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
