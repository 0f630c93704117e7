"""The embedded servers, as real processes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import nkeys
import pytest
import redis.asyncio
import redis.exceptions

from bus import child
from bus.credentials import keep, prepare, random_token, user_key
from bus.embedded import Embedded, NatsServer, ValkeyServer
from bus.programs import free_port
from schemas.config import BusConfig, Config, ModelConfig, SessionConfig
from schemas.errors import ConfigError, Retryable


def config(bus: str = "127.0.0.1:0", sessions: str = "127.0.0.1:0", sync: str = "always") -> Config:
    return Config(
        models=(ModelConfig(name="talk", type="echo"),),
        bus=BusConfig(listen=bus, sync=sync),
        sessions=SessionConfig(listen=sessions),
    )


def password(reference: str | None) -> str:
    return Path(str(reference).removeprefix("file:")).read_text().strip()


async def test_both_servers_start_on_free_ports_and_serve_whoever_has_the_credentials(tmp_path: Path) -> None:
    async with Embedded(config(), tmp_path) as endpoints:
        bus = await nats.connect(list(endpoints.nats), nkeys_seed=endpoints.nats_seed)
        assert bus.max_payload == 1_048_576
        await bus.close()
        async with redis.asyncio.from_url(endpoints.redis, password=password(endpoints.redis_password)) as sessions:
            assert await sessions.ping()


async def greeted(address: str, seed: bytes | None) -> bytes:
    """What nats-server answers to a client with this seed, or with none."""
    host, _, port = address.removeprefix("nats://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        hello: dict[str, object] = {"verbose": False}
        if seed is not None:
            pair = nkeys.from_seed(bytearray(seed))
            signed = base64.urlsafe_b64encode(pair.sign(info["nonce"].encode())).rstrip(b"=")
            hello |= {"nkey": pair.public_key.decode(), "sig": signed.decode()}
        writer.write(b"CONNECT " + json.dumps(hello).encode() + b"\r\nPING\r\n")
        return await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_nobody_gets_in_without_credentials(tmp_path: Path) -> None:
    async with Embedded(config(), tmp_path) as endpoints:
        other = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        ours = (tmp_path / "secrets" / "parts.nk").read_text().strip().encode()
        assert await greeted(endpoints.nats[0], ours) == b"PONG\r\n"
        for seed in (None, other):
            assert b"Authorization Violation" in await greeted(endpoints.nats[0], seed)
        async with redis.asyncio.from_url(endpoints.redis) as sessions:
            with pytest.raises(redis.exceptions.AuthenticationError):
                await sessions.ping()


class Outsider:
    """A client with the outside client's key, and what the server refuses it."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self._heard = asyncio.Event()

    async def failed(self, error: Exception) -> None:
        self.refused.append(str(error))
        if "the.end" in str(error):
            self._heard.set()

    @asynccontextmanager
    async def connected(self, address: str, seed: Path) -> AsyncIterator[nats.NATS]:
        """Ends with something that is surely refused, and waits for that: then all refusals have arrived."""
        client = await nats.connect(address, nkeys_seed=str(seed), error_cb=self.failed)
        try:
            yield client
            await client.publish("the.end", b"")
            async with asyncio.timeout(10):
                await self._heard.wait()
        finally:
            await client.close()
        self.refused = [text for text in self.refused if "the.end" not in text]


async def test_an_outside_client_may_ask_and_nothing_else(tmp_path: Path) -> None:
    outsider = Outsider()
    async with Embedded(config(), tmp_path) as endpoints:
        async with outsider.connected(endpoints.nats[0], tmp_path / "secrets" / "client.nk") as client:
            for subject in ("roost.ask", "roost.ask.state", "roost.ask.file", "roost.knowledge.search", "$SRV.PING"):
                await client.publish(subject, b"{}")
            await client.subscribe("_INBOX.mine")
        assert outsider.refused == []
        outsider = Outsider()
        async with outsider.connected(endpoints.nats[0], tmp_path / "secrets" / "client.nk") as client:
            for subject in ("roost.in.talk.nats.abc", "roost.out.web.abc", "roost.delta.abc", "$JS.API.INFO", "_R.abc"):
                await client.publish(subject, b"{}")
        assert len(outsider.refused) == 5, outsider.refused


async def test_an_outside_client_cannot_listen_to_the_parts(tmp_path: Path) -> None:
    outsider = Outsider()
    async with Embedded(config(), tmp_path) as endpoints:
        async with outsider.connected(endpoints.nats[0], tmp_path / "secrets" / "client.nk") as client:
            for subject in ("_R.>", "roost.>", ">"):
                await client.subscribe(subject)
        assert len(outsider.refused) == 3, outsider.refused


async def test_what_the_bus_stores_is_encrypted_and_found_again_after_a_restart(tmp_path: Path) -> None:
    async with Embedded(config(), tmp_path) as endpoints:
        bus = await nats.connect(list(endpoints.nats), nkeys_seed=endpoints.nats_seed)
        stream = bus.jetstream()
        await stream.add_stream(name="KEPT", subjects=["kept"])
        await stream.publish("kept", b"the owl sleeps by day")
        await bus.close()
        async with redis.asyncio.from_url(endpoints.redis, password=password(endpoints.redis_password)) as sessions:
            await sessions.set("owl", "day")
    files = [path for path in (tmp_path / "nats").rglob("*") if path.is_file()]
    assert files
    assert all(b"owl sleeps" not in path.read_bytes() for path in files)
    async with Embedded(config(), tmp_path) as endpoints:
        bus = await nats.connect(list(endpoints.nats), nkeys_seed=endpoints.nats_seed)
        assert (await bus.jetstream().get_msg("KEPT", 1)).data == b"the owl sleeps by day"
        await bus.close()
        async with redis.asyncio.from_url(endpoints.redis, password=password(endpoints.redis_password)) as sessions:
            assert await sessions.get("owl") == b"day"


async def test_every_message_is_synchronised_to_the_disk_unless_configured_otherwise(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert "sync_interval: always" in NatsServer(config(), tmp_path).render()
    assert "sync_interval: 2s" in NatsServer(config(sync="2s"), tmp_path).render()
    with pytest.raises(ConfigError, match=r"bus\.sync: expected `always` or an interval"):
        NatsServer(config(sync="never\nport: 1"), tmp_path)


async def test_secrets_are_closed_to_others_and_stand_in_no_other_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    async with Embedded(config(), data):
        for path in [data, *data.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode & 0o077 == 0, f"{path} has mode {mode:o}"
        rendered = (data / "run" / "nats.conf").read_text()
        for name in ("jetstream.key", "parts.nk", "client.nk"):
            assert (data / "secrets" / name).read_text().strip() not in rendered


async def test_a_killed_server_starts_again_on_its_port(tmp_path: Path) -> None:
    embedded = Embedded(config(), tmp_path)
    async with embedded as endpoints:
        for server in embedded.servers:
            port = server.port
            process = embedded.processes[server.name]
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            with pytest.raises(Retryable, match="does not answer"):
                await server.ping()
            await embedded.start_one(server)
            await server.ping()
            assert server.port == port
        assert str(embedded.servers[0].port) in endpoints.nats[0]


async def test_a_taken_port_is_refused_with_the_name_of_who_has_it(tmp_path: Path) -> None:
    listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        with pytest.raises(ConfigError, match=rf"bus.listen: port {port} on 127.0.0.1 is taken by .*pid {os.getpid()}"):
            await Embedded(config(bus=f"127.0.0.1:{port}"), tmp_path).start()
        with pytest.raises(ConfigError, match=r"sessions\.listen: port"):
            await ValkeyServer(config(sessions=f"127.0.0.1:{port}"), tmp_path).start(lambda pid: None)
    finally:
        listener.close()
        await listener.wait_closed()
        child.forget(tmp_path, "valkey")


@pytest.mark.parametrize("listen", ["0.0.0.0:4222", "192.168.1.5:4222", "[::]:4222"])
async def test_the_embedded_bus_listens_on_this_machine_only(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match=r"bus.listen: .*set bus.servers"):
        NatsServer(config(bus=listen), tmp_path)


@pytest.mark.parametrize("listen", ["4222", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:x"])
async def test_a_wrong_address_is_refused_with_an_example(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match=r"bus\.listen: expected host:port such as"):
        NatsServer(config(bus=listen), tmp_path)


def program(folder: Path, says: str) -> Path:
    """A stand-in for a server program: it answers --version, and ends at once otherwise."""
    path = folder / "server"
    path.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && {{ echo '{says}'; exit 0; }}\necho 'cannot go on'\nexit 3\n")
    path.chmod(0o755)
    return path


async def test_a_too_old_server_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    old = program(tmp_path, "nats-server: v2.9.4")
    with pytest.raises(ConfigError, match=r"is version 2\.9\.4; Roost needs 2\.15\.1 or newer"):
        await NatsServer(config(), tmp_path, old).start(lambda pid: None)
    old = program(tmp_path, "Valkey server v=7.2.5 sha=0")
    with pytest.raises(ConfigError, match=r"is version 7\.2\.5; Roost needs 9"):
        await ValkeyServer(config(), tmp_path, old).start(lambda pid: None)


async def test_a_server_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    prepare(tmp_path)
    broken = program(tmp_path, "nats-server: v2.99.0")
    with pytest.raises(Retryable, match="nats ended at once: cannot go on"):
        await NatsServer(config(bus=f"127.0.0.1:{free_port('127.0.0.1')}"), tmp_path, broken).start(lambda pid: None)


async def test_a_program_that_is_no_server_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(ConfigError, match="expected a version"):
        await NatsServer(config(), tmp_path, program(tmp_path, "hello")).start(lambda pid: None)
    with pytest.raises(ConfigError, match="does not run"):
        await NatsServer(config(), tmp_path, tmp_path / "absent").start(lambda pid: None)


async def test_leftovers_of_an_earlier_start_are_ended(tmp_path: Path) -> None:
    prepare(tmp_path)
    sleeper = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    process = await child.spawn(tmp_path, "worker", sleeper, env=os.environ, output=asyncio.subprocess.DEVNULL)
    assert await asyncio.to_thread(child.end_leftovers, tmp_path, ("nats",)) == ["worker"]
    await process.wait()
    assert await asyncio.to_thread(child.end_leftovers, tmp_path, ("nats",)) == []


async def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(tmp_path: Path) -> None:
    prepare(tmp_path)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
    (tmp_path / "run" / "worker.pid").write_text(f'{{"pid": {process.pid}, "created": {time.time() - 5_000}}}')
    assert child.end_leftovers(tmp_path, ()) == []
    assert process.returncode is None
    process.kill()
    await process.wait()


async def test_a_secret_is_made_once_and_survives(tmp_path: Path) -> None:
    prepare(tmp_path)
    first = await asyncio.gather(*(asyncio.to_thread(keep, tmp_path, "one", random_token) for _ in range(8)))
    assert len(set(first)) == 1
    assert keep(tmp_path, "one", random_token) == first[0]
    assert user_key(tmp_path, "parts.nk") == user_key(tmp_path, "parts.nk")
    assert not list((tmp_path / "secrets").glob(".*"))


async def test_a_damaged_secret_is_told_and_never_replaced(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "secrets" / "parts.nk").write_text("not a seed")
    with pytest.raises(ConfigError, match=r"parts.nk: not an nkey seed"):
        user_key(tmp_path, "parts.nk")
    (tmp_path / "secrets" / "empty").touch()
    with pytest.raises(ConfigError, match="the file is empty"):
        keep(tmp_path, "empty", random_token)
    assert (tmp_path / "secrets" / "parts.nk").read_text() == "not a seed"
