"""How a model is loaded, and what that takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.errors import ConfigError
from schemas.gguf import Header, Tensor, Value
from tests.workers.llama import shapes
from workers.llama.fitting.offload import Card
from workers.llama.fitting.plan import CELL_BYTES_MAX, Plan, Site, plan

SMALL: dict[str, Value] = {
    "general.architecture": "llama", "llama.context_length": 8192, "llama.block_count": 30,
    "llama.embedding_length": 576, "llama.attention.head_count": 9, "llama.attention.head_count_kv": 3,
    "llama.feed_forward_length": 1536,
}  # fmt: skip
MB = 1_000_000
GB = 1_000_000_000
SITE = Site(threads=4, instructions=("avx2",))


def header(**other: Value) -> Header:
    return Header(3, {**SMALL, **{f"llama.{k}": v for k, v in other.items()}})


def large(kind: int = 2) -> Header:
    """Seven billion weights of Q4_0 (or of another type), 4 GB."""
    tensors = [
        Tensor("token_embd.weight", (4096, 32_000), kind, 74 * MB),
        Tensor("output.weight", (4096, 32_000), kind, 74 * MB),
    ]
    tensors += [Tensor(f"blk.{i}.ffn_up.weight", (4096, 11_008), kind, 120 * MB) for i in range(32)]
    meta = {"context_length": 4096, "block_count": 32, "embedding_length": 4096, "feed_forward_length": 11_008,
            "attention.head_count": 32, "attention.head_count_kv": 32}  # fmt: skip
    return Header(3, {"general.architecture": "llama", **{f"llama.{k}": v for k, v in meta.items()}}, tuple(tensors))


def made(of: Header, limit: int | None = None, slots: int = 8, site: Site = SITE, **settings: Any) -> Plan:
    pages = settings.pop("pages", 0)
    return plan(of, SimpleNamespace(**settings), slots, site=site, limit=limit, pages=pages)


def test_the_window_comes_from_the_model() -> None:
    assert made(header()).window == 8192
    assert made(header(context_length=2048)).window == 2048
    assert made(header(context_length=131_072)).window == 8192


def test_the_operators_window_is_taken_as_it_is() -> None:
    found = made(header(), context=1000)
    assert found.window == 1000
    assert found.cells >= 1000
    assert "trained for 8192" in found.remedy_window


@pytest.mark.parametrize("slots", [1, 8, 40])
def test_a_window_always_fits_the_cells_and_a_sequence_is_always_left(slots: int) -> None:
    found = made(header(context_length=32_768, block_count=200), slots=slots)
    assert found.cells >= found.window
    assert found.cells % 256 == 0
    assert found.sequences >= slots + 2


def test_memory_of_cells_is_known_and_bounded() -> None:
    assert made(header()).cell_bytes == 23_040
    assert made(header(), kv_type="q8_0").cell_bytes == 12_240
    big = made(header(context_length=4096, block_count=80, embedding_length=8192), slots=64)
    assert big.cells * big.cell_bytes <= max(CELL_BYTES_MAX, big.window * big.cell_bytes)


def test_with_memory_enough_nothing_is_given_up() -> None:
    found = made(large(), 64 * GB, pages=GB)
    assert (found.kv_type, found.batch, found.window, found.repack, found.pages) == ("f16", 512, 4096, True, GB)
    assert found.demand.mapped == 74 * MB
    assert "for" not in found.demand.what


def test_what_costs_least_speed_is_given_up_first() -> None:
    whole = made(large(), pages=GB).demand.total
    seen = []
    for limit in range(whole, 3 * GB, -50 * MB):
        found = made(large(), limit, pages=GB)
        if found.demand.total > limit:
            break
        state = (found.pages < GB, found.kv_type == "q8_0", found.window < 4096)
        if state not in seen:
            seen.append(state)
    assert seen[:2] == [(False, False, False), (True, False, False)]
    assert seen[-1] == (True, True, True)
    assert (True, True, False) in seen, "the window goes last"


def test_nothing_is_given_up_that_need_not_be() -> None:
    whole = made(large()).demand.total
    found = made(large(), whole - 500 * MB)
    assert found.demand.total <= whole - 500 * MB
    assert (found.batch, found.window) == (512, 4096)
    assert "batch" not in found.demand.what.partition(";")[2]


@pytest.mark.parametrize(
    "named",
    [{"kv_type": "f16"}, {"batch": 512}, {"context": 4096}, {"cache": 8192}, {"repack": True}, {"flash": False}],
)
def test_what_the_operator_named_is_never_given_up(named: dict[str, Any]) -> None:
    found = made(large(), GB, **named)
    for key, value in named.items():
        assert getattr(found, {"context": "window", "cache": "cells"}.get(key, key)) == value
    assert found.demand.total > GB


def test_where_nothing_fits_weights_stay_pages_of_the_file_and_the_plan_says_so() -> None:
    found = made(large(), 3 * GB)
    assert not found.repack
    assert found.demand.mapped == found.demand.weights
    assert found.demand.least < 3 * GB < found.demand.total
    assert "the least there is" in found.demand.what


def test_cells_in_blocks_need_heads_that_are_made_of_blocks() -> None:
    odd = header(embedding_length=450, context_length=65_536)
    assert made(odd, 1 * MB).kv_type == "f16"


def test_cells_in_blocks_without_flash_attention_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs flash attention"):
        made(large(), kv_type="q8_0", flash=False)


def test_a_measurement_counts_where_the_operator_said_nothing() -> None:
    measured = SimpleNamespace(threads=3, batch=256, kv_type="q8_0", repack=False, flash=None)
    found = plan(large(), SimpleNamespace(batch=1024), 8, site=SITE, measured=measured)
    assert (found.threads, found.batch, found.kv_type, found.repack) == (3, 1024, "q8_0", False)
    short = plan(large(), SimpleNamespace(), 8, site=SITE, measured=measured, limit=GB)
    assert short.batch == 64


@pytest.mark.parametrize(
    ("settings", "measured", "told"),
    [
        ({}, {}, "flash attention where possible, 4 threads"),
        ({"flash": True, "threads": 1}, {"threads": 3}, "flash attention on, 1 thread"),
        ({}, {"flash": False, "threads": 3}, "flash attention off, 3 threads as tuned"),
    ],
)
def test_the_plan_tells_flash_attention_and_threads_and_what_was_tuned(
    settings: dict[str, Any], measured: dict[str, Any], told: str
) -> None:
    found = plan(header(), SimpleNamespace(**settings), 8, site=SITE, measured=SimpleNamespace(**measured))
    assert found.demand.what.endswith(told)


CARD = Site(threads=4, instructions=("avx2",), cards=(Card(name="cuda:0", free=8 * GB),))


def test_a_card_with_room_takes_all_layers_and_their_memory() -> None:
    found = made(large(), site=CARD)
    assert (found.gpu_layers, found.devices) == (33, ("cuda:0",))
    assert found.demand.total < 0.1 * made(large()).demand.total
    assert "33 of 33 layers on cuda:0" in found.demand.what


def test_a_small_card_takes_the_layers_that_fit_beside_its_buffers() -> None:
    site = Site(threads=4, cards=(Card(name="cuda:0", free=3 * GB),))
    found = made(large(), site=site)
    assert 0 < found.gpu_layers < 33
    taken = made(large()).demand.total - found.demand.total
    assert taken < 3 * GB
    assert made(large(), site=Site(threads=4, cards=(Card(name="cuda:0", free=100 * MB),))).gpu_layers == 0


def test_a_card_that_shares_the_machines_memory_saves_none() -> None:
    site = Site(threads=4, instructions=("avx2",), cards=(Card(name="metal:0", free=8 * GB, shared=True),))
    assert made(large(), site=site).gpu_layers == 33
    assert made(large(), site=site).demand.total == made(large()).demand.total


def test_the_operator_chooses_devices_and_layers() -> None:
    assert made(large(), site=CARD, devices=("cpu",)).gpu_layers == 0
    assert made(large(), site=CARD, gpu_layers=5).gpu_layers == 5
    assert made(large(), site=CARD, gpu_layers=-1).gpu_layers == 33
    with pytest.raises(ConfigError, match=r"no 'cuda:1'; llama.cpp can compute on: cpu, cuda:0"):
        made(large(), site=CARD, devices=("cuda:1",))


def test_adapters_count_as_weights() -> None:
    adapter = Header(3, {}, (Tensor("a", (32,), 0, 7 * MB),))
    with_it = plan(large(), SimpleNamespace(), 8, site=SITE, adapters=[adapter])
    assert with_it.demand.weights - made(large()).demand.weights == 7 * MB
    assert with_it.demand.mapped == made(large()).demand.mapped


def grown(path: Path, limit: int | None = None, **settings: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers.llama.grown", str(path), json.dumps(settings), json.dumps(limit)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("limit", "settings"),
    [
        (None, {}),
        (None, {"context": 2048, "cache": 20_480, "batch": 64}),
        (None, {"context": 1024, "mmap": False, "kv_type": "q8_0"}),
        (250 * MB, {}),
        (160 * MB, {}),
    ],
)
def test_the_process_grows_by_what_the_plan_said(
    limit: int | None, settings: dict[str, Any], starter_model: Path
) -> None:
    found = grown(starter_model, limit, **settings)
    assert found["fits"], found["what"]
    assert found["rss"] == pytest.approx(found["total"], rel=0.15, abs=40 * MB)
    assert found["own"] == pytest.approx(found["least"], rel=0.15, abs=40 * MB)
    assert found["own"] <= found["least"] + 5 * MB


def test_repacked_weights_are_memory_of_their_own(tmp_path: Path) -> None:
    model = shapes.write(tmp_path / "m.gguf", width=2048, heads=16, forward=8192, layers=4)
    repacked, mapped = grown(model, context=2048), grown(model, context=2048, repack=False)
    if repacked["total"] - repacked["least"] == mapped["total"] - mapped["least"]:
        pytest.skip("llama.cpp repacks no Q4_K on this processor")
    for found in (repacked, mapped):
        assert found["own"] == pytest.approx(found["least"], rel=0.15, abs=40 * MB)
    assert repacked["own"] - mapped["own"] > 100 * MB
