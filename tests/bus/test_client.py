"""The connection to the real nats-server: who is refused, and what a broken blob does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nkeys
import pytest

from bus import streams
from bus.client import Bus
from bus.endpoints import Endpoints
from schemas.errors import AuthFailed, ConfigError, Disconnected, Retryable, Untrusted
from tests.bus.real import Real, config_of


async def test_wrong_credentials_are_refused_at_once(real: Real, tmp_path: Path) -> None:
    seed = tmp_path / "wrong.nk"
    seed.write_bytes(nkeys.from_seed(nkeys.encode_seed(b"0" * 32, nkeys.PREFIX_BYTE_USER)).seed)
    for credentials in (str(seed), None):
        with pytest.raises(AuthFailed, match="refuses our credentials"):
            await Bus.connect(Endpoints(nats=real.endpoints.nats, nats_seed=credentials), config_of(), name="test")
    absent = Endpoints(nats=real.endpoints.nats, nats_seed=str(tmp_path / "absent.nk"))
    with pytest.raises(ConfigError, match=r"bus.credentials: .*absent.nk does not exist"):
        await Bus.connect(absent, config_of(), name="test", wait=False)


async def test_a_server_that_is_not_there_is_waited_for_only_so_long() -> None:
    with pytest.raises(Disconnected, match=r"no bus at nats://127.0.0.1:1"):
        await Bus.connect(Endpoints(nats=("nats://127.0.0.1:1",)), config_of(), name="test", wait=False)


async def test_a_too_old_server_is_refused() -> None:
    info = {"server_id": "x", "version": "2.9.4", "max_payload": 1_048_576, "headers": True, "proto": 1, "port": 1}

    async def old_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greets and answers pings, as any nats-server does."""
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(old_server, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConfigError, match=r"nats-server 2\.9\.4 .* is too old; Roost needs 2\.11\.0 or newer"):
        await Bus.connect(Endpoints(nats=(f"nats://127.0.0.1:{port}",)), config_of(), name="test")
    server.close()
    await server.wait_closed()


async def altered_blob(bus: Bus, data: bytes) -> str:
    """Store a blob and put other bytes of the same length in the place of its own."""
    name = await bus.blobs.put(data)
    (chunk,) = [m async for m in bus.read("OBJ_BLOBS", "$O.BLOBS.C.>")]
    await bus.delete("OBJ_BLOBS", chunk.seq)
    await bus.nc.publish(chunk.subject, b"X" * len(chunk.data))
    await bus.nc.flush()
    return name


async def test_an_altered_blob_is_refused(bus: Bus) -> None:
    name = await altered_blob(bus, b"the right bytes")
    with pytest.raises(Untrusted, match=r"altered|does not match"):
        await bus.blobs.get(name)


async def test_a_message_whose_blob_was_altered_arrives_empty_and_stops_nobody(real: Real) -> None:
    bus = await real.fresh()
    large = b"y" * (bus.payload_bytes_max + 1)
    stored = await bus.publish("roost.turn.test.c1", large)
    found = await bus.get("TURNS", stored.seq)
    assert found is not None
    assert found.data == large
    async for chunk in bus.read("OBJ_BLOBS", "$O.BLOBS.C.>"):
        await bus.delete("OBJ_BLOBS", chunk.seq)
        await bus.nc.publish(chunk.subject, b"X" * len(chunk.data))
    await bus.nc.flush()
    found = await bus.get("TURNS", stored.seq)
    assert found is not None
    assert found.data == b""


async def test_a_closed_connection_says_so(real: Real) -> None:
    bus = await real.fresh()
    await bus.close()
    with pytest.raises(Disconnected):
        await bus.publish("roost.turn.test.c1", b"x", id="a")
    with pytest.raises((Disconnected, Retryable)):
        await bus.request("roost.ask", b"", 1.0)


async def test_a_declaration_that_the_server_refuses_is_told_with_its_place(bus: Bus) -> None:
    with pytest.raises(ConfigError, match=r"the bus refuses stream CLASH: .*overlap"):
        await bus.ensure_stream("CLASH", {"name": "CLASH", "subjects": ["roost.in.>"]})
    name, spec = streams.work_consumer("echo", bus.config.limits)
    with pytest.raises(ConfigError, match="the bus refuses consumer work-echo of NONE"):
        await bus.ensure_consumer("NONE", name, spec)


async def test_a_changed_limit_is_applied_to_what_is_there(real: Real) -> None:
    bus = await real.fresh(config_of(conversation_queue_max=3))
    await streams.apply(bus, config_of(conversation_queue_max=5))
    info = await bus.api("STREAM.INFO.INBOX")
    assert info["config"]["max_msgs_per_subject"] == 5
