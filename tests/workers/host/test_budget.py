"""What memory there is, read from made trees of control groups."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from schemas.config import WorkerConfig
from workers.host.budget import Memory, measure


def put(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MEMINFO = "MemTotal: 90000 kB\nMemAvailable: 80000 kB\n"


def test_the_tightest_of_the_groups_above_us_counts_and_page_cache_is_free(tmp_path: Path) -> None:
    put(tmp_path / "proc", **{"meminfo": MEMINFO, "self/cgroup": "0::/house/roost\n"})
    group = tmp_path / "sys/fs/cgroup/house"
    put(group / "roost", **{"memory.max": "max\n", "memory.current": "70\n"})
    put(group, **{"memory.max": "1000\n", "memory.current": "700\n"})
    put(group, **{"memory.stat": "anon 500\nfile 200\nactive_file 50\ninactive_file 100\n"})
    memory = measure(tmp_path)
    assert (memory.whole, memory.free) == (1000, 450)


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    assert measure(tmp_path).free > 0


def test_a_group_makes_the_machine_smaller(tmp_path: Path) -> None:
    put(tmp_path / "proc", **{"meminfo": MEMINFO, "self/cgroup": "0::/\n"})
    put(tmp_path / "sys/fs/cgroup", **{"memory.max": "50000000\n", "memory.current": "20000000\n"})
    memory = measure(tmp_path)
    assert (memory.whole, memory.free) == (50_000_000, 30_000_000)
    assert memory.budget(WorkerConfig(memory="50%")).whole == 25_000_000
    assert memory.budget(WorkerConfig(memory="40 MB")).whole == 40_000_000


def test_limits_of_the_process_are_told() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "from workers.host.budget import measure; m = measure(); print(m.address, m.private)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert 0 < int(told[0]) < 2 << 30
    assert 0 < int(told[1]) < 1 << 30


def test_no_limit_is_none() -> None:
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        assert measure().address is None


def test_a_share_is_one_of_the_whole() -> None:
    assert Memory(whole=1000, free=10).share("25%") == 250
