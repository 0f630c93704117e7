"""Loads a model by a plan as the backend does, in a process of its own, and prints how much memory that took.

python -m tests.workers.llama.grown FILE '{"context": 2048}' LIMIT
"""

from __future__ import annotations

import json
import re
import sys
from array import array
from pathlib import Path
from types import SimpleNamespace

from workers.llama.engine.machine import Row
from workers.llama.fitting import file
from workers.llama.fitting.plan import plan
from workers.llama.native.native import ContextSpec, NativeMachine, NativeModel, build


def resident() -> tuple[int, int]:
    """Bytes in memory, and of them those that are no pages of a file."""
    told = Path("/proc/self/smaps_rollup").read_text()
    rss, anonymous = (re.search(rf"^{name}:\s+(\d+) kB", told, re.MULTILINE) for name in ("Rss", "Anonymous"))
    assert rss is not None
    assert anonymous is not None
    return int(rss[1]) * 1024, int(anonymous[1]) * 1024


def main() -> None:
    path = file.model_file(Path(sys.argv[1]))
    settings, limit = json.loads(sys.argv[2]), json.loads(sys.argv[3])
    made = plan(file.header(path), SimpleNamespace(**settings), 8, site=build.site(), limit=limit)
    before = resident()
    model = NativeModel(path, mmap=made.mmap, repack=made.repack)
    spec = ContextSpec(
        cells=made.cells, sequences=made.sequences, batch_max=made.batch, threads=1, kv_type=made.kv_type
    )
    machine = NativeMachine(model, spec)
    machine.compute([Row(0, 0, array("i", [5] * made.batch), 1)])
    after = resident()
    demand = made.demand
    grown = {"total": demand.total, "least": demand.least, "rss": after[0] - before[0], "own": after[1] - before[1]}
    print(json.dumps({**grown, "what": demand.what, "limit": limit, "fits": limit is None or demand.total <= limit}))
    machine.close()
    model.close()


if __name__ == "__main__":
    main()
