"""Idle conversations outside the context: in RAM, then sealed on disk; they come back instead of being recomputed.

It knows nothing of llama.cpp: a state is bytes. What always holds: an owner finds only what is its own; RAM and disk
stay within their budgets; the step loop never waits for the disk, it asks again; a page that cannot be read or was
altered is gone, and costs a recomputation. The key lives as long as the process: what a crash leaves on disk is noise.
"""

from __future__ import annotations

import logging
import secrets
import time
from array import array
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from hashlib import blake2b
from pathlib import Path

from msgspec import Struct

from bus.crypto import Envelope
from schemas.errors import Untrusted
from workers.llama.engine.cache import common
from workers.llama.engine.machine import State

log = logging.getLogger(__name__)

BLOCK = 64
"""Tokens between the marks by which a page is found; a page shorter than this is not worth keeping."""
PAGES_MAX = 4_096
"""Pages known; each costs its tokens in memory beside its state."""
CHUNK_BYTES = 4 * 1024 * 1024
"""Sealed at once: short enough that other threads of the process go on meanwhile."""
AGE_LEAST_S = 1.0

Mark = tuple[str, str, int, bytes]


class Key(Struct, frozen=True):
    """Whose state it is, computed with which adapter."""

    owner: str
    adapter: str = ""


class Page:
    """One saved sequence: its tokens, whose they are (`spans`), and where its state lies."""

    __slots__ = ("cost", "file", "key", "moving", "size", "spans", "state", "tokens", "used")

    def __init__(self, key: Key, tokens: array[int], spans: list[tuple[int, str]], state: State, used: float) -> None:
        self.key = key
        self.tokens = tokens
        self.spans = spans
        self.state: State | None = state
        self.size = len(state)
        self.cost = float(len(tokens))
        self.used = used
        self.file: Path | None = None
        self.moving: Future[State | None] | None = None

    def value(self, now: float) -> float:
        """What a byte of it saves: tokens to recompute, less the longer nobody came back for them."""
        return self.cost / (max(now - self.used, AGE_LEAST_S) * max(self.size, 1))


class Pages:
    """All pages of one model. From one thread, but for its own that reads and writes files."""

    def __init__(
        self, ram_max: int, disk_max: int, folder: Path | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Budgets in bytes. Without `folder` nothing goes to disk."""
        self._ram_max = ram_max
        self._disk_max = disk_max if folder is not None else 0
        self._folder = folder
        self._clock = clock
        self._envelope = Envelope(secrets.token_bytes(32))
        self._pages: list[Page] = []
        self._marks: dict[Mark, Page] = {}
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._count = 0
        self._token_bytes = 0.0
        """Of the newest state: larger ones than the budget are not even saved."""

    @property
    def ram_bytes(self) -> int:
        return sum(p.size for p in self._pages if p.state is not None)

    @property
    def disk_bytes(self) -> int:
        return sum(p.size for p in self._pages if p.file is not None)

    def __len__(self) -> int:
        return len(self._pages)

    def wants(self, tokens: int) -> bool:
        """Is a sequence of so many tokens worth saving?"""
        return tokens >= BLOCK and self._ram_max > 0 and tokens * self._token_bytes <= self._ram_max

    def put(self, key: Key, tokens: array[int], spans: list[tuple[int, str]], state: State) -> bool:
        """Keep a state; what it continues of the same owner is replaced, and the least valuable make room.

        False where it is not kept, for it is too short or too large.
        """
        self._settle()
        self._token_bytes = len(state) / max(len(tokens), 1)
        if not state or not self.wants(len(tokens)):
            return False
        for old in self._on_path(key, tokens):
            if len(old.tokens) <= len(tokens) and common(old.tokens, tokens) == len(old.tokens):
                self._forget(old)
        page = Page(key, tokens[:], spans, state, self._clock())
        self._pages.append(page)
        for mark in _marks(key, tokens):
            self._marks[mark] = page
        self._make_room(page)
        return True

    def find(self, key: Key, tokens: array[int]) -> tuple[Page, int] | None:
        """The page that holds the longest beginning of `tokens`, and how much of it."""
        best, length = None, 0
        for page in self._on_path(key, tokens):
            if (n := common(page.tokens, tokens)) > length:
                best, length = page, n
        return (best, length) if best is not None else None

    def state(self, page: Page) -> State | None:
        """The state, or None while it is read from disk (ask again) and when it is lost (`find` has it no more)."""
        self._settle()
        page.used = self._clock()
        if page.state is None and page.moving is None and page.file is not None:
            page.moving = self._disk.submit(self._read, page.file, page.size)
        return page.state

    def wait(self, limit_s: float) -> None:
        """Until some reading or writing has ended."""
        moving = [p.moving for p in self._pages if p.moving is not None]
        if moving:
            wait(moving, timeout=limit_s, return_when=FIRST_COMPLETED)

    def close(self) -> None:
        """Forget everything; files go too."""
        self._disk.shutdown(wait=True, cancel_futures=True)
        for page in list(self._pages):
            self._forget(page)

    # -- which pages

    def _on_path(self, key: Key, tokens: array[int]) -> list[Page]:
        """Pages of the owner that begin like `tokens`, by the longest common mark."""
        found = []
        for mark in _marks(key, tokens)[::-1]:
            page = self._marks.get(mark)
            if page is not None and page not in found:
                found.append(page)
        return found

    def _make_room(self, fresh: Page) -> None:
        """Into the budgets: from RAM to disk, and from disk to nowhere, the least valuable first."""
        now = self._clock()
        while len(self._pages) > PAGES_MAX:
            self._forget(min(self._pages, key=lambda p: p.value(now)))
        while self.ram_bytes > self._ram_max:
            there = [p for p in self._pages if p.state is not None and p is not fresh]
            if not there:
                return
            page = min(there, key=lambda p: p.value(now))
            if page.file is not None and page.moving is None:
                page.state = None  # it lies on disk already
            elif page.moving is not None or not self._to_disk(page, now):
                self._forget(page)

    def _to_disk(self, page: Page, now: float) -> bool:
        """Write it away in the background; a slow disk means fewer pages, not more of them waiting in RAM."""
        waiting = self._writing_bytes() + page.size
        if self._folder is None or page.size > self._disk_max or waiting > self._ram_max // 2:
            return False
        while self.disk_bytes + page.size > self._disk_max:
            on_disk = [p for p in self._pages if p.file is not None and p is not page]
            if not on_disk:
                return False
            self._forget(min(on_disk, key=lambda p: p.value(now)))
        self._count += 1
        page.file = self._folder / f"{self._count}.page"
        state, page.state = page.state, None
        assert state is not None
        page.moving = self._disk.submit(self._write, page.file, state)
        return True

    def _writing_bytes(self) -> int:
        return sum(p.size for p in self._pages if p.moving is not None and p.state is None)

    def _settle(self) -> None:
        """Take in what the disk's thread has done."""
        for page in [p for p in self._pages if p.moving is not None and p.moving.done()]:
            assert page.moving is not None
            done, page.moving = page.moving, None
            try:
                state = done.result()
            except (OSError, Untrusted, MemoryError) as error:
                log.warning("a paged-out conversation is lost and will be recomputed: %s", error)
                self._forget(page)
                continue
            if state is not None:
                page.state = state
                self._make_room(page)

    def _forget(self, page: Page) -> None:
        self._pages.remove(page)
        for mark in _marks(page.key, page.tokens):
            if self._marks.get(mark) is page:
                del self._marks[mark]
        if page.file is not None:
            file = page.file
            if page.moving is not None and not page.moving.done():  # by a callback, behind the writing
                page.moving.add_done_callback(lambda _: file.unlink(missing_ok=True))
            else:
                file.unlink(missing_ok=True)

    # -- on the disk's thread

    def _write(self, file: Path, state: State) -> None:
        view = memoryview(state)
        with file.open("xb") as out:
            for at in range(0, len(view), CHUNK_BYTES):
                sealed = self._envelope.seal(bytes(view[at : at + CHUNK_BYTES]), f"{file.name} {at} {len(view)}")
                out.write(len(sealed).to_bytes(4, "little"))
                out.write(sealed)

    def _read(self, file: Path, size: int) -> State:
        state = bytearray(size)
        with file.open("rb") as source:
            for at in range(0, size, CHUNK_BYTES):
                sealed = source.read(int.from_bytes(source.read(4), "little"))
                plain = self._envelope.open(sealed, f"{file.name} {at} {size}")
                state[at : at + len(plain)] = plain
        return state


def _marks(key: Key, tokens: array[int]) -> list[Mark]:
    """One for each whole block: the beginning up to there, as a hash that nobody can aim at."""
    out: list[Mark] = []
    known = b""
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        known = blake2b(known + tokens[end - BLOCK : end].tobytes(), digest_size=16).digest()
        out.append((key.owner, key.adapter, end, known))
    return out
