"""python-tuf's fetcher on a `Source`: called on a thread, it reads on the event loop and waits.

What always holds: a read ends within `wait_s`, or at once after `stop`; nothing longer than `METADATA_BYTES_MAX` is
read, whatever signed metadata says. Addresses are paths in the repository. Must never be called on the loop itself.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import IO

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from schemas.errors import Disconnected
from updater.source.contract import Missing, Source

METADATA_BYTES_MAX = 16_777_216


class Bridge(FetcherInterface):
    """One loop's side of it. `fetched` has what was read since `begin`, by path; `last` is the path of the last."""

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop, wait_s: float) -> None:
        self.fetched: dict[str, bytes] = {}
        self.last = ""
        self.where = source.where
        self._source = source
        self._loop = loop
        self._wait_s = wait_s
        self._guard = threading.Lock()
        self._stopped = False
        self._reading: Future[bytes] | None = None

    @property
    def stopped(self) -> bool:
        return self._stopped

    def begin(self) -> None:
        with self._guard:
            self._stopped, self.last = False, ""
            self.fetched.clear()

    def stop(self) -> None:
        """Whoever waits for a read, or begins one, fails with `Disconnected`."""
        with self._guard:
            self._stopped = True
            if self._reading is not None:
                self._reading.cancel()

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter([self._read(url, METADATA_BYTES_MAX)])

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        yield io.BytesIO(self._read(url, max_length))

    def _read(self, path: str, limit: int) -> bytes:
        with self._guard:
            if self._stopped:
                raise Disconnected(f"{self.where}: stopped before {path} was read", code="stopped")
            reading = self._source.read(path, min(limit, METADATA_BYTES_MAX))
            self._reading = asyncio.run_coroutine_threadsafe(reading, self._loop)
        self.last = path
        try:
            self.fetched[path] = self._reading.result(self._wait_s)
        except Missing as error:
            raise DownloadHTTPError(error.message, 404) from error
        except CancelledError:
            raise Disconnected(f"{self.where}: stopped while {path} was read", code="stopped") from None
        except TimeoutError:
            self._reading.cancel()
            raise Disconnected(f"{self.where}: no {path} within {self._wait_s:g} s", code="slow") from None
        finally:
            self._reading = None
        return self.fetched[path]
