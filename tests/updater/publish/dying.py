"""Runs one publisher's work again and again in children that die at a step on the disk: `dying WORK BASE OUT SEED`.

Each child works on a copy of BASE, in OUT/<step>, and dies as `kill -9` kills: nothing is flushed, nothing is tidied.
The first one lives and counts the steps; then the first and the last are died at, and a sample of the others. Prints
step and exit code of each. Children are forked, so that the libraries are loaded once.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from updater.publish import keys as keeping
from updater.publish import upkeep
from updater.publish.create import create
from updater.publish.keys import Keys
from updater.publish.places import Folder
from updater.publish.push import push

EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.chmod"})
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_DIRECTORY
"""To write, or to flush a folder. Reading changes nothing: to die there is to die at the step before."""
SAMPLED = 7
DEAD = 9


def release(folder: Path) -> None:
    made = folder / "new"
    create(folder / "repository", "small", "2", [made], keys=Keys(folder / "keys"))


def refresh(folder: Path) -> None:
    upkeep.refresh(folder / "repository", Keys(folder / "keys"), days=200)


def rotate(folder: Path) -> None:
    keys = Keys(folder / "keys")
    if len(keys.roots) == 1:
        keeping.rotate(keys, keeping.ONLINE)
    keys.hand_out()
    upkeep.refresh(folder / "repository", keys)


def remove(folder: Path) -> None:
    upkeep.remove(folder / "repository", "small", "1", keys=Keys(folder / "keys"))


def send(folder: Path) -> None:
    asyncio.run(push(folder / "repository", Folder(folder / "site")))


WORK: dict[str, Callable[[Path], None]] = {
    "release": release, "refresh": refresh, "rotate": rotate, "remove": remove, "send": send,
}  # fmt: skip


def die_at(step: int, folder: Path) -> list[int]:
    """End this process at its `step`-th event on a path in `folder` (0: never); returns a list that grows with them."""
    events: list[int] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in EVENTS or not arguments or not str(arguments[0]).startswith(str(folder)):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        events.append(1)
        if len(events) == step:
            os._exit(DEAD)

    sys.addaudithook(hook)
    return events


def child(work: Callable[[Path], None], base: Path, folder: Path, step: int) -> tuple[int, int]:
    """Exit code, and how many events there were."""
    shutil.copytree(base, folder)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        events = die_at(step, folder)
        try:
            work(folder)
            os.write(writer, str(len(events)).encode())
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"step {step}: {error!r}\n")
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        count = int(pipe.read() or "0")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), count


def main() -> None:
    work, base, out = WORK[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    code, last = child(work, base, out / "0", 0)
    print(0, code)
    middle = random.Random(int(sys.argv[4])).sample(range(3, max(3, last - 2)), min(SAMPLED, max(0, last - 5)))
    for step in sorted({1, 2, *middle, last - 2, last - 1, last}):
        print(step, child(work, base, out / str(step), step)[0])


if __name__ == "__main__":
    main()
