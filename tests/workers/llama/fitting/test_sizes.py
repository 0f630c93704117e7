"""The figures that a header gives, against those of llama.cpp itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Type

from schemas.gguf import Header, Tensor
from tests.workers.llama import shapes
from workers.llama.fitting import file, sizes
from workers.llama.native import build

MB = 1_000_000
SEVEN = {"width": 4096, "heads": 32, "kv": 32, "forward": 11_008}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "usual": ({}, {}),
    "small batch": ({}, {"batch": 64, "cells": 2048}),
    "large batch": ({}, {"batch": 2048}),
    "many cells": ({}, {"cells": 32_768}),
    "q8_0 cells": ({}, {"kv_type": "q8_0"}),
    "no flash attention": ({}, {"flash": False, "cells": 4096}),
    "not repacked": ({}, {"repack": False}),
    "many sequences": ({"vocabulary": 60_000}, {"sequences": 128, "batch": 128}),
    "large vocabulary": ({"vocabulary": 128_000}, {}),
    "output is the embedding": ({"tied": True, "kind": Type.Q4_0}, {}),
    "wide forward": ({"forward": 14_336}, {}),
    "narrow forward": ({"forward": 1024, "kv": 16}, {}),
    "q8_0": ({"kind": Type.Q8_0}, {}),
    "q2_k": ({"kind": Type.Q2_K}, {}),
    "q6_k": ({"kind": Type.Q6_K}, {}),
    "seven billion": (SEVEN, {}),
    "eight experts": ({"experts": 8, "used": 2}, {}),
    "many small experts": ({"experts": 64, "used": 8, "forward": 768, "width": 2048}, {}),
    "other heads in each layer": ({"architecture": "deci", "layers": 4, "kv": [4, 2, 4, 8]}, {}),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, int]]]:
    """llama.cpp's figures for all cases, in a process of its own, whose log it may have."""
    folder = tmp_path_factory.mktemp("shapes")
    cases = []
    for name, (shape, case) in CASES.items():
        path = shapes.write(folder / f"{name.replace(' ', '-')}.gguf", **shape)
        cases.append({"path": str(path), **case})
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers.llama.shapes"],
        input=json.dumps(cases), capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (Path(case["path"]), line) for name, case, line in zip(CASES, cases, lines, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_the_header_tells_what_llama_cpp_takes(name: str, measured: dict[str, tuple[Path, dict[str, int]]]) -> None:
    path, found = measured[name]
    case = CASES[name][1]
    sized = sizes.sizes(file.header(path), build.look().instructions, repack=case.get("repack", True))
    cells = case.get("cells", 8192)
    assert cells * sized.cell_bytes(case.get("kv_type", "f16")) == pytest.approx(found["KV"], abs=MB)
    assert sized.copied + sized.doubled == pytest.approx(found.get("CPU_REPACK", 0), abs=MB)
    planned = sized.compute_bytes(
        batch=case.get("batch", 512),
        cells=cells,
        sequences=case.get("sequences", 34),
        flash=case.get("flash", True),
    )
    taken = found["compute"] + found["output"]
    assert planned >= taken - MB
    assert planned - taken <= max(0.15 * taken, 32 * MB)


def layered(*names: str, kind: int = 12, **meta: Any) -> Header:
    """A header whose layers hold the tensors named, `0.attn_k`."""
    shape = {"attn_q": (512, 512), "attn_k": (512, 128), "attn_v": (512, 128)}
    tensors = tuple(
        Tensor(f"blk.{name}.weight", shape.get(name.partition(".")[2], (512, 64)), kind, 1_000) for name in names
    )
    plain = {"block_count": 2, "embedding_length": 512, "attention.head_count": 8, "attention.head_count_kv": 2, **meta}
    return Header(3, {"general.architecture": "x", **{f"x.{k}": v for k, v in plain.items()}}, tensors)


def test_layers_with_a_recurrent_state_have_no_cells() -> None:
    mixed = layered(
        "0.attn_k", "1.ssm_in", **{"ssm.inner_size": 1024, "ssm.state_size": 16, "ssm.conv_kernel": 4}
    )  # fmt: skip
    found = sizes.sizes(mixed, ())
    assert [layer.cell_items for layer in found.layers] == [2 * 128, 0]
    assert found.recurrent == 4 * (3 * 1024 + 16 * 1024)


def test_layers_that_share_keys_and_values_are_counted_once() -> None:
    found = sizes.sizes(layered("0.attn_k", "1.attn_k", **{"attention.shared_kv_layers": 1}), ())
    assert [layer.cell_items for layer in found.layers] == [2 * 128, 0]


def test_heads_of_layers_with_a_sliding_window_count_where_they_are_larger() -> None:
    found = sizes.sizes(layered("0.attn_k", **{"attention.key_length": 64, "attention.key_length_swa": 96}), ())
    assert found.layers[0].cell_items == 2 * (96 + 64)


def test_compressed_keys_hold_the_values_too() -> None:
    meta = {"attention.key_length": 576, "attention.value_length": 512, "attention.key_length_mla": 192}
    found = sizes.sizes(layered("0.attn_kv_a_mqa", **{**meta, "attention.head_count_kv": 1}), ())
    assert found.layers[0].cell_items == 576


def test_an_encoder_has_no_cells() -> None:
    assert sizes.sizes(layered("0.attn_k", **{"attention.causal": False}), ()).cell_bytes("f16") == 0


def test_an_unknown_architecture_counts_cells_for_every_layer() -> None:
    assert sizes.sizes(layered("0.strange", "1.strange"), ()).cell_bytes("f16") == 2 * 2 * 2 * 128 / 2 * 2


@pytest.mark.parametrize(
    ("instructions", "kinds"),
    [
        ((), set()),
        (("avx2",), {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
        (("avx2", "avx512"), {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4", "Q2_K"}),
        (("neon",), set()),
        (("neon", "dotprod"), {"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4", "Q1_0"}),
        (("amx_int8", "avx512_vnni"), {"Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "F16"}),
    ],
)
def test_which_types_are_repacked_follows_the_processor(instructions: tuple[str, ...], kinds: set[str]) -> None:
    assert {Type(number).name for number in sizes.repacked(instructions)} == kinds
