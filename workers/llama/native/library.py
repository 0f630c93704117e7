"""llama.cpp's functions, loaded with our settings. Import `c` from here, so that these always come first."""

from __future__ import annotations

import os

# libgomp reads this when it is loaded, that is with llama_cpp. ggml's threads wait for each other some hundred times
# a step. By default libgomp spins 300,000 turns (milliseconds) before it lets go of the core, which the other thread,
# an event loop or NATS may be waiting for: beside a compiler on two cores that gave 5 tokens a second instead of 73.
# Much shorter is no better: where a sleeping core is slow to wake (virtual machines, deep C-states), 1,000 turns gave
# 40 tokens a second on a quiet machine instead of 100. `threads.py` keeps away from cores that others use.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

import llama_cpp.llama_cpp as c

__all__ = ["c"]
