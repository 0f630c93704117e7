"""Line: a connector for programs that can open a TCP socket and know nothing else.

    → rk-…                      an API key (`roost keys create NAME`), alone on the first line
    → 17 What is a roost?       an id of the client's own, and one message
    ← 17 stored                 the bus has it: from here on an answer comes, whatever dies
    ← 17 answer "A perch."      a JSON string, so that an answer stays one line
    ← 17 error "the queue is full; try again later"

A client that lost its connection sends the same id again: nothing is stored twice, and it gets the same answer.
One connection for each key; a newer one takes the place of an older one.
"""

from __future__ import annotations

import asyncio
import json

from connectors import Capabilities, Connector, ConnectorSettings, Emit, Host, Outbound
from schemas.errors import ConfigError, Rejected, RoostError
from schemas.message import Inbound, Sender


class LineConnector(Connector):
    """Listens on one TCP port."""

    # `authenticates`: whoever writes has shown a key, so no allow-list is needed.
    # `repeatable`: a client knows its ids, so an answer that comes twice does no harm.
    capabilities = Capabilities(authenticates=True, repeatable=True)

    class Settings(ConnectorSettings, frozen=True):
        host: str = "127.0.0.1"
        port: int = 7000
        line_bytes_max: int = 65_536
        connections_max: int = 100
        idle_s: float = 3_600.0
        """A client that is silent for this long is sent away."""

    settings: Settings

    def __init__(self, name: str, settings: ConnectorSettings, host: Host) -> None:
        super().__init__(name, settings, host)
        self._clients: dict[str, asyncio.StreamWriter] = {}
        self._connections = 0

    async def run(self, emit: Emit) -> None:
        settings = self.settings
        async with asyncio.TaskGroup() as tasks:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                tasks.create_task(self._serve(reader, writer, emit))

            try:
                server = await asyncio.start_server(
                    connected, settings.host, settings.port, limit=settings.line_bytes_max
                )
            except OSError as error:
                raise ConfigError(f"port {settings.port} on {settings.host}: {error.strerror}") from None
            async with server:
                await asyncio.Event().wait()

    async def send(self, message: Outbound) -> None:
        """Deliver one answer. A client that has gone will ask again with the same id."""
        writer = self._clients.get(message.reply["key"])
        if writer is not None:
            await self._answer(writer, message)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, emit: Emit) -> None:
        """One connection, from its key to its end. Nothing that a client does may end the others."""
        self._connections += 1
        key = None
        try:
            key = await self.host.verify_key(await self._line(reader))
            if key is None or self._connections > self.settings.connections_max:
                await self._write(writer, "- error", "unknown key" if key is None else "too many connections")
                return
            self._clients[key] = writer
            while line := await self._line(reader):
                await self._ask(writer, emit, key, line)
        except (OSError, EOFError, ValueError, TimeoutError, RoostError):
            return
        finally:
            self._connections -= 1
            if key is not None and self._clients.get(key) is writer:
                del self._clients[key]
            writer.close()

    async def _ask(self, writer: asyncio.StreamWriter, emit: Emit, key: str, line: str) -> None:
        id_, _, text = line.partition(" ")
        inbound = Inbound(
            id=f"{key}:{id_}",
            conversation=key,
            sender=Sender(id=key),
            text=text,
            reply={"key": key, "id": id_},  # comes back in `Outbound.reply`, also to a restarted connector
        )
        try:
            accepted = await emit(inbound)
        except RoostError as error:
            await self._write(writer, f"{id_} error", error.message)
            return
        await self._write(writer, f"{id_} stored")
        if accepted.reply is not None:  # the same id was answered before
            await self._answer(writer, accepted.reply)

    async def _answer(self, writer: asyncio.StreamWriter, message: Outbound) -> None:
        id_ = message.reply["id"]
        if message.error is not None:
            await self._write(writer, f"{id_} error", message.error.message)
        else:
            await self._write(writer, f"{id_} answer", message.text)

    async def _line(self, reader: asyncio.StreamReader) -> str:
        async with asyncio.timeout(self.settings.idle_s):
            raw = await reader.readline()
        try:
            return raw.decode().strip()
        except UnicodeDecodeError:
            raise Rejected("this line is not UTF-8") from None

    async def _write(self, writer: asyncio.StreamWriter, head: str, text: str | None = None) -> None:
        line = head if text is None else f"{head} {json.dumps(text, ensure_ascii=False)}"
        try:
            writer.write(line.encode("utf-8", "replace") + b"\n")
            async with asyncio.timeout(10.0):
                await writer.drain()
        except (OSError, TimeoutError):
            writer.close()
