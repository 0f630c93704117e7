"""From a checked folder to a pipeline of diffusers that is ready to be called.

What always holds: nothing is fetched and no code of the folder's own is run; every weight comes from its file, for the
library would make up what is missing; whatever goes wrong is a `RoostError` that names the folder, or a `MemoryError`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from schemas.errors import ConfigError, RoostError, Untrusted
from workers.diffusion import memory
from workers.diffusion.folder import PREVIEW_DECODER, Folder
from workers.diffusion.precision import dtype_of
from workers.diffusion.settings import Precision

NEEDED = ("prompt", "num_inference_steps", "generator", "output_type", "callback_on_step_end")
INNER = re.compile(
    r"((down|up|mid|transformer|single_transformer)_blocks?|layers|blocks)(\.\d+)?(\.(resnets|attentions)\.\d+)?"
)
"""Parts of a model between which a step can be left."""


def load(folder: Folder, shown: Path, precision: Precision, device: str, look: Callable[..., None]) -> Any:
    """The folder's own pipeline. `shown`: how messages call the folder; `look` is called all through a step."""
    import diffusers
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    known = {kind.__name__ for kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}
    kind = getattr(diffusers, folder.kind, None)
    if kind is None or folder.kind not in known or missing(kind):
        raise ConfigError(
            f"{shown}: a {folder.kind} is no pipeline from text to picture that can be driven here; take another model"
        )
    try:
        pipe = kind.from_pretrained(
            str(folder.path),
            dtype=dtype_of(precision),
            variant=folder.variant or None,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=True,
        )
        _check_whole(folder, pipe)
        pipe.to(device)
        prepare(pipe, look)
    except RoostError:
        raise
    except Exception as error:
        memory.check(error, str(shown))
        raise Untrusted(
            f"{shown} cannot be loaded as a {folder.kind}: {type(error).__name__}: {str(error)[:300]}; "
            "copy the whole folder again, or take another model",
            code="model_file",
        ) from error
    return pipe


def start_pipe(pipe: Any) -> Any | None:
    """The pipeline that starts from a picture, of the same parts; None where diffusers has none."""
    from diffusers import AutoPipelineForImage2Image
    from diffusers.pipelines.auto_pipeline import AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, _get_task_class

    kind = _get_task_class(AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, type(pipe).__name__, throw_error_if_not_exist=False)
    if kind is None or missing(kind) or not {"image", "strength"} <= parameters(kind).keys():
        return None
    made = AutoPipelineForImage2Image.from_pipe(pipe)
    made.set_progress_bar_config(disable=True)
    return made


def preview_decoder(folder: Folder, precision: Precision, device: str) -> Any | None:
    """The small decoder that the folder brings, if it does."""
    if folder.preview is None:
        return None
    from diffusers import AutoencoderTiny

    path, kind = folder.path / PREVIEW_DECODER, cast(Any, AutoencoderTiny)
    try:
        made = kind.from_pretrained(str(path), dtype=dtype_of(precision), local_files_only=True, use_safetensors=True)
        return made.to(device)
    except (OSError, ValueError, RuntimeError) as error:
        memory.check(error, str(path))
        raise Untrusted(f"{path} cannot be loaded: {str(error)[:300]}; copy it again", code="model_file") from error


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """What a pipeline can be called with."""
    return dict(inspect.signature(kind.__call__).parameters)


def missing(kind: type) -> set[str]:
    """What it would have to take, and does not."""
    return set(NEEDED) - parameters(kind).keys()


def prepare(pipe: Any, look: Callable[..., None]) -> None:
    """Layouts that are computed quickly, one picture at a time where memory peaks, and steps that can be left."""
    import torch

    pipe.set_progress_bar_config(disable=True)
    for model in pipe.components.values():
        if not isinstance(model, torch.nn.Module):
            continue
        for weight in model.parameters():  # copied one by one, away from the file, which is mapped until then
            layout = torch.channels_last if weight.ndim == 4 else torch.preserve_format
            weight.data = weight.data.clone(memory_format=layout)
        for inner, module in model.named_modules():
            if INNER.fullmatch(inner.rpartition("coder.")[2]):
                module.register_forward_pre_hook(look)
    vae = getattr(pipe, "vae", None)
    if vae is not None and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()


def _check_whole(folder: Folder, pipe: Any) -> None:
    """The library fills in what a file lacks with random numbers, and says so only in its log."""
    for part in folder.parts:
        model = getattr(pipe, part.name, None)
        if part.weights is None or model is None:
            continue
        wanted = sum(1 for _ in model.parameters())
        if wanted > part.weights.tensors:
            raise Untrusted(
                f"{folder.path / part.name}: its files hold {part.weights.tensors} of {wanted} tensors; copy the "
                "whole folder again",
                code="model_file",
            )
        if any(weight.is_meta for weight in model.parameters()):
            raise Untrusted(
                f"{folder.path / part.name}: its files lack some tensors; copy the whole folder again",
                code="model_file",
            )
