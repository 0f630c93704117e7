"""A house on the bus in memory: several workers, a gateway, clients that write, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from bus import contract, streams, subjects
from bus.consume import Consumer
from bus.memory import Faults, MemoryBus, MemoryServer
from bus.memory_sessions import MemorySessions, MemoryStore
from connectors import Capabilities
from connectors.host.egress import Egress, Sent
from connectors.host.exchange import Exchanges
from connectors.host.gateway import Catalogue
from connectors.host.ingress import Ingress
from connectors.host.metrics import Metrics
from schemas.config import Config, ConnectorConfig, LimitConfig, ModelConfig, SessionConfig
from schemas.errors import Disconnected, Retryable
from schemas.message import Inbound, Outbound, Sender, Usage
from tests.simulation.clock import unix_time
from workers import Finished, Job, Piece
from workers.host.loop import ModelLoop, taken
from workers.host.resident import Resident

WORKERS = 3
SLOTS = 3
CONVERSATIONS = 6
MESSAGES = 5
TROUBLE_S = 60.0
"""Virtual seconds after which nothing goes wrong any more."""
END_S = 900.0
MODEL = ModelConfig(name="echo", type="echo")
CONFIG = Config(
    models=(MODEL,),
    connectors=(ConnectorConfig(type="nats", name="sim"),),
    sessions=SessionConfig(turns_max=10_000),
    limits=LimitConfig(ack_wait_s=4.0, drain_s=2.0, deliveries_max=8, conversation_queue_max=8, parked_max=8),
)


class Troubles:
    """How much of what goes wrong in this run; drawn from its seed."""

    def __init__(self, rng: random.Random) -> None:
        def some(most: float) -> float:
            return rng.choice((0.0, most / 3, most))

        self.faults = Faults(
            rng=rng,
            lose_delivery=some(0.05),
            double_delivery=some(0.1),
            lose_ack=some(0.1),
            lose_publish=some(0.1),
            lose_receipt=some(0.1),
            refuse_publish=some(0.05),
            lose_message=some(0.1),
            fail_sessions=some(0.05),
            delay_s_max=rng.choice((0.0, 0.01, 0.2)),
        )
        self.crash_every_s = rng.choice((1e9, 12.0, 4.0))
        self.link_every_s = rng.choice((1e9, 15.0))
        self.change_every_s = rng.choice((1e9, 10.0, 2.0))
        self.model_fails = some(0.05)
        self.deadly = some(0.04)
        """Messages that kill every worker that touches them."""
        self.split = (
            self.faults.lose_ack or self.faults.fail_sessions or self.faults.lose_message or self.link_every_s < 1e9
        )
        """A worker may lose its messages without knowing, and go on for a while."""

    def end(self) -> None:
        for name in self.faults.__struct_fields__:
            if name != "rng":
                setattr(self.faults, name, 0.0)
        self.model_fails = 0.0


class SimLane:
    """An echo on the event loop: says how many messages of its conversation it was shown."""

    def __init__(self, world: World, worker: str) -> None:
        self._world = world
        self._worker = worker
        self._cancelled: set[str] = set()
        self._users = 0
        self.version = "sim-1"
        self.backend = SimpleNamespace(
            slots=SLOTS, version="sim-1", context=0, kinds=frozenset({"chat"}), abilities=frozenset()
        )

    async def run(self, job: Job) -> AsyncIterator[Piece]:
        world, running = self._world, self._world.running[job.conversation]
        running.append(job.request)
        self._users += 1
        world.most_at_once = max(world.most_at_once, len(running))
        try:
            await asyncio.sleep(world.rng.uniform(0.01, 1.0))
            if job.text in world.poison:
                world.doomed.put_nowait(self._worker)
                await asyncio.Event().wait()
            if world.rng.random() < world.troubles.model_fails:
                raise Retryable("the model failed", after_s=0.5, code="model_failed")
            yield Piece(job.request, f"{job.text}|{len(job.messages)}")
            await asyncio.sleep(world.rng.uniform(0.0, 0.2))
            yield Piece(job.request, "", Finished(usage=Usage(1, 1, 0)))
        finally:
            self._users -= 1
            running.remove(job.request)

    def cancel(self, request: str) -> None:
        self._cancelled.add(request)

    async def close(self) -> None:
        if self._users:
            self._world.closed_under_users += 1


class Process:
    """Something with a connection of its own that can be killed at any moment and started again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.bus = MemoryBus(world.server, CONFIG)
        self.sessions = MemorySessions(world.store)
        self.stopping = asyncio.Event()
        self.task: asyncio.Task[None] = asyncio.create_task(self.run())

    async def run(self) -> None:
        raise NotImplementedError

    async def kill(self) -> None:
        """As `kill -9`: nothing reaches the outside any more, whatever the code does about being cancelled."""
        self.bus.cut()
        self.sessions.cut()
        self.task.cancel()
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.exception()  # whatever the dying process says is nobody's news

    async def stop(self) -> None:
        self.stopping.set()
        await self.task
        self.bus.cut()


class Worker(Process):
    def __init__(self, world: World, name: str) -> None:
        self.name = name
        super().__init__(world)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            await self._serve(tasks)

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        resident = Resident("echo", tasks, wait_s=CONFIG.limits.outage_s)
        resident.replace(self._lane())
        changing = tasks.create_task(self._change(resident))
        loop = ModelLoop(self.bus, self.sessions, self.name, MODEL, resident)
        name, spec = streams.work_consumer("echo", CONFIG.limits)
        parked = CONFIG.limits.parked_max
        consumer = Consumer(self.bus, streams.INBOX, name, spec, loop, slots=SLOTS, parked_max=parked)

        async def offered(message: contract.Message) -> None:
            await taken(self.bus, {"echo": consumer}, message)

        await self.bus.subscribe(subjects.take(self.name), offered)
        await consumer.run(self.stopping)
        changing.cancel()

    def _lane(self) -> Any:
        return SimLane(self.world, self.name)

    async def _change(self, resident: Resident) -> None:
        """Another lane now and then, with the old one beside it or gone first."""
        rng = self.world.rng
        while True:
            await asyncio.sleep(rng.uniform(0.5, 2.0) * self.world.troubles.change_every_s)
            if rng.random() < 0.5:
                resident.unload()
                await asyncio.sleep(rng.uniform(0.0, 6.0))
            resident.replace(self._lane())


class SimConnector:
    """A platform that remembers what it was given, and by which process."""

    capabilities = Capabilities(authenticates=True)

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def send(self, message: Outbound) -> None:
        world = self._gateway.world
        await asyncio.sleep(world.troubles.faults.delay_s())
        if self._gateway.bus._closed:
            raise Disconnected("killed")
        world.sent.append((self._gateway, message))
        await asyncio.sleep(world.troubles.faults.delay_s())


class Gateway(Process):
    async def run(self) -> None:
        sessions: Any = self.sessions
        connector: Any = SimConnector(self)
        sent, exchanges, metrics = Sent(sessions), Exchanges(self.bus, sessions), Metrics()
        self.ingress = Ingress(
            self.bus,
            sessions,
            CONFIG,
            CONFIG.connectors[0],
            connector.capabilities,
            metrics,
            Catalogue(self.bus, CONFIG),
        )
        egress = Egress(connector, sent, exchanges, self.ingress.meter, metrics)
        name, spec = streams.delivery_consumer("sim", CONFIG.limits)
        consumer = Consumer(self.bus, streams.OUTBOX, name, spec, egress, slots=8)
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(sent.run())
            await consumer.run(self.stopping)
            writing.cancel()


class Server(MemoryServer):
    """Keeps a log of everything that was ever stored."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(faults, unix_time)
        self.log: list[tuple[str, contract.StoredMessage]] = []

    def store(self, subject: str, data: bytes, headers: dict[str, str]) -> contract.Stored | None:
        stored = super().store(subject, data, headers)
        if stored is not None and not stored.duplicate:
            self.log.append((subject, contract.StoredMessage(subject, data, headers, stored.seq, self.now())))
        return stored


class World:
    """One run of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.troubles = Troubles(self.rng)
        self.server = Server(self.troubles.faults)
        self.store = MemoryStore(self.troubles.faults, unix_time)
        self.running: defaultdict[str, list[str]] = defaultdict(list)
        self.most_at_once = 0
        self.closed_under_users = 0
        self.accepted: defaultdict[str, list[str]] = defaultdict(list)
        """Request ids by conversation, in the order in which their clients learned that they are stored."""
        self.sent: list[tuple[Gateway, Outbound]] = []
        self.workers: list[Worker] = []
        self.kills = 0
        self.poison: set[str] = set()
        self.doomed: asyncio.Queue[str] = asyncio.Queue()

    async def run(self) -> None:
        calm = MemoryBus(self.server, CONFIG)
        await streams.apply(calm, CONFIG)
        self.workers = [Worker(self, f"w{i}") for i in range(WORKERS)]
        self.gateway = Gateway(self)
        async with asyncio.TaskGroup() as tasks:
            undertaker = tasks.create_task(self.bury())
            for trouble in (self.crashes(), self.links(), self.calm_down()):
                tasks.create_task(trouble)
            clients = [tasks.create_task(self.client(i)) for i in range(CONVERSATIONS)]
            await asyncio.wait([*clients, tasks.create_task(asyncio.sleep(TROUBLE_S))])
            await self.drained(calm)
            undertaker.cancel()
        for process in (*self.workers, self.gateway):
            await process.stop()

    async def calm_down(self) -> None:
        await asyncio.sleep(TROUBLE_S)
        self.troubles.end()

    async def pauses(self, mean_s: float) -> AsyncIterator[None]:
        """Comes by at random moments until the time of troubles is over."""
        loop = asyncio.get_running_loop()
        while (pause_s := self.rng.expovariate(1 / mean_s)) + loop.time() < TROUBLE_S:
            await asyncio.sleep(pause_s)
            yield

    async def crashes(self) -> None:
        async for _ in self.pauses(self.troubles.crash_every_s):
            victim = self.rng.randrange(WORKERS + 1)
            if victim < WORKERS:
                await self.kill_worker(victim)
                continue
            self.kills += 1
            await self.gateway.kill()
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))
            self.gateway = Gateway(self)

    async def kill_worker(self, number: int) -> None:
        """Kill it, and start it again a little later; one that is being started already is left alone."""
        if self.workers[number].task.done():
            return
        self.kills += 1
        await self.workers[number].kill()
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        self.workers[number] = Worker(self, f"w{number}")

    async def bury(self) -> None:
        """Workers die of what they have touched."""
        while True:
            await self.kill_worker(int((await self.doomed.get())[1:]))

    async def links(self) -> None:
        """The link of one process goes down for a while."""
        async for _ in self.pauses(self.troubles.link_every_s):
            bus = self.rng.choice([*self.workers, self.gateway]).bus
            bus.disconnect()
            await asyncio.sleep(self.rng.uniform(0.1, 8.0))
            bus.reconnect()

    async def client(self, number: int) -> None:
        """Writes on without waiting for answers, and sends a message again until it is known to be stored."""
        rng = random.Random(self.rng.random())
        for index in range(MESSAGES):
            await asyncio.sleep(rng.uniform(0.0, 6.0))
            inbound = Inbound(
                id=f"m{number}-{index}",
                conversation=f"c{number}",
                sender=Sender(f"s{number}"),
                text=f"m{number}-{index}",
            )
            if rng.random() < self.troubles.deadly:
                self.poison.add(inbound.text)
            while True:
                try:
                    accepted = await self.gateway.ingress.emit(inbound)
                    break
                except (Retryable, Disconnected, AttributeError):
                    await asyncio.sleep(rng.uniform(0.1, 1.0))
            self.accepted[accepted.conversation].append(accepted.request)

    async def drained(self, bus: MemoryBus) -> None:
        loop = asyncio.get_running_loop()
        while True:
            infos = await bus.stream_infos()
            if infos["INBOX"].messages == infos["OUTBOX"].messages == 0:
                return
            if loop.time() > END_S:
                left = [m for s in ("INBOX", "OUTBOX") for m in self.server.streams[s].messages.values()]
                raise AssertionError(f"not drained: {[(m.subject, m.seq) for m in left]}")
            await asyncio.sleep(1.0)

    def __repr__(self) -> str:
        faults = {n: getattr(self.troubles.faults, n) for n in self.troubles.faults.__struct_fields__ if n != "rng"}
        return f"World({faults}, {self.kills} kills, {len(self.poison)} deadly messages)"
