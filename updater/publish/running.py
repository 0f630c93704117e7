"""What the command line hands to its commands: the way to the Roost of this machine."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from bus.contract import Bus


@runtime_checkable
class Running(Protocol):
    """`ops.commands.Place` as this package sees it."""

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        """Raises `ConfigError` when none runs."""
        ...
