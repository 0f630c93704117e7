"""The memory of a process that loads and frees models for months: what is freed goes back to the system at once."""

from __future__ import annotations

import ctypes
import gc
import sys

M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
LARGE_BYTES = 1_048_576
ARENAS = 2
COLLECT_S = 0.5
"""After a lane is closed, when nobody holds it any more."""


def prepare() -> None:
    """Call once, before models are loaded.

    glibc learns from freed buffers to keep larger and larger ones in its heap, up to 32 MB each, and in a heap of its
    own for every thread; after some swaps that adds up. Where there is another C library nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_ARENA_MAX, ARENAS)


def settle() -> None:
    """What has been made until now stays: collecting what a closed model leaves needs not look at it each time."""
    gc.freeze()


def collect() -> None:
    """Free what a closed model leaves: a backend is full of circles, in which whole buffers would wait for long."""
    gc.collect()
