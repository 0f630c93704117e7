"""The worker as a process: `roost run worker`. Any number may run, on one machine or many."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus import streams, subjects
from bus.contract import Message
from bus.part import Part, run
from schemas.config import Config
from schemas.message import token
from workers.host.loop import taken
from workers.host.models import Models
from workers.host.rebuild import rebuild

WORKERS_PER_FOLDER_MAX = 64


@contextmanager
def worker_id(data: Path) -> Iterator[str]:
    """An id that a restarted worker gets again, and that no two living workers share.

    The host's name, a mark of the data folder, and the first free number in it (a lock that dies with the process).
    """
    folder = data / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:24]
    for number in range(WORKERS_PER_FOLDER_MAX):
        fd = os.open(folder / f"worker-{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        try:
            yield f"{host}-{token(str(data.resolve()))[:6]}-{number}"
        finally:
            os.close(fd)
        return
    raise RuntimeError(f"more than {WORKERS_PER_FOLDER_MAX} workers on {folder}")


async def _body(part: Part) -> None:
    await streams.apply(part.bus, part.config)
    with worker_id(part.data) as worker:
        await rebuild(part.bus, part.sessions)
        models = Models(part.bus, part.sessions, part.config, worker)

        async def offered(message: Message) -> None:
            await taken(part.bus, models.consumers, message)

        async def cancelled(message: Message) -> None:
            request = message.subject.rpartition(".")[2]
            for loop in models.loops.values():
                loop.cancel(request)

        offers = await part.bus.subscribe(subjects.take(worker), offered)
        await part.bus.subscribe(subjects.cancel(), cancelled)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(models.serve(part.stopping))
            await models.settled.wait()
            part.ready(worker=worker)
            await part.stopping.wait()
            await offers.close()


def main(config: Config, data: Path) -> int:
    return run("worker", config, data, _body)
