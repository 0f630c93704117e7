"""Seconds that llama.cpp takes to load a file, in a process of its own; a child of `seven_b`.

Called as `python -m benchmarks.load_time MODEL repacked|plain`.
"""

from __future__ import annotations

import os
import sys
import time

from workers.llama.native import native  # noqa: F401  silences llama.cpp and sets what we run with
from workers.llama.native.library import c

if __name__ == "__main__":
    params = c.llama_model_default_params()
    params.use_extra_bufts = sys.argv[2] == "repacked"
    begun = time.perf_counter()
    model = c.llama_model_load_from_file(os.fsencode(sys.argv[1]), params)
    if not model:
        raise SystemExit("llama.cpp cannot load it")
    print(time.perf_counter() - begun)
    c.llama_model_free(model)
