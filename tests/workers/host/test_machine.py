"""What a machine has, read from made folders, and from this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workers.host import cpu, gpu, limits
from workers.host.machine import look, of_mac

GB = 1 << 30


def files(root: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cores(sys_root: Path, pairs: list[tuple[int, int]], online: str) -> None:
    """Logical processors with (package, core) each."""
    files(sys_root, {"devices/system/cpu/online": f"{online}\n"})
    for n, (package, core) in enumerate(pairs):
        files(
            sys_root / f"devices/system/cpu/cpu{n}/topology",
            {"physical_package_id": f"{package}\n", "core_id": f"{core}\n"},
        )


def read(tmp_path: Path, allowed: set[int], quota: float = 0.0, machine: str = "x86_64") -> cpu.Cpu:
    return cpu.read(tmp_path / "proc", tmp_path / "sys", allowed, quota, machine)


def test_two_threads_of_a_core_are_one_core(tmp_path: Path) -> None:
    cores(tmp_path / "sys", [(0, 0), (0, 1), (0, 0), (0, 1)], "0-3")
    files(tmp_path, {"proc/cpuinfo": "model name\t: Test 9000\nflags\t\t: sse avx2 avx512f avx512_vnni amx_int8\n"})
    found = read(tmp_path, {0, 1, 2, 3})
    assert (found.model, found.logical, found.physical, found.threads) == ("Test 9000", 4, 2, 2)
    assert found.features == ("AVX2", "AVX512", "AVX512_VNNI", "AMX_INT8")
    assert read(tmp_path, {1, 3}).threads == 1


def test_a_quota_of_time_bounds_the_threads(tmp_path: Path) -> None:
    cores(tmp_path / "sys", [(0, n) for n in range(8)], "0-7")
    assert read(tmp_path, set(range(8)), 2.5).threads == 3
    assert read(tmp_path, set(range(8)), 0.2).threads == 1


def test_threads_stay_on_one_node_and_on_fast_cores(tmp_path: Path) -> None:
    cores(tmp_path / "sys", [(n // 4, n % 4) for n in range(8)], "0-7")
    nodes = {"node0/cpulist": "0-3", "node0/meminfo": "Node 0 MemTotal:  1024 kB", "node1/cpulist": "4-7"}
    files(tmp_path / "sys/devices/system/node", nodes)
    found = read(tmp_path, set(range(8)))
    assert (len(found.nodes), found.nodes[0].memory_bytes, found.threads) == (2, 1024 * 1024, 4)
    files(tmp_path, {"sys/devices/cpu_atom/cpus": "2-3,6-7"})
    mixed = read(tmp_path, set(range(8)))
    assert (mixed.performance, mixed.efficiency, mixed.threads) == (4, 4, 2)
    assert read(tmp_path, {2, 3}).threads == 2


def test_arm_tells_its_small_cores_by_their_capacity(tmp_path: Path) -> None:
    cores(tmp_path / "sys", [(0, n) for n in range(4)], "0-3")
    for n, capacity in enumerate((1024, 1024, 400, 400)):
        files(tmp_path, {f"sys/devices/system/cpu/cpu{n}/cpu_capacity": str(capacity)})
    files(tmp_path, {"proc/cpuinfo": "Features\t: fp asimd asimddp i8mm sve\n"})
    found = read(tmp_path, {0, 1, 2, 3}, machine="aarch64")
    assert (found.threads, found.efficiency) == (2, 2)
    assert found.features == ("NEON", "DOTPROD", "MATMUL_INT8", "SVE")


def test_a_system_that_tells_nothing_has_one_core_for_each_allowed_processor(tmp_path: Path) -> None:
    found = read(tmp_path, {0, 1, 2})
    assert (found.model, found.threads, found.features) == ("", 3, ())


MEMINFO = f"MemTotal: {64 * GB // 1024} kB\nMemAvailable: {50 * GB // 1024} kB\nSwapTotal: 1024 kB\n"


def test_the_tightest_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    files(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/system.slice/roost.service\n",
            "sys/fs/cgroup/system.slice/memory.max": str(8 * GB),
            "sys/fs/cgroup/system.slice/memory.current": str(7 * GB),
            "sys/fs/cgroup/system.slice/memory.stat": f"anon 5\ninactive_file {2 * GB}\n",
            "sys/fs/cgroup/system.slice/roost.service/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/roost.service/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/system.slice/cpu.max": "max 100000\n",
        },
    )
    found = limits.memory(tmp_path / "proc", tmp_path / "sys")
    assert found is not None
    assert (found.total, found.whole, found.free) == (64 * GB, 8 * GB, 3 * GB)
    assert found.limits[0].name == "cgroup system.slice"
    assert limits.quota(tmp_path / "proc", tmp_path / "sys") == 1.5


def test_control_groups_of_version_1_are_read_too(tmp_path: Path) -> None:
    files(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(3 * GB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GB),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    found = limits.memory(tmp_path / "proc", tmp_path / "sys")
    assert found is not None
    assert (found.whole, found.free) == (3 * GB, 2 * GB)
    assert limits.quota(tmp_path / "proc", tmp_path / "sys") == 2.0


@pytest.mark.parametrize("said", [str((1 << 63) - 4096), "max", "nonsense", ""])
def test_no_limit_is_no_limit(tmp_path: Path, said: str) -> None:
    files(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "5:memory:/\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": said,
            "sys/fs/cgroup/memory.max": said,
        },
    )
    found = limits.memory(tmp_path / "proc", tmp_path / "sys")
    assert found is not None
    assert found.limits == ()
    assert found.free == 50 * GB


def test_limits_of_the_process_itself_count(tmp_path: Path) -> None:
    files(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/limits": f"Limit  Soft Limit  Hard Limit  Units\nMax address space  {4 * GB}  unlimited  bytes\n"
            "Max data size             unlimited            unlimited            bytes\n",
            "proc/self/status": "VmSize:  1048576 kB\nVmData:  10 kB\n",
        },
    )
    found = limits.memory(tmp_path / "proc", tmp_path / "sys")
    assert found is not None
    assert [limit.name for limit in found.limits] == ["RLIMIT_AS"]
    assert (found.whole, found.free) == (4 * GB, 3 * GB)


def test_cards_are_found_on_the_bus_with_their_drivers(tmp_path: Path) -> None:
    files(
        tmp_path,
        {
            "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de",
            "sys/bus/pci/devices/0000:01:00.0/class": "0x030000",
            "sys/bus/pci/devices/0000:02:00.0/vendor": "0x1002",
            "sys/bus/pci/devices/0000:02:00.0/class": "0x038000",
            "sys/bus/pci/devices/0000:02:00.0/mem_info_vram_total": str(16 * GB),
            "sys/bus/pci/devices/0000:03:00.0/vendor": "0x10de",
            "sys/bus/pci/devices/0000:03:00.0/class": "0x040300",
            "sys/bus/pci/devices/0000:04:00.0/vendor": "0x1af4",
            "sys/bus/pci/devices/0000:04:00.0/class": "0x030000",
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA Test 5000\nIRQ: 1\n",
            "dev/nvidia0": "",
        },
    )
    nvidia, amd = gpu.read(tmp_path / "proc", tmp_path / "sys", tmp_path / "dev")
    assert (nvidia.vendor, nvidia.name, nvidia.driver) == ("nvidia", "NVIDIA Test 5000", True)
    assert (amd.vendor, amd.memory_bytes, amd.driver) == ("amd", 16 * GB, False)


def test_a_container_without_a_bus_shows_the_card_by_its_device(tmp_path: Path) -> None:
    files(tmp_path, {"dev/nvidia0": ""})
    assert [card.vendor for card in gpu.read(tmp_path, tmp_path, tmp_path / "dev")] == ["nvidia"]
    assert gpu.read(tmp_path, tmp_path, tmp_path / "none") == ()


def test_a_mac_computes_on_its_fast_cores() -> None:
    told = (
        "hw.memsize: 17179869184\nhw.physicalcpu: 8\nhw.logicalcpu: 8\nhw.perflevel0.physicalcpu: 4\n"
        "hw.perflevel1.physicalcpu: 4\nhw.optional.arm64: 1\nhw.optional.arm.FEAT_DotProd: 1\n"
        "machdep.cpu.brand_string: Apple M2\n"
    )
    found = of_mac(lambda: told)
    assert (found.cpu.model, found.cpu.threads, found.memory.total) == ("Apple M2", 4, 16 * GB)
    assert found.cpu.features == ("NEON", "DOTPROD")
    assert found.gpus[0].vendor == "apple"
    assert of_mac(lambda: "").cpu.threads == 1


def test_this_machine_is_printed_as_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workers.host.machine", "--json"], capture_output=True, timeout=60, check=True
    )
    found = json.loads(done.stdout)
    assert found["threads"] >= 1
    assert found["memory"]["whole"] == look().memory.whole
    assert found["cpu"]["logical"] >= found["cpu"]["physical"] >= 1
