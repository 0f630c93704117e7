"""Connect, publish, request: the one connection that a process has to NATS.

What always holds: `publish` returns only when the stream has stored the message; with an `id` it may be called
again at any time and stores once. Payloads above the server's limit travel through the blob store unseen.
"""

from __future__ import annotations

from bus import lean  # isort: skip  # noqa: F401

import asyncio
import itertools
import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import nats
import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from bus import subjects
from bus.blobs import BLOB_HEADER, Blobs
from bus.contract import (
    ConsumerInfo,
    Message,
    MessageCallback,
    Receive,
    Stored,
    StoredMessage,
    StreamInfo,
)
from bus.endpoints import Endpoints
from bus.objects import PIECE_BYTES, Objects
from bus.pull import Puller
from bus.tables import Table
from schemas.config import Config
from schemas.errors import AuthFailed, ConfigError, Disconnected, QueueFull, Retryable, Untrusted
from schemas.event import Alert

log = logging.getLogger("roost.bus")

SERVER_MIN = (2, 11, 0)
INBOX_PREFIX = "_R"
PAYLOAD_MARGIN = 16_384
"""Headers and envelope that the payload limit must leave room for."""
LIMITS_REACHED = {10077, 10047, 10023, 10026}
"""JetStream: maximum messages, storage or bytes exceeded."""
PATIENCE = 3
"""Attempts at one publish; the id makes them one message."""
STREAM_NOT_FOUND, STREAM_EXISTS, STREAM_STORE_FAILED = 10059, 10058, 10049
STORE_FAILED = "store_failed"
STORE_TRIES = 5


class _Error(Struct):
    err_code: int = 0
    description: str = ""


class _Ack(Struct):
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_ack = msgspec.json.Decoder(_Ack)


class Subscription:
    """Interest in a subject until `close`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def close(self) -> None:
        try:
            await self._inner.unsubscribe()
        except nats.errors.Error:  # the connection is closing: the interest ends with it
            return


class Bus:
    """One connection to NATS. Made by `connect`."""

    def __init__(self, client: Client, config: Config) -> None:
        self.nc = client
        self.js: JetStreamContext = client.jetstream(timeout=config.bus.request_timeout_s)
        self.config = config
        self.blobs = Blobs(self)
        self._timeout_s = config.bus.request_timeout_s
        self._ack_prefix = f"{INBOX_PREFIX}.ack.{secrets.token_hex(8)}"
        self._acks: dict[str, asyncio.Future[bytes | None]] = {}
        self._count = itertools.count()
        self._tables: dict[str, Table] = {}
        self.closing = False
        self.on_reconnect: list[Callable[[], None]] = []

    @classmethod
    async def connect(cls, endpoints: Endpoints, config: Config, *, name: str, wait: bool = True) -> Bus:
        """Connect; raises `ConfigError` for wrong addresses and old servers, `AuthFailed`, `Disconnected`.

        With `wait`, a server that is not there yet is waited for up to `bus.connect_timeout_s`.
        """
        seed = endpoints.nats_seed
        options: dict[str, Any] = {"reconnect_time_wait": 0.25}
        if seed is not None:
            options["user_credentials" if seed.endswith(".creds") else "nkeys_seed"] = seed
        if endpoints.nats_ca or any(s.startswith("tls://") for s in endpoints.nats):
            options["tls"] = ssl.create_default_context(cafile=endpoints.nats_ca)
        client = Client()
        holder: list[Bus] = []

        async def reconnected() -> None:
            log.info("%s: connected to the bus again", name)
            for bus in holder:
                for callback in bus.on_reconnect:
                    callback()

        async def lost() -> None:
            if not client.is_closed and not any(bus.closing for bus in holder):
                log.warning("%s: lost the bus; reconnecting", name)

        async def failed(error: Exception) -> None:
            log.debug("%s: bus: %r", name, error)
            if not holder and "authorization" in str(error).lower():  # the client itself would try for ever
                raise AuthFailed(f"the bus at {endpoints.nats[0]} refuses our credentials ({seed})")

        deadline = time.monotonic() + (config.bus.connect_timeout_s if wait else 0)
        while True:
            try:
                await asyncio.wait_for(
                    client.connect(
                        servers=list(endpoints.nats),
                        name=name,
                        allow_reconnect=True,
                        max_reconnect_attempts=-1,
                        connect_timeout=2,
                        ping_interval=20,
                        inbox_prefix=INBOX_PREFIX,
                        pending_size=16 * 1024 * 1024,
                        error_cb=failed,
                        disconnected_cb=lost,
                        reconnected_cb=reconnected,
                        **options,
                    ),
                    timeout=2.5,
                )
                break
            except AuthFailed:
                await client.close()
                raise
            except FileNotFoundError as error:  # before anything was opened
                raise ConfigError(f"bus.credentials: {error.filename} does not exist") from None
            except (OSError, TimeoutError, nats.errors.Error) as error:
                await client.close()
                client = Client()
                if time.monotonic() >= deadline:
                    raise Disconnected(f"no bus at {', '.join(endpoints.nats)}: {error or 'no answer'}") from None
                await asyncio.sleep(0.1)
        version = client.connected_server_version
        if (version.major, version.minor, version.patch) < SERVER_MIN:
            await client.close()
            wanted = ".".join(map(str, SERVER_MIN))
            raise ConfigError(
                f"nats-server {version.major}.{version.minor}.{version.patch} at {endpoints.nats[0]} is too old; "
                f"Roost needs {wanted} or newer"
            )
        bus = cls(client, config)
        holder.append(bus)
        await client.subscribe(f"{bus._ack_prefix}.*", cb=bus._acked)
        return bus

    @property
    def connected(self) -> bool:
        return self.nc.is_connected

    @property
    def payload_bytes_max(self) -> int:
        return self.nc.max_payload - PAYLOAD_MARGIN

    async def close(self) -> None:
        """Flush what was sent and leave, within the request time-out."""
        self.closing = True
        try:
            if self.nc.is_connected:
                await self.nc.flush(timeout=2)
        except (nats.errors.Error, TimeoutError, OSError):
            log.warning("the bus did not take the last messages in time")
        await self.nc.close()

    # -- publishing to streams --------------------------------------------------------------------------------

    async def _acked(self, msg: Msg) -> None:
        future = self._acks.pop(msg.subject[len(self._ack_prefix) + 1 :], None)
        if future is not None and not future.done():
            future.set_result(msg.data if msg.data else None)

    async def publish(
        self, subject: str, data: bytes, *, id: str | None = None, headers: dict[str, str] | None = None
    ) -> Stored:
        """Store one message. Raises `QueueFull` at a limit of the stream, `Retryable` when nothing confirmed it.

        Cancelling leaves open whether it was stored; call again with the same id to be sure.
        """
        if id is not None:
            headers = {**(headers or {}), "Nats-Msg-Id": id}
        if len(data) > self.payload_bytes_max:
            digest = await self.blobs.put(data)
            headers, data = {**(headers or {}), BLOB_HEADER: digest}, b""
        for attempt in range(PATIENCE):
            payload = await self._publish_once(subject, data, headers)
            if payload is not None:
                return self._stored(subject, payload)
            if id is None:
                break
            await asyncio.sleep(0.2 * 2**attempt)
        raise Retryable(f"the bus did not confirm a message on {subject}", code="bus_unavailable")

    async def _publish_once(self, subject: str, data: bytes, headers: dict[str, str] | None) -> bytes | None:
        """The raw receipt, or None when the server did not answer (time-out, or no JetStream there yet)."""
        key = str(next(self._count))
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._acks[key] = future
        try:
            await self.nc.publish(subject, data, f"{self._ack_prefix}.{key}", headers)
            async with asyncio.timeout(self._timeout_s):
                return await future
        except (TimeoutError, nats.errors.OutboundBufferLimitError, nats.errors.ConnectionReconnectingError):
            return None
        except nats.errors.ConnectionClosedError:
            raise Disconnected("the connection to the bus is closed") from None
        finally:
            self._acks.pop(key, None)

    def _stored(self, subject: str, payload: bytes) -> Stored:
        ack = _ack.decode(payload)
        if ack.error is None:
            return Stored(ack.seq, ack.duplicate)
        if ack.error.err_code in LIMITS_REACHED or "exceeded" in ack.error.description:
            one = "per subject" in ack.error.description
            raise QueueFull(
                "this conversation has too many unanswered messages; wait for an answer"
                if one
                else "the queue is full; try again later",
                after_s=5.0,
                code="conversation_full" if one else "queue_full",
            )
        raise Retryable(f"the bus refuses {subject}: {ack.error.description}", code="bus_unavailable")

    # -- core messages ----------------------------------------------------------------------------------------

    async def send(self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Publish without storage. While the link is down it is buffered up to a limit, then dropped."""
        try:
            await self.nc.publish(subject, data, reply, headers)
        except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionReconnectingError):
            log.warning("dropped a message on %s: the bus is away", subject)
        except nats.errors.ConnectionClosedError:
            raise Disconnected("the connection to the bus is closed") from None

    async def subscribe(self, subject: str, callback: MessageCallback, *, queue: str = "") -> Subscription:
        """Call `callback` for each message, one after the other; its exceptions are logged."""

        async def received(msg: Msg) -> None:
            try:
                await callback(Message(msg.subject, msg.data, msg.reply, msg.headers or {}))
            except Exception:
                log.exception("handler of %s failed", subject)

        return Subscription(await self.nc.subscribe(subject, queue=queue, cb=received))

    async def request(
        self, subject: str, data: bytes, timeout_s: float, *, headers: dict[str, str] | None = None
    ) -> bytes:
        """Ask and wait for one answer; raises `Retryable` when nobody answers in time."""
        try:
            msg = await self.nc.request(subject, data, timeout=timeout_s, headers=headers)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError, TimeoutError):
            raise Retryable(f"nobody answers on {subject}", code="no_answer") from None
        except nats.errors.Error as error:
            raise Disconnected(f"{subject}: {error}") from None
        return msg.data

    async def event(self, *what: str, body: Struct) -> None:
        """Store an event; a bus that is away loses it (events inform, they carry no work)."""
        try:
            await self.publish(subjects.event(*what), msgspec.json.encode(body))
        except (Retryable, Disconnected) as error:
            log.warning("event %s not stored: %s", ".".join(what), error.message)

    async def alert(self, code: str, message: str, *, level: str = "warning", part: str = "") -> None:
        log.warning("alert %s: %s", code, message)
        body = msgspec.convert(
            {"code": code, "message": message, "at": time.time(), "level": level, "part": part}, Alert
        )
        await self.event("alert", code, body=body)

    # -- JetStream's own interface ----------------------------------------------------------------------------

    async def api(self, what: str, body: object = None) -> dict[str, Any]:
        """One JetStream API call, as a dictionary (with `error` where the server refuses)."""
        data = b"" if body is None else msgspec.json.encode(body)
        deadline = time.monotonic() + 2 * self._timeout_s
        while True:
            try:
                answer = await self.request(f"$JS.API.{what}", data, self._timeout_s)
                return msgspec.json.decode(answer, type=dict[str, Any])
            except Retryable:  # JetStream starts a moment after the server listens
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def ensure_stream(self, name: str, spec: dict[str, Any]) -> None:
        """Create or update one stream; raises `ConfigError` when the server refuses, `Retryable` when it cannot now."""
        for _ in range(STORE_TRIES - 1):
            try:
                return await self._ensure_stream(name, spec)
            except Retryable as error:
                if error.code != STORE_FAILED:
                    raise
                await asyncio.sleep(error.after_s)
        return await self._ensure_stream(name, spec)

    async def _ensure_stream(self, name: str, spec: dict[str, Any]) -> None:
        info = await self.api(f"STREAM.INFO.{name}")
        if info.get("error", {}).get("err_code") == STREAM_NOT_FOUND:
            answer = await self.api(f"STREAM.CREATE.{name}", spec)
            if answer.get("error", {}).get("err_code") == STREAM_EXISTS:  # another part was faster
                answer = await self.api(f"STREAM.UPDATE.{name}", spec)
        elif "error" not in info and any(info["config"].get(key) != value for key, value in spec.items()):
            answer = await self.api(f"STREAM.UPDATE.{name}", {**info["config"], **spec})
        else:
            answer = info
        _refused(answer, f"stream {name}")

    async def ensure_consumer(self, stream: str, name: str, spec: dict[str, Any]) -> None:
        """Create or update one durable consumer; raises `ConfigError` when the server refuses."""
        answer = await self.api(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": spec})
        _refused(answer, f"consumer {name} of {stream}")

    async def consumer_info(self, stream: str, name: str) -> ConsumerInfo | None:
        """How far a consumer is; None when there is none."""
        info = await self.api(f"CONSUMER.INFO.{stream}.{name}")
        if "error" in info:
            return None
        return ConsumerInfo(
            delivered=int(info["delivered"]["stream_seq"]),
            unfinished=int(info["num_ack_pending"]),
            waiting=int(info["num_pending"]),
        )

    def pull(self, stream: str, consumer: str, receive: Receive, room: Callable[[], int]) -> Puller:
        """This process's share of a durable consumer, delivered to `receive`."""
        return Puller(self, stream, consumer, receive, room)

    async def head(self, stream: str, subject: str, *, leader: bool = False) -> int | None:
        """Sequence of the oldest message that `stream` holds on `subject`; None when it holds none.

        Any replica may answer and lag behind a little, unless `leader` asks the one that knows.
        """
        query = {"seq": 1, "next_by_subj": subject}
        if leader:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", query)
            if "message" not in answer and answer.get("error", {}).get("code") != 404:
                raise Retryable(f"{stream}: {answer.get('error')}", code="bus_unavailable")
            return int(answer["message"]["seq"]) if "message" in answer else None
        msg = await self._direct(stream, query)
        return None if msg is None else int((msg.headers or {})["Nats-Sequence"])

    async def get(self, stream: str, seq: int) -> StoredMessage | None:
        """One message of a stream by its sequence, with an oversize payload fetched from the blob store."""
        return await self._stored_message(await self._direct(stream, {"seq": seq}))

    async def next(self, stream: str, subject: str, seq: int) -> StoredMessage | None:
        """The first message on `subject` at or after `seq`."""
        return await self._stored_message(await self._direct(stream, {"seq": seq, "next_by_subj": subject}))

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message on `subject`."""
        return await self._stored_message(await self._direct(stream, {"last_by_subj": subject}))

    async def _direct(self, stream: str, query: dict[str, Any]) -> Msg | None:
        try:
            msg = await self.nc.request(
                f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(query), timeout=self._timeout_s
            )
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError, TimeoutError):
            raise Retryable(f"the bus does not answer for {stream}", code="bus_unavailable") from None
        except nats.errors.Error as error:
            raise Disconnected(f"{stream}: {error}") from None
        headers = msg.headers or {}
        return None if headers.get("Status") == "404" else msg

    async def _stored_message(self, msg: Msg | None) -> StoredMessage | None:
        if msg is None:
            return None
        headers = dict(msg.headers or {})
        data = await self.payload(headers, msg.data)
        subject, seq, stamp = (headers.pop(k) for k in ("Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp"))
        return StoredMessage(subject, data, headers, int(seq), _seconds(stamp))

    async def payload(self, headers: dict[str, str], data: bytes) -> bytes:
        """The payload of a received message: its own, or its blob's. Empty where that is gone or altered."""
        if BLOB_HEADER not in headers:
            return data
        try:
            blob = await self.blobs.get(headers[BLOB_HEADER])
        except Untrusted as error:
            log.warning("left out: %s", error.message)
            blob = None
        return b"" if blob is None else blob

    async def read(
        self, stream: str, subject: str, since: float | None = None, *, each: bool = False
    ) -> AsyncIterator[StoredMessage]:
        """Every stored message on `subject` (wildcards allowed), oldest first, up to the end as it is now.

        `each`: of a stream that keeps the newest message of each subject, all of which are asked for, and until each
        was there. One that is replaced meanwhile is behind the end, and would otherwise be missing.
        """
        info = await self.api(f"STREAM.INFO.{stream}")
        state = info.get("state", {"last_seq": 0, "messages": 0})
        seq, last, subjects = 1, int(state["last_seq"]), int(state["messages"]) if each else 0
        seen: set[str] = set()
        while seq <= last or len(seen) < subjects:
            msg = await self.next(stream, subject, seq)
            if msg is None or (msg.seq > last and len(seen) >= subjects):
                return
            if each:
                seen.add(msg.subject)
            if since is None or msg.time >= since:
                yield msg
            seq = msg.seq + 1

    async def delete(self, stream: str, seq: int) -> bool:
        """Delete one message; False when it was not there."""
        answer = await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True})
        return bool(answer.get("success"))

    async def purge(self, stream: str, subject: str = "") -> int:
        """Delete every message of a stream (on `subject`); returns how many."""
        answer = await self.api(f"STREAM.PURGE.{stream}", {"filter": subject} if subject else None)
        return int(answer.get("purged", 0))

    async def stream_infos(self) -> dict[str, StreamInfo]:
        """Counts of every declared stream."""
        from bus.streams import declared

        found: dict[str, StreamInfo] = {}
        for name in declared(self.config):
            info = await self.api(f"STREAM.INFO.{name}")
            if "state" not in info:
                continue
            state = info["state"]
            pending = 0
            if info["config"].get("retention") == "workqueue":
                pending = state["messages"]
            found[name] = StreamInfo(state["messages"], state["bytes"], pending, state["last_seq"])
        return found

    def table(self, name: str) -> Table:
        """A declared key-value table: MODELS, WORKERS, CONNECTORS, POWER or KEYS."""
        if name not in self._tables:
            self._tables[name] = Table(self, name)
        return self._tables[name]

    def objects(self, bucket: str) -> Objects:
        """A declared object store: BLOBS or RELEASES."""
        return Objects(self, bucket, piece_bytes=min(PIECE_BYTES, self.payload_bytes_max))


def _refused(answer: dict[str, Any], what: str) -> None:
    if error := answer.get("error"):
        if error.get("err_code") == STREAM_STORE_FAILED:  # files of a stream that was just deleted are still going
            raise Retryable(f"the bus cannot store {what}: {error.get('description')}", after_s=0.2, code=STORE_FAILED)
        raise ConfigError(f"the bus refuses {what}: {error.get('description', error)}")


def _seconds(stamp: str) -> float:
    """RFC 3339 with nanoseconds → Unix seconds."""
    from datetime import datetime

    whole, _, rest = stamp.partition(".")
    digits = rest.rstrip("Z")[:6].ljust(6, "0") if rest else "000000"
    return datetime.fromisoformat(f"{whole.rstrip('Z')}.{digits}+00:00").timestamp()
