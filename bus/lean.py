"""nats-py without aiohttp: import this before `nats`.

nats-py imports aiohttp, when there is one, for WebSocket transports that Roost does not use. That is 13 MB in every
process and 0.4 s of every command; a process that serves HTTP imports aiohttp itself, whenever it likes.
"""

from __future__ import annotations

import sys

if "nats" not in sys.modules and "aiohttp" not in sys.modules:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # makes the import fail, which nats-py expects
    try:
        import nats  # noqa: F401
    finally:
        del sys.modules["aiohttp"]
