"""A process of its own that compiles grammars of senders first: it may be killed, the worker may not.

A few kilobytes of grammar can keep llguidance busy for minutes or exhaust its stack, which ends the process. This
file is both sides: run as a program, it answers each line of JSON (a grammar) with a line of JSON (an error, or "").
It imports nothing of Roost, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import Final

COMPILE_S: Final = 1.0
"""Schemas of 60 kilobytes take a fifth of this."""
START_S: Final = 5.0
STACK_BYTES: Final = 262_144 if sys.platform == "darwin" else 4_194_304
"""Half of what a thread of the worker has, so that what passes here passes there."""
MEMORY_BYTES: Final = 1 << 30
ERROR_BYTES_MAX: Final = 65_536


class Trial:
    """The caller's side. Use from one thread."""

    def __init__(self, *, compile_s: float = COMPILE_S) -> None:
        self._compile_s = compile_s
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to start the process, without waiting for it."""
        if self._child is None:
            pipe, silent = subprocess.PIPE, subprocess.DEVNULL
            self._child = subprocess.Popen([sys.executable, "-I", __file__], stdin=pipe, stdout=pipe, stderr=silent)

    def error(self, grammar: str) -> str:
        """What is wrong with a grammar; empty when it compiles."""
        fresh = self._child is None
        self.start()
        try:
            if fresh:
                self._ask("", START_S)
            return self._ask(grammar, self._compile_s)
        except TimeoutError:
            self.close()
            return f"it takes longer than {self._compile_s:g} s to compile"
        except (OSError, ValueError):
            self.close()
            return "it is too deep or too large to compile"

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with contextlib.suppress(OSError):
                child.communicate()

    def _ask(self, grammar: str, limit_s: float) -> str:
        child, until = self._child, time.monotonic() + limit_s
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(grammar).encode() + b"\n")
        child.stdin.flush()
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([child.stdout], [], [], max(until - time.monotonic(), 0))[0]:
                raise TimeoutError
            part = os.read(child.stdout.fileno(), ERROR_BYTES_MAX)
            line += part
            if not part:
                raise OSError("it ended")
        return str(json.loads(line))


def _serve() -> None:
    from llguidance import LLMatcher

    for line in sys.stdin:
        grammar = json.loads(line)
        error = LLMatcher.validate_grammar(grammar) if grammar else ""
        sys.stdout.write(json.dumps(error) + "\n")
        sys.stdout.flush()


def _bounded() -> None:
    """Give the process little memory, and its thread a small stack."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()


if __name__ == "__main__":
    _bounded()
