"""What all slots of a site have in common."""

from __future__ import annotations

import asyncio

from schemas.update import UpdatesConfig
from updater.check import Check
from updater.report import Report
from updater.source import Source
from updater.workers import Workers


class Shared:
    """One for each process."""

    def __init__(self, config: UpdatesConfig, source: Source, workers: Workers, report: Report) -> None:
        self.config = config
        self.source = source
        self.workers = workers
        self.report = report
        self.turn = asyncio.Lock()
        """One swap at a time, from loading to the switch; a way back waits for nobody."""
        self.check: Check | None = None
