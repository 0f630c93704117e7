"""What all models of one worker share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from bus.contract import Bus, Sessions
from workers.host.load import Scratch
from workers.host.report import Report
from workers.host.room import Room
from workers.host.trials import Trials


class Shared(Struct, frozen=True):
    """See the module. `tasks` outlives the models."""

    bus: Bus
    sessions: Sessions
    worker: str
    room: Room
    scratch: Scratch
    report: Report
    trials: Trials
    tasks: asyncio.TaskGroup
    at_work: Callable[[], object] = bool
    """Called before each job."""
    level: Callable[[], float] = float
    """The share of the machine that a lane may use now (`Backend.ease`)."""
