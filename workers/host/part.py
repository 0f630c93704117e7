"""The worker as a process: `roost run worker`. Any number may run, on one machine or many."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bus import site, streams, subjects
from bus.contract import Message
from bus.part import Part, run
from bus.stop import stop
from schemas.config import Config
from schemas.model import ModelOrder
from workers.host import heap
from workers.host.loop import taken
from workers.host.models import Models
from workers.host.nudges import Nudges
from workers.host.rebuild import rebuild

log = logging.getLogger("roost.worker")

WORKERS_PER_FOLDER_MAX = 64


@contextmanager
def worker_id(data: Path) -> Iterator[str]:
    """An id that a restarted worker gets again, and that no two living workers share.

    The host's name, a mark of the data folder, and the first free number in it (a lock that dies with the process).
    """
    folder = data / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(WORKERS_PER_FOLDER_MAX):
        fd = os.open(folder / f"worker-{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        try:
            yield site.worker(data, number)
        finally:
            os.close(fd)
        return
    raise RuntimeError(f"more than {WORKERS_PER_FOLDER_MAX} workers on {folder}")


async def _body(part: Part) -> None:
    await streams.apply(part.bus, part.config)
    with worker_id(part.data) as worker:
        await rebuild(part.bus, part.sessions)
        heap.settle()
        models = Models(part.bus, part.sessions, part.config, worker, part.data)

        async def offered(message: Message) -> None:
            await taken(part.bus, models.consumers, message)

        async def cancelled(message: Message) -> None:
            models.cancel(message.subject.rpartition(".")[2])

        async def answer(order: ModelOrder, reply: str) -> None:
            await part.bus.send(reply, msgspec.json.encode(await models.obey(order)))

        async def ordered(message: Message) -> None:
            try:
                order = msgspec.json.decode(message.data, type=ModelOrder)
            except msgspec.DecodeError as error:
                log.warning("an order that cannot be read: %s", error)
                return
            tasks.create_task(answer(order, message.reply))

        async def follow() -> None:
            while True:
                await models.apply(await part.reloaded())

        offers = await part.bus.subscribe(subjects.take(worker), offered)
        await part.bus.subscribe(subjects.cancel(), cancelled)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(models.serve(part.stopping))
            following = tasks.create_task(follow())
            orders = await part.bus.subscribe(subjects.models(worker), ordered)
            nudges = Nudges(part.bus, models, tasks)
            await nudges.open()
            await models.settled.wait()
            part.ready(worker=worker)
            await part.stopping.wait()
            await nudges.close()
            await orders.close()
            await offers.close()
            await stop(following)


def main(config: Config, data: Path) -> int:
    heap.prepare()
    return run("worker", config, data, _body)
