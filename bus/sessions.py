"""Conversation state and request states in Redis, Redis Cluster or Valkey.

What always holds: everything that belongs to one conversation has one hash tag, so that each step below is one
atomic script on one node; every key has an age; texts are sealed (`bus/crypto.py`). A request is finished once:
the first answer stays, a second one is told so. Redis holds no only copy: answers are on the bus as well.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, RedisClusterException, RedisError, ResponseError

from bus import scripts
from bus.contract import Begun
from bus.crypto import Envelope, data_key
from bus.endpoints import Endpoints, secret
from schemas.config import SessionConfig
from schemas.errors import AuthFailed, ConfigError, Retryable, Untrusted
from schemas.message import RequestState, token
from schemas.session import Entry, SessionInfo

log = logging.getLogger("roost.sessions")

SERVER_MIN = (6, 2)
NEEDED = "Roost needs Redis 6.2, Valkey 7.2 or newer"
TITLE_CHARS = 80
CONNECTIONS_MAX = 16
_entry = msgspec.json.Decoder(Entry)
_state = msgspec.json.Decoder(RequestState)
_encode = msgspec.json.encode


class Sessions:
    """One connection pool. Every method raises `Retryable` while the server is away."""

    def __init__(self, client: Any, config: SessionConfig, envelope: Envelope) -> None:
        self._redis = client
        self._config = config
        self._envelope = envelope
        self._begin = client.register_script(scripts.BEGIN)
        self._finish = client.register_script(scripts.FINISH)
        self._accept = client.register_script(scripts.ACCEPT)

    @classmethod
    def connect(cls, endpoints: Endpoints, config: SessionConfig, data: Path) -> Sessions:
        """Connections are made on first use; `check` makes the first."""
        password = secret(endpoints.redis_password, "sessions.password")
        options: dict[str, Any] = {
            "password": password,
            "socket_timeout": config.timeout_s,
            "socket_connect_timeout": config.timeout_s,
        }
        url = endpoints.redis
        client: Any
        if url.partition("://")[0] in ("redis+cluster", "rediss+cluster"):
            client = RedisCluster.from_url(url.replace("+cluster", "", 1), **options)
        else:
            # as many as can be of use at once; a burst of requests waits for one of them instead of opening more
            pool = redis.BlockingConnectionPool
            options["max_connections"], options["timeout"] = CONNECTIONS_MAX, config.timeout_s
            options["retry"] = Retry(ExponentialBackoff(cap=1.0, base=0.05), retries=6)
            options["retry_on_error"] = [redis.ConnectionError, redis.TimeoutError]
            client = redis.Redis.from_pool(pool.from_url(url, **options))
        return cls(client, config, Envelope(data_key(data)))

    async def check(self) -> None:
        """Reach the server and look at its version; raises `ConfigError`, `AuthFailed` or `Retryable`."""
        async with self._errors():
            try:
                info = await self._redis.info("server")
            except AuthenticationError as error:
                raise AuthFailed(f"sessions: the server refuses our password: {error}") from None
            except ResponseError as error:
                if "unknown command" not in str(error).lower():
                    raise
                raise ConfigError(f"sessions: the server is too old ({error}); {NEEDED}") from None
        if "redis_version" not in info and info:
            info = next(iter(info.values()))
        version = str(info.get("redis_version", "0"))
        if tuple(int(p) for p in version.split(".")[:2]) < SERVER_MIN:
            raise ConfigError(f"sessions: server {version} is too old; {NEEDED}")

    async def claim_empty(self) -> bool:
        """True, once, for a server that has never held this installation's sessions; see `workers/host/rebuild.py`."""
        async with self._errors():
            return bool(await self._redis.set("roost:installed", int(time.time()), nx=True))

    async def close(self) -> None:
        await self._redis.aclose()

    async def ping(self) -> bool:
        async with self._errors():
            return bool(await self._redis.ping())

    @contextlib.asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        try:
            yield
        except ResponseError as error:
            if "LOADING" in str(error) or "MOVED" in str(error) or "OOM" in str(error):
                raise Retryable(f"sessions: {error}", code="sessions_unavailable") from None
            raise
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            raise Retryable(f"sessions: the server does not answer: {error}", code="sessions_unavailable") from None

    # -- keys -------------------------------------------------------------------------------------------------

    @staticmethod
    def _slot(channel: str, conversation: str) -> str:
        return f"roost:{{{channel}.{conversation}}}"

    @staticmethod
    def _people(channel: str, sender: str) -> str:
        return f"roost:{{{channel}.{token(sender)}}}"

    def _open(self, sealed: bytes, name: str) -> bytes | None:
        try:
            return self._envelope.open(sealed, name)
        except Untrusted as error:
            log.warning("left out a value of another key: %s", error.message)
            return None

    # -- requests ---------------------------------------------------------------------------------------------

    @staticmethod
    def _located(state: RequestState) -> bool:
        """A request that is a conversation of its own is found by its id alone; others need a pointer."""
        return state.conversation == state.id

    async def _point(self, state: RequestState) -> None:
        if not self._located(state):
            at = f"roost:at:{state.channel}.{state.id}"
            await self._redis.set(at, state.conversation, ex=self._config.request_age_s)

    async def _at(self, channel: str, request: str) -> str:
        """The conversation of a request."""
        at = await self._redis.get(f"roost:at:{channel}.{request}")
        return at.decode() if at is not None else request

    async def accept(self, state: RequestState) -> None:
        """Record an accepted request unless a worker was faster, and list it among its sender's open ones."""
        key = f"{self._slot(state.channel, state.conversation)}:request:{state.id}"
        age = self._config.request_age_s
        async with self._errors():
            await self._point(state)
            await self._accept(keys=[key], args=[self._envelope.seal(_encode(state), key), age])
            people = self._people(state.channel, state.sender) + ":open"
            await self._redis.zadd(people, {f"{state.conversation}.{state.id}": state.updated_at})
            await self._redis.expire(people, age)

    async def find(self, channel: str, request: str) -> RequestState | None:
        """The state of a request, or None when it is unknown or aged out."""
        found = await self._read(channel, request, request)
        if found is None:
            async with self._errors():
                conversation = await self._at(channel, request)
            if conversation != request:
                found = await self._read(channel, conversation, request)
        return found

    async def _read(self, channel: str, conversation: str, request: str) -> RequestState | None:
        key = f"{self._slot(channel, conversation)}:request:{request}"
        async with self._errors():
            row = await self._redis.hmget(key, "s", "d")
        if row[0] is None or row[1] is None:
            return None
        plain = self._open(row[1], key)
        if plain is None:
            return None
        state, now = _state.decode(plain), row[0].decode()
        reply = state.reply if now in ("answered", "dead") else None  # a requeued request has only its old one
        return msgspec.structs.replace(state, state=now, reply=reply)

    async def cancel(self, channel: str, request: str) -> None:
        """Remember that a request is not wanted any more, for the worker that will begin it."""
        async with self._errors():
            conversation = await self._at(channel, request)
            key = f"{self._slot(channel, conversation)}:request:{request}"
            await self._redis.hset(key, "cancel", "1")
            await self._redis.expire(key, self._config.request_age_s)

    async def begin(self, state: RequestState, worker: str, *, stateful: bool, force: bool = False) -> Begun:
        """Claim a request for `worker`, or learn that it is answered or belongs to another worker.

        `force` takes it over (the owner is dead). `stateful` requests read their history and own their conversation.
        """
        slot = self._slot(state.channel, state.conversation)
        key = f"{slot}:request:{state.id}"
        age = self._config.request_age_s
        async with self._errors():
            found = await self._begin(
                keys=[key, f"{slot}:history", f"{slot}:owner"],
                args=[
                    worker,
                    self._envelope.seal(_encode(state), key),
                    age,
                    int(stateful),
                    int(force),
                    self._config.age_s_max,
                ],
            )
        what, value, cancelled, lines = found
        if what == b"done":
            plain = self._open(value, key)
            done = _state.decode(plain) if plain else None
            return Begun(reply=done.reply if done else None)
        if what == b"owned":
            return Begun(owner=value.decode())
        return Begun(cancelled=bool(cancelled), history=self._entries(slot, lines))

    async def reopen(self, state: RequestState, mark: str) -> None:
        """Forget how a request ended, once for each `mark`: the operator has sent its dead letter again."""
        key = f"{self._slot(state.channel, state.conversation)}:request:{state.id}"
        async with self._errors():
            if await self._redis.hget(key, "again") != mark.encode():
                await self._redis.hset(key, mapping={"s": "queued", "again": mark})

    async def finish(self, state: RequestState, entries: Sequence[Entry], *, drop: int = 0) -> RequestState:
        """Record the answer and extend the history, in one step. Returns what is recorded: this, or an earlier one.

        `drop` oldest entries leave the history.
        """
        slot = self._slot(state.channel, state.conversation)
        key, name = f"{slot}:request:{state.id}", f"{slot}:history"
        sealed = [self._envelope.seal(_encode(entry), name) for entry in entries]
        age = self._config.request_age_s
        async with self._errors():
            earlier = await self._finish(
                keys=[key, name, f"{slot}:forgotten"],
                args=[
                    state.state,
                    self._envelope.seal(_encode(state), key),
                    age,
                    self._config.age_s_max,
                    drop,
                    entries[0].at if entries else 0,
                    *sealed,
                ],
            )
        if earlier:
            plain = self._open(earlier, key)
            if plain is not None:
                return _state.decode(plain)
        return state

    async def settle(self, state: RequestState, *, title: str = "") -> None:
        """After `finish`: lists of the sender. Losing this loses comfort, never an answer."""
        async with self._errors():
            await self._point(state)
            people = self._people(state.channel, state.sender)
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrem(f"{people}:open", f"{state.conversation}.{state.id}")
            if await self._redis.exists(f"{self._slot(state.channel, state.conversation)}:history"):  # not forgotten
                pipe.zadd(f"{people}:conversations", {state.conversation: state.updated_at})
                sealed = self._envelope.seal(title[:TITLE_CHARS].encode(), f"{people}:titles")
                pipe.hsetnx(f"{people}:titles", state.conversation, sealed)
            for name in ("conversations", "titles"):
                pipe.expire(f"{people}:{name}", self._config.age_s_max)
            await pipe.execute()

    async def open_requests(self, channel: str, sender: str) -> list[RequestState]:
        """Accepted and unanswered requests of one sender, oldest first."""
        people = self._people(channel, sender) + ":open"
        async with self._errors():
            members = await self._redis.zrange(people, 0, -1)
            found = []
            for member in members:
                conversation, _, request = member.decode().partition(".")
                state = await self._read(channel, conversation, request)
                if state is not None and state.state in ("queued", "running"):
                    found.append(state)
                else:
                    await self._redis.zrem(people, member)
        return found

    # -- conversations ----------------------------------------------------------------------------------------

    def _entries(self, slot: str, lines: Sequence[bytes]) -> tuple[Entry, ...]:
        name = f"{slot}:history"
        opened = (self._open(line, name) for line in lines)
        return tuple(_entry.decode(plain) for plain in opened if plain is not None)

    async def history(self, channel: str, conversation: str) -> tuple[Entry, ...]:
        slot = self._slot(channel, conversation)
        async with self._errors():
            return self._entries(slot, await self._redis.lrange(f"{slot}:history", 0, -1))

    async def conversations(self, channel: str, sender: str) -> list[SessionInfo]:
        """Newest first."""
        people = self._people(channel, sender)
        async with self._errors():
            rows = await self._redis.zrange(f"{people}:conversations", 0, -1, desc=True, withscores=True)
            titles = await self._redis.hgetall(f"{people}:titles")
        found = []
        for raw, score in rows:
            plain = self._open(titles[raw], f"{people}:titles") if raw in titles else b""
            found.append(SessionInfo(conversation=raw.decode(), title=(plain or b"").decode(), updated_at=float(score)))
        return found

    async def forget(self, channel: str, conversation: str, sender: str) -> None:
        """Delete a conversation's history and its line in the sender's list; answers under way do not bring it back."""
        people, slot = self._people(channel, sender), self._slot(channel, conversation)
        async with self._errors():
            await self._redis.set(f"{slot}:forgotten", time.time(), ex=self._config.request_age_s)
            await self._redis.delete(f"{slot}:history")
            await self._redis.zrem(f"{people}:conversations", conversation)
            await self._redis.hdel(f"{people}:titles", conversation)

    async def truncate(self, channel: str, conversation: str, request: str) -> None:
        """Drop the exchange `request` and everything after it."""
        name = f"{self._slot(channel, conversation)}:history"
        for i, entry in enumerate(await self.history(channel, conversation)):
            if entry.request == request:
                async with self._errors():
                    if i == 0:
                        await self._redis.delete(name)
                    else:
                        await self._redis.ltrim(name, 0, i - 1)
                return

    # -- egress -----------------------------------------------------------------------------------------------

    async def was_sent(self, request: str) -> bool:
        async with self._errors():
            return bool(await self._redis.exists(f"roost:sent:{request}"))

    async def mark_sent(self, marks: Sequence[str]) -> None:
        """Remember that the platform has confirmed these answers."""
        async with self._errors():
            pipe = self._redis.pipeline(transaction=False)
            for mark in marks:
                pipe.set(f"roost:sent:{mark}", int(time.time()), ex=self._config.request_age_s)
            await pipe.execute()


def trim(entries: Sequence[Entry], added: int, added_chars: int, config: SessionConfig) -> int:
    """How many of the oldest `entries` must go so that the limits hold once `added` more are appended."""
    count = len(entries) + added
    chars = sum(len(e.text) for e in entries) + added_chars
    drop = 0
    for entry in entries:
        if count <= config.turns_max and chars <= config.chars_max:
            break
        count -= 1
        chars -= len(entry.text)
        drop += 1
    return drop
