"""What `roost doctor` says of cores, memory limits, cards, llama.cpp and models' plans."""

from __future__ import annotations

import shlex

from msgspec.structs import replace

from ops import fitness
from ops.inference import Silent, _one, told
from schemas.machine import Build, Cpu, Device, Gpu, Limit, Machine, Memory
from schemas.machine import ModelDemand as Demand

GB = 1_000_000_000
HERE = Machine(
    cpu=Cpu(
        features=("AVX2", "AVX512_VNNI"),
        logical=16,
        physical=8,
        allowed=16,
        cores=tuple((n,) for n in range(8)),
        fast=8,
    ),
    memory=Memory(total=32 * GB, available=20 * GB),
)
CPU = Device(name="cpu", own_name="CPU", kind="cpu", description="Test 9000", total=32 * GB, free=20 * GB)
BUILT = Build(version="1", instructions=("avx2", "avx512_vnni"), repack=True, backends=("CPU",), devices=(CPU,))
NVIDIA = Gpu(vendor="nvidia", name="NVIDIA Test 5000", driver=True)


def test_cores_say_how_many_threads_compute_and_why() -> None:
    shared = replace(HERE, cpu=replace(HERE.cpu, efficiency=4, performance=4, quota=2.5, allowed=6))
    assert fitness.machine(HERE)[0].found == "8 threads (8 cores, 16 logical)"
    row = fitness.machine(shared)[0]
    for part in ("3 threads", "4 fast and 4 efficient", "6 allowed by affinity", "2.5 by a cgroup's quota"):
        assert part in row.found


def test_limits_of_memory_name_who_set_them() -> None:
    limited = replace(HERE.memory, limits=(Limit("cgroup roost", 3 * GB, GB),))
    assert fitness.memory(limited).found == "2.0 GB free of 3.0 GB; cgroup roost 3.0 GB (1.0 GB used)"
    assert "no limit" in fitness.memory(HERE.memory).found


def test_a_card_that_llama_cpp_cannot_use_comes_with_the_command() -> None:
    rows = {row.name: row for row in fitness.llama(BUILT, replace(HERE, gpus=(NVIDIA,)))}
    row = rows["graphics"]
    assert row.verdict == "warn"
    assert "NVIDIA Test 5000: there is a card, but llama.cpp was built without CUDA" in row.found
    command = shlex.split(row.advice[row.advice.index("/") :])
    assert command[1:] == ["-m", "ops.compile", "--cmake-args=-DLLAVA_BUILD=OFF -DGGML_CUDA=on"]
    without = replace(HERE, gpus=(replace(NVIDIA, driver=False),))
    assert {r.name: r for r in fitness.llama(BUILT, without)}["graphics"].advice.startswith("install the card's driver")


def test_a_card_that_is_used_needs_no_advice() -> None:
    card = Device(name="cuda:0", own_name="CUDA0", kind="gpu", description="Test 5000", total=8 * GB, free=7 * GB)
    built = replace(BUILT, backends=("CPU", "CUDA"), devices=(CPU, card))
    rows = {row.name: row for row in fitness.llama(built, replace(HERE, gpus=(NVIDIA,)))}
    assert rows["graphics"].verdict == "ok"
    assert "cuda:0 (Test 5000, 7.0 GB free)" in rows["llama.cpp devices"].found
    hidden = replace(built, devices=(CPU,))
    assert {r.name: r for r in fitness.llama(hidden, replace(HERE, gpus=(NVIDIA,)))}["graphics"].verdict == "warn"


def test_other_makers_cards_get_their_own_command() -> None:
    for vendor, flag in (("amd", "GGML_HIP"), ("intel", "GGML_VULKAN"), ("apple", "GGML_METAL")):
        card = Gpu(vendor=vendor, name="card", driver=True)
        row = {r.name: r for r in fitness.llama(BUILT, replace(HERE, gpus=(card,)))}["graphics"]
        assert f"-D{flag}=on" in row.advice


def test_a_build_for_another_processor_is_warned_of() -> None:
    rows = {row.name: row for row in fitness.llama(replace(BUILT, instructions=("avx2",)), HERE)}
    assert "without AVX512_VNNI" in rows["llama.cpp build"].found
    assert "ops.compile" in rows["llama.cpp build"].advice
    assert "llama.cpp build" not in {row.name for row in fitness.llama(BUILT, HERE)}


def test_a_plan_tells_its_parts_and_whether_it_fits() -> None:
    demand = Demand(
        name="m", type="llama", limit=8 * GB, weights=4 * GB, mapped=GB, state=2 * GB, compute=GB, total=7 * GB,
        least=6 * GB, what="context 8192",
    )  # fmt: skip
    fits, paged, large = fitness.plans(
        [demand, replace(demand, limit=6 * GB, mapped=4 * GB), replace(demand, limit=5 * GB)]
    )
    assert fits.verdict == "ok"
    assert "weights 4.0 GB (1.0 GB mapped) + context 2.0 GB + compute 1.0 GB = 7.0 GB of 8.0 GB" in fits.found
    assert "weights 4.0 GB mapped +" in paged.found
    assert "overcommit" in paged.advice
    assert "does not fit" in large.advice
    assert fitness.plans([Demand(name="e", type="echo")]) == []
    assert fitness.plans([Demand(name="e", type="x", error="broken")])[0].advice == "broken"


def test_the_version_of_llama_cpp_and_its_commit_are_told() -> None:
    rows = {row.name: row.found for row in fitness.llama(replace(BUILT, version="0.3.36", commit="0c1e570"), HERE)}
    assert rows["llama.cpp version"] == "llama-cpp-python 0.3.36, ggml commit 0c1e570"
    rows = {row.name: row.found for row in fitness.llama(replace(BUILT, version=""), HERE)}
    assert rows["llama.cpp version"] == "of no package, ggml commit not told"


def test_who_does_not_answer_is_a_warning_not_a_failure() -> None:
    silent = Silent("`python -m x` ended with 1: boom")
    rows = [*fitness.machine(silent), *fitness.llama(silent, silent), *fitness.plans(silent)]
    assert {row.verdict for row in rows} == {"warn"}
    assert all("boom" in row.advice for row in rows)


def test_a_program_that_fails_or_prints_something_else_has_told_why() -> None:
    missing = told(lambda: _one("no_such_module_at_all", Machine))
    assert isinstance(missing, Silent)
    assert "no_such_module_at_all" in str(missing)
    other = told(lambda: _one("this", Machine))
    assert isinstance(other, Silent)
    assert "something else" in str(other)
