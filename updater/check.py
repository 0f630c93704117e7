"""Asks the source what it has: on a schedule, when somebody says so, and when a release was announced.

What always holds: one check at a time, and whoever asks during one gets its result; a source that is away or says what
cannot be trusted changes nothing but the reason that rows show; waits are measured by a clock that does not jump.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from bus.contract import Bus, Message
from schemas.errors import ConfigError, Disconnected, RoostError, Untrusted
from schemas.update import UpdatesConfig
from updater.source import Missing
from updater.trusted import Catalogue, Trusted

log = logging.getLogger("roost.updater")

AGAIN_S, AGAIN_S_MAX = 5.0, 300.0
HINT_S = 2.0
"""Announcements may come in hundreds; they are worth one check in this time."""
Learned = Callable[[str, tuple[str, ...] | None, str], None]
"""(slot, versions, reason): what the source has of it, and why that is nothing; None where it could not be asked."""


class Check:
    """What is known of the source."""

    def __init__(
        self, bus: Bus, config: UpdatesConfig, trusted: Trusted, names: Callable[[], Iterable[str]], learned: Learned
    ) -> None:
        self._bus = bus
        self._config = config
        self._trusted = trusted
        self._names = names
        self._learned = learned
        self._wanted = asyncio.Event()
        self._running: asyncio.Future[None] | None = None
        self._alerted = ""
        self.catalogue: Catalogue | None = None
        self.reason = "the source was not asked yet"
        """Why the last check came to nothing; empty after a good one."""

    async def hinted(self, message: Message) -> None:
        """Something was published, it is said; what is in the message counts for nothing."""
        self._wanted.set()

    def soon(self) -> None:
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        wait_s, failed_s = 0.0, AGAIN_S
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()
                await asyncio.sleep(HINT_S if wait_s else 0)
            except TimeoutError:
                pass
            self._wanted.clear()
            await self.now()
            wait_s = min(failed_s, self._config.check_every_s) if self.reason else self._config.check_every_s
            failed_s = min(2 * failed_s, AGAIN_S_MAX) if self.reason else AGAIN_S

    async def now(self) -> None:
        """Ask, or wait for whoever asks already. Never raises for what the source does."""
        if self._running is not None:
            await asyncio.shield(self._running)
            return
        self._running = asyncio.get_running_loop().create_future()
        try:
            await self._ask()
        finally:
            self._running.set_result(None)
            self._running = None

    async def _ask(self) -> None:
        began = time.monotonic()
        try:
            catalogue = await self._trusted.refresh()
            found = {name: await _versions(catalogue, name) for name in self._names()}
        except Untrusted as error:
            self.reason = f"the source cannot be trusted: {error.message}"
            await self._alert("updates_untrusted")
        except ConfigError as error:
            self.reason = error.message
            await self._alert("updates_config")
        except RoostError as error:
            self.reason = f"the source cannot be asked: {error.message}"
            log.warning("%s", self.reason)
        else:
            self.catalogue, self.reason, self._alerted = catalogue, "", ""
            log.info("the source was asked in %.2f s", time.monotonic() - began)
            for name, versions in found.items():
                self._learned(name, versions, "" if versions else f"the source has no model {name!r}")
            return
        for name in self._names():
            self._learned(name, None, self.reason)

    async def _alert(self, code: str) -> None:
        """Once for each reason, not at every check."""
        if self._alerted != self.reason:
            self._alerted = self.reason
            await self._bus.alert(code, self.reason, part="updater")

    def trusted_now(self) -> Catalogue:
        """What was verified last; raises `Disconnected` while there is nothing."""
        if self.catalogue is None:
            raise Disconnected(self.reason)
        return self.catalogue


async def _versions(catalogue: Catalogue, name: str) -> tuple[str, ...]:
    try:
        return await catalogue.versions(name)
    except Missing:
        return ()
