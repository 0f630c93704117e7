"""Conversations over HTTP and NATS that note every request, for `account.py`.

Every second talker speaks HTTP and reads a stream; of the others, half read a stream and half one answer. What always
holds: a request that a talker began is in `Load.replies`, whatever became of it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import msgspec
import nats
from msgspec import Struct, field
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.account import Reply
from benchmarks.load import session
from benchmarks.updating import Updated

ANSWER_S = 120.0
"""A request without an answer for this long counts as lost."""
TURNS = 4
"""Of each conversation; then the talker begins another."""
Question = Callable[[int], str]


class Load(Struct, kw_only=True):
    """What the talkers are to do until `stop`; `replies` has what they have done."""

    name: str
    talkers: int
    tokens: int
    question: Question
    replies: list[Reply] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, talker: int) -> Reply:
        reply = Reply(id=f"{self.name}-{talker}-{len(self.replies)}", began=time.time())
        self.replies.append(reply)
        return reply


@asynccontextmanager
async def talking(roost: Updated, load: Load) -> AsyncIterator[None]:
    """All of them talk meanwhile; at the end each waits for its answer."""
    task = asyncio.create_task(_talk(roost, load))
    try:
        yield
    finally:
        load.stop.set()
        await task


async def _talk(roost: Updated, load: Load) -> None:
    client = await nats.connect(roost.stack.nats, nkeys_seed=roost.stack.client_nkey)
    try:
        async with session(roost.endpoint) as http:
            inbox = await Inbox.open(client)
            async with asyncio.TaskGroup() as group:
                for i in range(load.talkers):
                    if i % 2 == 0:
                        group.create_task(_over_http(http, roost, load, i))
                    else:
                        group.create_task(_over_nats(inbox, load, i, stream=i % 4 == 1))
            await client.flush()  # a second answer that is on its way still counts
    finally:
        await client.close()


# -- HTTP -------------------------------------------------------------------------------------------------------


async def _over_http(http: aiohttp.ClientSession, roost: Updated, load: Load, talker: int) -> None:
    while not load.stop.is_set():
        messages: list[dict[str, str]] = []
        for _ in range(TURNS):
            reply = load.begin(talker)
            messages.append({"role": "user", "content": load.question(len(load.replies))})
            body = {
                "model": roost.endpoint.model, "messages": messages, "max_tokens": load.tokens, "temperature": 0,
                "ignore_eos": True, "stream": True, "user": f"talker-{talker}",
            }  # fmt: skip
            try:
                async with asyncio.timeout(ANSWER_S):
                    await _read(http, f"{roost.endpoint.url}/chat/completions", body, reply)
            except TimeoutError:
                pass
            except (aiohttp.ClientError, msgspec.MsgspecError) as error:
                reply.error = repr(error)[:300]
            reply.ended = time.time()
            messages.append({"role": "assistant", "content": reply.text or "-"})
            if load.stop.is_set():
                return


async def _read(http: aiohttp.ClientSession, url: str, body: dict[str, Any], reply: Reply) -> None:
    """One stream to the end of the connection: what came after an end would be counted too."""
    async with http.post(url, json=body, headers={"Idempotency-Key": reply.id}) as response:
        if response.status != 200:
            reply.error = f"{response.status} {(await response.text())[:200]}"
            return
        text = ""
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = msgspec.json.decode(line[6:])
            if "error" in event:
                reply.error = str(event["error"])[:300]
                return
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                reply.ends += choice["finish_reason"] is not None
            if ours := event.get("roost"):
                reply.request, reply.version = ours["request"], ours["version"]
        reply.text = reply.streamed = text


# -- NATS -------------------------------------------------------------------------------------------------------


class _Waiting:
    """One request: the pieces so far, and the answer."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.pieces = ""
        self.whole = True
        self.attempt = 1
        self.answered = asyncio.Event()

    def take(self, body: dict[str, Any]) -> None:
        if "finish" not in body and "error" not in body:
            self._piece(body)
            return
        reply = self.reply
        reply.ends += 1
        if "error" in body:
            reply.error = str(body["error"])[:300]
        else:
            reply.request, reply.version, reply.text = body["request"], body.get("version", ""), body.get("text", "")
            if self.pieces and self.whole:
                reply.streamed = self.pieces
        self.answered.set()

    def _piece(self, body: dict[str, Any]) -> None:
        attempt, at, text = body.get("attempt", 1), body.get("at", 0), body.get("text", "")
        if not text:
            return
        if attempt > self.attempt:
            self.attempt, self.pieces, self.whole = attempt, "", True
        self.whole = self.whole and attempt == self.attempt and at == len(self.pieces)
        self.pieces += text


class Inbox:
    """One subscription for the answers of all talkers, for as long as they talk: a second answer is seen too."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._prefix = client.new_inbox()
        self._waiting: list[_Waiting] = []

    @classmethod
    async def open(cls, client: Client) -> Inbox:
        inbox = cls(client)
        await client.subscribe(f"{inbox._prefix}.*", cb=inbox._arrived)
        return inbox

    async def ask(self, body: dict[str, Any], reply: Reply) -> None:
        """Ask, and wait for the answer; raises `TimeoutError`."""
        waiting = _Waiting(reply)
        self._waiting.append(waiting)
        subject = f"{self._prefix}.{len(self._waiting) - 1}"
        await self.client.publish("roost.ask", json.dumps({**body, "id": reply.id}).encode(), reply=subject)
        async with asyncio.timeout(ANSWER_S):
            await waiting.answered.wait()

    async def _arrived(self, message: Msg) -> None:
        number = int(message.subject.rpartition(".")[2])
        if message.data:
            self._waiting[number].take(msgspec.json.decode(message.data))
        else:  # nobody listens
            self._waiting[number].take({"error": str(message.headers)})


async def _over_nats(inbox: Inbox, load: Load, talker: int, *, stream: bool) -> None:
    conversation = 0
    while not load.stop.is_set():
        conversation += 1
        for _ in range(TURNS):
            reply = load.begin(talker)
            body = {
                "text": load.question(len(load.replies)), "conversation": f"{load.name}-{talker}-{conversation}",
                "max_tokens": load.tokens, "temperature": 0, "ignore_eos": True, "stream": stream,
            }  # fmt: skip
            with suppress(TimeoutError):
                await inbox.ask(body, reply)
            reply.ended = time.time()
            if load.stop.is_set():
                return
