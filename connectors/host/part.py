"""The connectors as a process: `roost run connectors`. Each channel is delivered by one process."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bus import streams, subjects
from bus.consume import Consumer
from bus.part import Part, run
from bus.stop import stop
from connectors.host.egress import Egress
from connectors.host.gateway import Gateway, Shared
from connectors.host.http import HttpServer
from connectors.host.ingress import Ingress
from connectors.host.registry import connector_class, create
from connectors.host.supervise import Supervised
from schemas.config import Config, ConnectorConfig

DELIVERIES_AT_ONCE = 64
REPORT_S = streams.LIVE_S / 3


class _Line:
    """One connector with its door and its delivery."""

    def __init__(self, part: Part, shared: Shared, config: ConnectorConfig, place: str) -> None:
        kind = connector_class(config.type, place)
        gateway = Gateway(config.name, part.bus, part.sessions, part.data, shared)
        ingress = Ingress(
            part.bus, part.sessions, part.config, config, kind.capabilities, shared.metrics, shared.catalogue
        )
        gateway.ingress = ingress
        self.connector = create(config, place, kind, gateway)
        self.supervised = Supervised(self.connector, config.type, part.bus)
        self.emit = gateway.emit
        name, spec = streams.delivery_consumer(config.name, part.config.limits)
        egress = Egress(
            self.connector, shared.sent, shared.exchanges, ingress.meter, shared.metrics, ingress.recall.answered
        )
        self.consumer = Consumer(part.bus, streams.OUTBOX, name, spec, egress, slots=DELIVERIES_AT_ONCE)


async def _report(lines: list[_Line], shared: Shared) -> None:
    """Keep our rows alive and the catalogue of models fresh."""
    rounds = 0
    while True:
        await shared.catalogue.refresh()
        if rounds % int(REPORT_S / shared.catalogue.REFRESH_S) == 0:
            for line in lines:
                await line.supervised.report()
        rounds += 1
        await asyncio.sleep(shared.catalogue.REFRESH_S)


async def _follow(part: Part, shared: Shared) -> None:
    """Take changes of the configuration up that need no restart."""
    while True:
        shared.configure(await part.reloaded())


async def _body(part: Part) -> None:
    await streams.apply(part.bus, part.config)
    shared = Shared(part.bus, part.sessions, part.config)
    await shared.keys.start()
    for what in ("swapped", "rolled_back", "refused"):
        await part.bus.subscribe(subjects.model_events(what), shared.changed)
    lines = [
        _Line(part, shared, config, f"connectors[{i}] ({config.name})")
        for i, config in enumerate(part.config.connectors)
    ]
    routes = [route for line in lines for route in line.connector.routes()]
    server = HttpServer(part.config.http, routes, shared.metrics, part.config.limits.drain_s) if routes else None
    delivered = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(_report(lines, shared)),
            tasks.create_task(shared.exchanges.watch()),
            tasks.create_task(shared.sent.run()),
            tasks.create_task(_follow(part, shared)),
        ]
        for line in lines:
            tasks.create_task(line.consumer.run(delivered))
            background.append(tasks.create_task(line.supervised.run(line.emit)))
        if server is not None:
            await server.start()
        part.ready(http=server.url if server is not None else "")
        await part.stopping.wait()
        if server is not None:  # clients that wait get their answers while the deliveries still run
            await server.stop()
        delivered.set()
        await stop(*background)


def main(config: Config, data: Path) -> int:
    return run("connectors", config, data, _body)
