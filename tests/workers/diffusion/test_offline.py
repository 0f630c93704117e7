"""No network, ever; and nothing slow before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

DRAW = """
import sys
from pathlib import Path

reached = []
BLOCKED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "subprocess.Popen")

def watch(event, args):
    if event in BLOCKED:
        reached.append((event, str(args)[:200]))
        raise OSError(f"{event} is blocked")

sys.addaudithook(watch)
from tests.workers.diffusion.asked import ask, loaded

for name in sys.argv[1:]:
    backend = loaded(Path(name))
    finished = ask(backend, steps=1)
    assert len(finished.pictures) == 1, finished.error
    backend.close()
assert not reached, reached
print("drawn")
"""
LOOK = """
import sys
from workers.diffusion import DiffusionBackend, DiffusionSettings

DiffusionBackend(DiffusionSettings())
heavy = {"torch", "diffusers", "transformers", "PIL", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_loads_and_draws_without_reaching_for_anything(tiny_pipeline: Path) -> None:
    assert run(DRAW, str(tiny_pipeline)) == "drawn\n"


def test_making_a_backend_imports_nothing_heavy() -> None:
    run(LOOK)
