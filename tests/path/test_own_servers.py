"""Servers of the operator's own: a NATS cluster of three and a Redis-compatible server, named in config.yaml."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import nkeys
import pytest

from bus import programs
from tests.path.test_kills import free_port
from tests.running import RunningRoost, until, wait_for


class OwnServers:
    """Three nats-servers with JetStream and one valkey-server, as an operator would run them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [free_port() for _ in range(3)]
        self.routes = [free_port() for _ in range(3)]
        self.redis_port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self.routes)
        for i, (port, route) in enumerate(zip(self.ports, self.routes, strict=True)):
            conf = self.folder / f"nats-{i}.conf"
            conf.write_text(
                f"""
                server_name: own-{i}
                listen: 127.0.0.1:{port}
                jetstream {{ store_dir: "{self.folder}/js-{i}" }}
                cluster {{ name: own, listen: 127.0.0.1:{route}, routes: [{routes}] }}
                accounts {{ SYS: {{ users: [{{user: sys, password: sys}}] }}, APP: {{
                  jetstream: enabled, users: [{{ nkey: {self.public_key} }}] }} }}
                system_account: SYS
                """
            )
            self._run(str(programs.nats_server()), "-c", str(conf), "-l", str(self.folder / f"nats-{i}.log"))
        self._run(
            str(programs.valkey_server()),
            *("--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--requirepass", "own-password", "--save", "", "--logfile", str(self.folder / "valkey.log")),
        )

    def _run(self, *command: str) -> None:
        self.processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    @property
    def public_key(self) -> str:
        seed = self.folder / "operator.nk"
        if not seed.exists():
            seed.write_bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        return str(nkeys.from_seed(bytearray(seed.read_bytes())).public_key.decode())

    @property
    def servers(self) -> list[str]:
        return [f"nats://127.0.0.1:{port}" for port in self.ports]

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnServers]:
    folder = tmp_path / "own"
    folder.mkdir()
    servers = OwnServers(folder)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.mark.timeout(180)
async def test_roost_runs_on_a_cluster_and_outlives_one_of_its_servers(
    tmp_path: Path, own: OwnServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_REDIS_PASSWORD", "own-password")
    seed = str(own.folder / "operator.nk")

    async def elected() -> bool:
        with contextlib.suppress(Exception):
            nc = await nats.connect(own.servers, nkeys_seed=seed, connect_timeout=1, allow_reconnect=False)
            try:
                answer = json.loads((await nc.request("$JS.API.INFO", b"", timeout=1)).data)
                return "error" not in answer
            finally:
                await nc.close()
        return False

    await wait_for(elected, 30, "the cluster has a leader")
    roost = RunningRoost(
        tmp_path / "roost",
        {
            "bus": {"servers": own.servers, "credentials": seed, "replicas": 3},
            "sessions": {"url": f"redis://127.0.0.1:{own.redis_port}/0", "password": "${OWN_REDIS_PASSWORD}"},
            "connectors": [{"type": "nats"}],
        },
    )
    try:
        await asyncio.to_thread(roost.start)
        names = {part["name"] for part in roost.status_now["parts"]}
        assert not names & {"nats", "valkey"}, "nothing is embedded"
        nc = await nats.connect(own.servers, nkeys_seed=seed, max_reconnect_attempts=-1, reconnect_time_wait=0)
        assert (await roost.ask(nc, {"text": "hello cluster", "conversation": "c"}))["text"] == "hello cluster"
        info = json.loads((await nc.request("$JS.API.STREAM.INFO.INBOX", b"")).data)
        assert info["config"]["num_replicas"] == 3

        own.processes[0].kill()
        await asyncio.to_thread(own.processes[0].wait)

        async def answered() -> bool:
            with contextlib.suppress(nats.errors.Error):
                answer = await roost.ask(nc, {"text": "still here", "conversation": "c", "id": "still"}, timeout_s=5)
                return bool(answer.get("text") == "still here")
            return False

        await wait_for(answered, 60, "an answer with two servers left")
        await nc.close()
    finally:
        await asyncio.to_thread(roost.stop)
    until(lambda: roost.process is None, 1, "stopped")
