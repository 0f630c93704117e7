"""A supervisor with one tiny part, as a program: `tiny.py up CONFIG DATA` and, started by it, `tiny.py part`.

The part does what the file MODE in the data folder says: `serve` (default), `refuse` (exits 78), `stubborn` (ignores
SIGTERM), `crash` (ends before it is ready).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def up() -> int:
    from ops.up import main
    from schemas.errors import RoostError

    try:
        return main(Path(sys.argv[2]), Path(sys.argv[3]), commands={"tiny": [sys.executable, __file__, "part"]})
    except RoostError as error:
        print(f"roost: {error.message}", file=sys.stderr)
        return 78


def part() -> int:
    mode_file = Path(os.environ["ROOST_DATA"]) / "MODE"
    mode = mode_file.read_text() if mode_file.exists() else "serve"
    ready = int(os.environ["ROOST_READY_FD"])
    if mode == "refuse":
        os.write(ready, b'{"state": "failed", "reason": "models[0]: no such thing"}\n')
        return 78
    if mode == "crash":
        print("Traceback: something broke", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else lambda *_: sys.exit(0))
    print("2026-01-01 00:00:00,000 WARNING tiny: a warning for the operator", file=sys.stderr, flush=True)
    os.write(ready, b'{"state": "ready", "http": "http://127.0.0.1:1"}\n')
    while True:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(up() if sys.argv[1] == "up" else part())
