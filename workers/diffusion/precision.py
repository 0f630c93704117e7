"""In what the weights are computed, and on which device.

What always holds: a choice made for this machine stays the same until the process ends, so that a model that is loaded
again draws the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError
from workers.diffusion.settings import DiffusionSettings, Precision
from workers.diffusion.threads import apart

if TYPE_CHECKING:
    import torch

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GAIN = 1.25
"""bfloat16 is taken where it is quicker by this much: it costs some digits."""
TRIES = 5


def device_of(settings: DiffusionSettings) -> str:
    """The device that is wanted, or the best there is; raises `ConfigError`."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if settings.device == "auto":
        return next(device for device, is_there in there.items() if is_there)
    if not there[settings.device]:
        raise ConfigError(f"device: torch finds no {settings.device} here; say `cpu` or `auto`")
    return settings.device


def precision_of(settings: DiffusionSettings, device: str) -> Precision:
    """The precision that is wanted, or the quickest that is safe."""
    import torch

    if settings.precision != "auto":
        return settings.precision
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if device == "cpu" and has_bfloat16() and _gain() >= GAIN:
        return "bfloat16"
    return "float32"


def dtype_of(precision: Precision) -> torch.dtype:
    import torch

    dtype = getattr(torch, precision)
    assert isinstance(dtype, torch.dtype)
    return dtype


def has_bfloat16() -> bool:
    """The processor multiplies bfloat16 by itself; elsewhere it would be imitated, and slow."""
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    there = getattr(torch.cpu, "get_capabilities", dict[str, Any])()  # not in every torch
    return any(getattr(torch.cpu, check, bool)() for check in checks) or told_bfloat16(there)


def told_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Whether torch says so of an ARM64 processor; of others this flag is not among its `capabilities`. Pure."""
    return bool(capabilities.get("bf16"))


def card_free(device: str) -> int | None:
    """Free bytes of the memory that the device has for itself; None where it uses the machine's."""
    import torch

    return torch.cuda.mem_get_info()[0] if device == "cuda" else None


@lru_cache(maxsize=1)
def _gain() -> float:
    """How many times as quick bfloat16 is."""
    return apart(_measured)


def _measured() -> float:
    """A convolution and a matrix product, the best of some tries, taken in turn, because others may be busy."""
    import torch

    def made(dtype: torch.dtype) -> tuple[Any, ...]:
        last = torch.channels_last
        picture = torch.ones(1, 192, 32, 32, dtype=dtype).to(memory_format=last)
        kernel = torch.ones(192, 192, 3, 3, dtype=dtype).to(memory_format=last)
        return picture, kernel, torch.ones(1024, 512, dtype=dtype), torch.ones(1536, 512, dtype=dtype)

    best: dict[torch.dtype, float] = {}
    with torch.inference_mode():
        inputs = {dtype: made(dtype) for dtype in (torch.float32, torch.bfloat16)}
        for _ in range(TRIES):
            for dtype, (picture, kernel, rows, matrix) in inputs.items():
                begun = time.perf_counter()
                torch.nn.functional.conv2d(picture, kernel, padding=1)
                torch.nn.functional.linear(rows, matrix)
                best[dtype] = min(best.get(dtype, float("inf")), time.perf_counter() - begun)
    return best[torch.float32] / best[torch.bfloat16]
