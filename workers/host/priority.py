"""Work that may wait for all other work: the priority of one thread, or of a whole process."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("roost.priority")

_inside = 0

LOW = 10
"""Nice value: a tenth of a core that a thread of the usual priority wants, and all of one that nobody wants."""
BRISK_S = 0.0005
"""How long a thread may keep Python's interpreter from others that want it; usually it is longer."""
USUAL_S = sys.getswitchinterval()
CAN_LOWER = sys.platform == "linux"
"""Elsewhere a thread has no priority of its own."""


@contextmanager
def brisk() -> Iterator[None]:
    """Meanwhile a thread that runs much Python gives way to others soon.

    A step of a model calls into the library a dozen times, and each call may have to wait for the interpreter.
    """
    global _inside
    _inside += 1
    sys.setswitchinterval(BRISK_S)
    try:
        yield
    finally:
        _inside -= 1
        if not _inside:
            sys.setswitchinterval(USUAL_S)


def lower() -> None:
    """Lower the calling thread for good; threads that it starts inherit that.

    Where the system knows no priority of a thread, it keeps its own.
    """
    if not CAN_LOWER:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW)
    except OSError as error:
        log.debug("this thread keeps its priority: %s", error)
