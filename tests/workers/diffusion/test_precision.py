"""What the weights are computed in, by what torch says of the processor."""

from __future__ import annotations

import platform

import pytest

from workers.diffusion import offline, precision


@pytest.mark.parametrize(
    ("capabilities", "there"),
    [
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": False}, False),
        ({"architecture": "x86_64", "avx512_f": True}, False),
        ({}, False),
    ],
)
def test_an_arm_processor_multiplies_bfloat16_where_torch_says_so(capabilities: dict[str, object], there: bool) -> None:
    assert precision.told_bfloat16(capabilities) is there


def test_what_is_told_of_this_processor_is_what_torch_knows() -> None:
    offline.libraries()
    import torch

    known = torch.cpu.get_capabilities()
    flags = ("bf16",) if platform.machine() in ("arm64", "aarch64") else ("avx512_bf16", "amx_tile")
    assert precision.has_bfloat16() >= any(known.get(flag) for flag in flags)
    if not any("bf16" in name and there for name, there in known.items()) and not known.get("amx_tile"):
        assert not precision.has_bfloat16()


def test_the_processor_has_no_memory_of_its_own() -> None:
    assert precision.card_free("cpu") is None
    assert precision.card_free("mps") is None
