"""Random pipelines in the layout of diffusers, of any shape: they load, compute and draw noise.

    python -m tests.tools.pipelines FOLDER sd15      # as large as Stable Diffusion 1.5, for benchmarks

Never used by the product. What always holds: the same kind and seed give the same files.
"""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.diffusion import offline

SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TINY_UNET = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "sample_size": 8,
}
TINY_VAE = {"block_out_channels": (8, 8, 8, 16), "norm_num_groups": 4, "latent_channels": 4, "sample_size": 64}
TINY_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SD15_UNET = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "sample_size": 64,
}
SD15_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "sample_size": 512}
SD15_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


def make(folder: Path, kind: str = "sd", *, seed: int = 0, **more: Any) -> Path:
    """Write a pipeline of a kind: `sd`, `sdxl`, `flux`, `chroma` (which cannot start from a picture), `lcm`, `sd15`."""
    offline.libraries()
    import torch

    torch.manual_seed(seed)
    KINDS[kind](**more).save_pretrained(folder)
    return folder


def tokenizer(length: int = 77) -> Any:
    """Of CLIP, with a vocabulary of single bytes."""
    from transformers import CLIPTokenizer

    letters = [*_byte_letters(), *(letter + "</w>" for letter in _byte_letters())]
    names = [*letters, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={name: i for i, name in enumerate(names)},
        merges=[],
        pad_token="<|endoftext|>",
        model_max_length=length,
    )


def _byte_letters() -> list[str]:
    """How byte-level vocabularies write the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(rest))]


def _text(kind: type, **config: Any) -> Any:
    from transformers import CLIPTextConfig

    made = CLIPTextConfig(
        vocab_size=514, bos_token_id=512, eos_token_id=513, pad_token_id=513, **{**TINY_TEXT, **config}
    )
    return kind(made).eval()


def _t5() -> tuple[Any, Any]:
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in string.ascii_letters + string.digits + string.punctuation]
    words = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    config = T5Config(vocab_size=len(pieces) + 8, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return T5EncoderModel(config).eval(), words


def _vae(**config: Any) -> Any:
    from diffusers import AutoencoderKL

    blocks = len(config.get("block_out_channels", TINY_VAE["block_out_channels"]))
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        **{**TINY_VAE, **config},
    ).eval()


def small_decoder(channels: int = 4) -> Any:
    """An AutoencoderTiny of factor 8."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    ).eval()


def sd(*, unet: dict[str, Any] | None = None, vae: Any = None, text: dict[str, Any] | None = None) -> Any:
    """Like Stable Diffusion 1.5."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    encoder = _text(CLIPTextModel, **(text or {}))
    return StableDiffusionPipeline(
        vae=vae or _vae(),
        text_encoder=encoder,
        tokenizer=tokenizer(),
        unet=UNet2DConditionModel(**{**TINY_UNET, "cross_attention_dim": encoder.config.hidden_size, **(unet or {})}),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **SD_BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def lcm() -> Any:
    """Like a latent consistency model: the guidance is a condition, few steps are taken of a schedule of 50."""
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    encoder = _text(CLIPTextModel)
    unet = UNet2DConditionModel(**TINY_UNET, cross_attention_dim=encoder.config.hidden_size, time_cond_proj_dim=16)
    return LatentConsistencyModelPipeline(
        vae=_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=LCMScheduler(original_inference_steps=50, **SD_BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd15() -> Any:
    """As large as Stable Diffusion 1.5: 860 million weights in the denoiser."""
    return sd(unet=SD15_UNET, vae=_vae(**SD15_VAE, norm_num_groups=32), text=SD15_TEXT)


def sdxl() -> Any:
    """Like SDXL: two text encoders, sizes as conditions."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(
        **TINY_UNET,
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_text(CLIPTextModel),
        text_encoder_2=_text(CLIPTextModelWithProjection, projection_dim=32),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(steps_offset=1, timestep_spacing="leading", **SD_BETAS),
    )


def flux() -> Any:
    """Like Flux: a transformer over rows of patches, and a flow."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    encoder, words = _t5()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.4),
        text_encoder=_text(CLIPTextModel),
        tokenizer=tokenizer(),
        text_encoder_2=encoder,
        tokenizer_2=words,
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def chroma() -> Any:
    """Like Chroma: diffusers has no pipeline that starts from a picture, of its kind."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    encoder, words = _t5()
    return ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.4),
        text_encoder=encoder,
        tokenizer=words,
        transformer=ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=64,
            approximator_hidden_dim=32,
            approximator_layers=1,
        ),
    )


KINDS: dict[str, Callable[..., Any]] = {
    "sd": sd,
    "sd15": sd15,
    "sdxl": sdxl,
    "flux": flux,
    "chroma": chroma,
    "lcm": lcm,
}


def adapter(folder: Path, *, scale: float = 1.0, seed: int = 1, rank: int = 2) -> Path:
    """Write a LoRA adapter for the denoiser of the pipeline `sd` that changes what it draws; the file."""
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(**TINY_UNET, cross_attention_dim=TINY_TEXT["hidden_size"])
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name, module in unet.named_modules():
        if name.endswith((".to_q", ".to_v")):
            outer, inner = module.weight.shape
            layers[f"{name}.lora_A.weight"] = torch.randn(rank, inner, generator=generator) * scale
            layers[f"{name}.lora_B.weight"] = torch.randn(outer, rank, generator=generator) * scale
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name="adapter.safetensors")
    return folder / "adapter.safetensors"


def edited(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None takes one away."""
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "sd"))
