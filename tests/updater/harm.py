"""Updates a slot again and again, and does harm at one event after the other: `harm.py FOLDER SEED kill|fill`.

An event is a file opened, renamed, removed, linked, made … (an audit hook sees them; nothing is patched) or a chunk
read from the source. `kill` ends the process by `os._exit`, and the next start too, at a random event; `fill` fills the
disk that FOLDER is on. Then an update runs undisturbed. Prints one line of JSON: how the disturbed ones ended (`ends`),
and the starts after a kill (`again`, some of which were over before their event), and what was wrong after which event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from schemas.errors import Retryable
from schemas.release import Release
from schemas.update import Change, UpdatesConfig
from tests.updater.cutting import cut_release, noise, weights
from updater.fetch import fetch
from updater.source.folder import FolderSource
from updater.state import Swap
from updater.store import Store

EVENTS = ("os.", "shutil.", "fcntl.", "test.")
KILLED, FULL = 9, 28
OLD = {"model.safetensors": weights(noise(1, 60_000)), "config.json": b"{}"}
NEW = {"model.safetensors": weights(noise(2, 20_000) + noise(1, 40_000)), "vae/extra.safetensors": weights(b"1")}


class Source(FolderSource):
    async def read(self, path: str, limit: int) -> bytes:
        sys.audit("test.read", path)
        return await super().read(path, limit)


async def update(folder: Path, repository: Path, release: Release) -> None:
    """All that happens to a slot in one update, as the updater does it."""
    store = Store(folder)
    with store.lock():
        store.sweep(0, {release.version})
        store.save(replace(store.load(), swap=Swap(version=release.version, previous=store.current())))
        source = Source(repository, connections=2)
        config = UpdatesConfig(source="here", root="root.json", connections=2, free_bytes_min="0")
        await fetch(release, source, store, config, lambda progress: None)
        await source.close()
        store.point("standby", release.version)
        store.point("current", release.version)
        store.save(replace(store.load().told(Change(at=1.0, what="swapped", version=release.version)), swap=None))
        store.sweep(0, set())


def child(body: Callable[[], object]) -> int:
    """Run `body` in a forked process; returns its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def watch(folder: Path, event_came: Callable[[], object]) -> None:
    """Call `event_came` before every event from now on, until this process ends."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(EVENTS) or (event == "open" and str(args[0]).startswith(str(folder))):
            event_came()

    sys.addaudithook(hook)


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("ab", buffering=0) as filler:
        while filler.write(bytes(4_096)):
            pass


def wrong(store: Store, release: Release, before: Release) -> str:
    """What is not as it must be between a kill and the next start: one of both serves, and is whole."""
    version = store.current()
    files = {"1": OLD, "2": NEW}.get(version)
    if files is None:
        return f"current names {version!r}"
    for path, content in files.items():
        if (store.folder / "current" / path).read_bytes() != content:
            return f"{path} of {version}, which serves, is not whole"
    for found in store.installed():
        if store.release(found) not in (before, release) or not store.whole(found):
            return f"{found} is half installed"
    return ""


def litter(store: Store) -> str:
    names = {str(path.relative_to(store.folder)) for path in store.folder.rglob("*")}
    files = {f"releases/2/{path}" for path in (*NEW, "RELEASE.json", "vae")}
    left = names - files - {"releases", "releases/2", "current", "standby", "updates.json", ".lock"}
    return f"left behind: {sorted(left)}" if left else ""


class Trials:
    def __init__(self, base: Path, seed: int, harm: str) -> None:
        self.chosen = random.Random(seed)
        self.repository, self.first, self.slot = base / "repository", base / "first", base / "slot"
        self.filler = base / "filler"
        self.harm = harm
        self.old = cut_release(self.repository, "1", OLD)
        self.new = cut_release(self.repository, "2", NEW)
        self.ends: Counter[str] = Counter()
        self.again: Counter[str] = Counter()
        assert child(lambda: asyncio.run(update(self.first, self.repository, self.old))) == 0

    def events(self) -> int:
        shutil.copytree(self.first, self.slot, symlinks=True)
        ends, begins = os.pipe()
        assert self.run(lambda: os.write(begins, b".")) == 0
        return len(os.read(ends, 1 << 16))

    def run(self, event_came: Callable[[], object] | None = None) -> int:
        def body() -> None:
            if event_came:
                watch(self.slot, event_came)
            try:
                asyncio.run(update(self.slot, self.repository, self.new))
            except Retryable as error:
                if error.code != "disk_full" or str(self.slot) not in error.message or "free" not in error.message:
                    raise
                os._exit(FULL)

        return child(body)

    def harmed_at(self, number: int) -> int:
        seen = 0

        def event_came() -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                os._exit(KILLED) if self.harm == "kill" else fill(self.filler)

        return self.run(event_came)

    def trial(self, number: int, events: int) -> str:
        """What is wrong when harm is done at this event; empty where nothing is."""
        shutil.rmtree(self.slot)
        shutil.copytree(self.first, self.slot, symlinks=True)
        store, code = Store(self.slot), self.harmed_at(number)
        self.ends[ended(code)] += 1
        fault = wrong(store, self.new, self.old)
        if not fault and self.harm == "kill":
            self.again[ended(self.harmed_at(self.chosen.randint(1, events)))] += 1
            fault = wrong(store, self.new, self.old)
        self.filler.unlink(missing_ok=True)
        if not fault and self.run() != 0:
            return "the next update failed"
        return fault or wrong(store, self.new, self.old) or serving(store) or litter(store)


def ended(code: int) -> str:
    return {0: "done", KILLED: "killed", FULL: "full"}.get(code, "failed")


def serving(store: Store) -> str:
    return "" if store.current() == "2" else "the old one still serves"


def main(base: Path, seed: int, harm: str) -> None:
    trials = Trials(base, seed, harm)
    events = trials.events()
    found = {number: trials.trial(number, events) for number in range(1, events + 1)}
    faults = {number: fault for number, fault in found.items() if fault}
    print(json.dumps({"ends": trials.ends, "again": trials.again, "faults": faults}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
