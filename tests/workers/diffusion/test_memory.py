"""A lack of memory is told as such, by the real loader too, and never as a damaged folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools import pipelines
from workers.diffusion import memory

LIMITED = """
import resource, sys
from pathlib import Path
from tests.workers.diffusion.asked import loaded

small, large, *rooms = sys.argv[1:]
loaded(Path(small)).close()  # everything is imported, and has the threads that it wants
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
for room in map(int, rooms):
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, hard))
    try:
        loaded(Path(large)).close()
    except Exception as error:
        print(type(error).__name__, error)
    else:
        print("loaded")
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
"""
LAYERS = 200_000
FILE_BYTES = 2 * 2 * 32 * LAYERS * 4
"""Nearly all of it is feed-forward layers of the text encoder."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to …"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=str,
)
def test_each_way_to_say_that_memory_ran_out_is_a_memory_error(error: Exception) -> None:
    assert memory.ran_out(error)
    with pytest.raises(MemoryError, match=r"^/models/boat: there is not memory enough to load it now"):
        memory.check(error, "/models/boat")


def test_any_other_fault_is_left_to_whoever_asked() -> None:
    for error in (ValueError("shapes do not agree"), OSError(2, "No such file"), RuntimeError("CUDA error")):
        assert not memory.ran_out(error)
        memory.check(error, "/models/boat")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process to its limit of address space")
def test_a_sound_folder_for_which_there_is_no_memory_is_not_called_damaged(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Room for half of its file, which cannot even be mapped; for one and a half, and it cannot be copied; for all."""
    large = pipelines.make(tmp_path / "sd", text={"intermediate_size": LAYERS})
    rooms = [str(int(share * FILE_BYTES)) for share in (0.5, 1.5, 20)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED, str(tiny_pipeline), str(large), *rooms],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    unmapped, uncopied, whole = done.stdout.splitlines()
    assert unmapped.startswith(f"MemoryError {large}"), unmapped
    assert uncopied.startswith(f"MemoryError {large}: there is not memory enough to load it now"), uncopied
    assert whole == "loaded"
