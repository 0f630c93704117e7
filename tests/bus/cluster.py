"""A Redis Cluster of three masters out of the same valkey-server, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import redis.asyncio

from bus.programs import free_port, valkey_server
from tests.bus.real import soon

MASTERS = 3
SLOTS = 16_384
PASSWORD = "cluster-password"


def _configured(folder: Path, port: int) -> Path:
    folder.mkdir(parents=True)
    config = folder / "node.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {PASSWORD}\nprimaryauth {PASSWORD}\ndir {folder}\n"
        f"logfile {folder / 'log'}\nsave ''\ncluster-enabled yes\ncluster-port {free_port('127.0.0.1')}\n"
        "cluster-node-timeout 5000\n"
    )
    return config


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[str]:
    """The URL of a running cluster; its password is `PASSWORD`."""
    ports = [free_port("127.0.0.1") for _ in range(MASTERS)]
    configs = [_configured(folder / str(port), port) for port in ports]
    processes = [await asyncio.create_subprocess_exec(str(valkey_server()), str(config)) for config in configs]
    clients = [redis.asyncio.Redis(port=port, password=PASSWORD) for port in ports]
    try:

        async def answers() -> bool:
            with contextlib.suppress(redis.ConnectionError, redis.exceptions.BusyLoadingError):
                return all([await client.ping() for client in clients])
            return False

        await soon(answers, "three nodes answer")
        share = SLOTS // MASTERS
        for i, client in enumerate(clients):
            last = SLOTS - 1 if i == MASTERS - 1 else (i + 1) * share - 1
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", i * share, last)
            await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for port, config in list(zip(ports, configs, strict=True))[1:]:
            bus_port = config.read_text().split("cluster-port ")[1].split()[0]
            await clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus_port)

        async def joined() -> bool:
            infos = [(await client.execute_command("CLUSTER", "INFO")).decode() for client in clients]
            return all("cluster_state:ok" in info and f"cluster_known_nodes:{MASTERS}" in info for info in infos)

        await soon(joined, "the nodes are one cluster", 30)
        yield f"redis+cluster://127.0.0.1:{ports[0]}"
    finally:
        for client in clients:
            await client.aclose()
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
