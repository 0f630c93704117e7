"""The embedded servers: nats-server and a Redis-compatible valkey-server as children of the supervisor.

Used where the configuration names no servers of the operator's own. What always holds: they listen on loopback
only, nobody gets in without credentials, and everything they write is under the data folder. The rendered
nats.conf holds no secret; nats-server takes the key of its encryption at rest from its environment.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path

import msgspec

from bus import child
from bus.credentials import keep, prepare, random_token, user_key, write_private
from bus.endpoints import Endpoints, run_file
from bus.programs import (
    NATS_MIN,
    VALKEY_MIN,
    free_port,
    nats_server,
    valkey_server,
)
from bus.server import LOG_BYTES_MAX, STOP_S, Process, Server
from schemas.config import Config
from schemas.errors import ConfigError

NAMES = ("nats", "valkey")
MAX_PAYLOAD_BYTES = 1_048_576
CLIENT_PUBLISH = ("roost.ask", "roost.ask.>", "roost.knowledge.search", "$SRV.>")
CLIENT_SUBSCRIBE = ("_INBOX.>",)
"""Programs with the client key share it, and so can hear each other's inboxes; never those of the parts (`_R.`)."""
SESSION_BYTES_MAX = 1_073_741_824
"""Memory of the session server; a full one refuses to write rather than forget a conversation."""


class NatsServer(Server):
    """nats-server with JetStream on disk, encrypted, synchronised as configured, and two nkey users."""

    name = "nats"

    def __init__(self, config: Config, data: Path, binary: Path | None = None) -> None:
        super().__init__(config.bus.listen, "bus.listen", data, binary or nats_server(), NATS_MIN)
        if not re.fullmatch(r"always|\d+(ms|s|m|h)", config.bus.sync):
            raise ConfigError(f"bus.sync: expected `always` or an interval such as `2s`, got {config.bus.sync!r}")
        self.config = config.bus

    def prepare(self) -> tuple[list[str], dict[str, str]]:
        file = self.data / "run" / "nats.conf"
        for stale in (self.data / "run").glob("*.ports"):
            stale.unlink()
        write_private(file, self.render())
        key = keep(self.data, "jetstream.key", random_token)
        env = {"ROOST_JETSTREAM_KEY": key, "GOMEMLIMIT": "96MiB", "GOGC": "50"}
        return [str(self.binary), "--config", str(file)], env

    def render(self) -> str:
        """The text of nats.conf."""
        users = [
            {"nkey": user_key(self.data, "parts.nk")},
            {
                "nkey": user_key(self.data, "client.nk"),
                "permissions": {"publish": list(CLIENT_PUBLISH), "subscribe": list(CLIENT_SUBSCRIBE)},
            },
        ]
        return f"""# Written by Roost at each start; changes are lost. See `bus` in config.yaml.
server_name: roost
listen: "{self.host}:{self.port or -1}"
max_payload: {MAX_PAYLOAD_BYTES}
max_connections: 1024
ports_file_dir: {json.dumps(str(self.data / "run"))}
log_file: {json.dumps(str(self.log))}
logfile_size_limit: {LOG_BYTES_MAX}
logfile_max_num: 3
jetstream {{
  store_dir: {json.dumps(str(self.data / "nats"))}
  max_memory_store: {self.config.memory_bytes_max}
  max_file_store: {self.config.disk_bytes_max}
  sync_interval: {self.config.sync}
  cipher: aes
  key: $ROOST_JETSTREAM_KEY
}}
authorization {{
  timeout: 5
  users: {json.dumps(users)}
}}
"""

    async def listening(self, process: Process) -> bool:
        """nats-server writes its ports file once it accepts connections."""
        files = list((self.data / "run").glob(f"*_{process.pid}.ports"))
        if not files:
            return False
        try:
            self.port = int(json.loads(files[0].read_bytes())["nats"][0].rpartition(":")[2])
        except (ValueError, KeyError, IndexError, OSError):  # not written in full yet
            return False
        return await self.answers()

    async def answers(self) -> bool:
        """A nats-server greets with a line `INFO {…}`."""
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        try:
            return await reader.read(5) == b"INFO "
        finally:
            writer.close()

    @property
    def address(self) -> str:
        return f"nats://{self.host}:{self.port}"


class ValkeyServer(Server):
    """valkey-server with an append-only file and a password."""

    name = "valkey"

    def __init__(self, config: Config, data: Path, binary: Path | None = None) -> None:
        super().__init__(config.sessions.listen, "sessions.listen", data, binary or valkey_server(), VALKEY_MIN)
        self.password = ""

    def prepare(self) -> tuple[list[str], dict[str, str]]:
        self.password = keep(self.data, "valkey.password", random_token)
        self.port = self.port or free_port(self.host)
        file = self.data / "run" / "valkey.conf"
        write_private(file, self.render())
        return [str(self.binary), str(file)], {}

    def render(self) -> str:
        """The text of valkey.conf. RDB snapshots are off: the append-only file is the one copy on disk."""
        closed = ("DEBUG", "MIGRATE", "MODULE", "REPLICAOF", "SLAVEOF", "SHUTDOWN")
        return f"""# Written by Roost at each start; changes are lost. See `sessions` in config.yaml.
bind {socket.gethostbyname(self.host)}
port {self.port}
protected-mode yes
requirepass {self.password}
dir {json.dumps(str(self.data / "sessions"))}
logfile {json.dumps(str(self.log))}
appendonly yes
appendfsync everysec
save ""
databases 1
maxmemory {SESSION_BYTES_MAX}
maxmemory-policy noeviction
maxclients 512
tcp-backlog 128
""" + "".join(f'rename-command {command} ""\n' for command in closed)

    async def listening(self, process: Process) -> bool:
        return await self.answers()

    async def answers(self) -> bool:
        """AUTH and PING; a server that is still reading its file back answers LOADING."""
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        try:
            writer.write(f"AUTH {self.password}\r\nPING\r\n".encode())
            return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        except OSError:
            return False
        finally:
            writer.close()

    @property
    def address(self) -> str:
        return f"redis://{self.host}:{self.port}/0"


def servers_of(config: Config, data: Path) -> list[Server]:
    """The servers that the configuration leaves to Roost; raises `ConfigError`."""
    prepare(data)
    servers: list[Server] = []
    if not config.bus.servers:
        servers.append(NatsServer(config, data))
    if not config.sessions.url:
        servers.append(ValkeyServer(config, data))
    return servers


def announce(servers: list[Server], data: Path) -> Endpoints:
    """Write down for the other processes where the started servers are."""
    nats = next((s.address for s in servers if isinstance(s, NatsServer)), None)
    redis = next((s.address for s in servers if isinstance(s, ValkeyServer)), None)
    secrets = (data / "secrets").resolve()
    endpoints = Endpoints(
        nats=(nats,) if nats else (),
        nats_seed=str(secrets / "parts.nk") if nats else None,
        redis=redis or "",
        redis_password=f"file:{secrets / 'valkey.password'}" if redis else None,
    )
    write_private(run_file(data), msgspec.json.encode(endpoints))
    return endpoints


class Embedded:
    """Both servers without a supervisor, for tests and tools: `async with Embedded(config, data) as endpoints`."""

    def __init__(self, config: Config, data: Path) -> None:
        self.data = data.resolve()
        self.servers = servers_of(config, self.data)
        self.processes: dict[str, Process] = {}

    async def start(self) -> Endpoints:
        results = await asyncio.gather(*(self.start_one(s) for s in self.servers), return_exceptions=True)
        for problem in results:
            if isinstance(problem, BaseException):
                raise problem
        return announce(self.servers, self.data)

    async def start_one(self, server: Server) -> None:
        """Also starts one again that a test has killed, on the same port."""
        self.processes[server.name] = await server.start(lambda pid: None)

    async def stop(self) -> None:
        for name, process in self.processes.items():
            await child.end(process, STOP_S)
            child.forget(self.data, name)
        run_file(self.data).unlink(missing_ok=True)

    async def __aenter__(self) -> Endpoints:
        try:
            return await self.start()
        except BaseException:
            await self.stop()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
