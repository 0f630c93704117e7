"""Conversations that never stop asking while something is done to a Roost, and the account of what they got.

What always holds: a talker asks for one answer until it has it, with the same id each time, as a client should; what it
asked is in the account whatever became of it.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import nats.errors
from msgspec import Struct, field

from schemas.turn import Turn

ANSWER_S = 5.0
"""Then it asks again, by default."""
TURNS = 4
"""Of each conversation; then the talker begins another."""


class Reply(Struct, kw_only=True):
    """One question, and all that came back for it."""

    id: str
    words: str
    model: str
    request: str = ""
    """Roost's id of it."""
    version: str = ""
    text: str | None = None
    others: list[str] = field(default_factory=list)
    """Answers that came after the first one, and are not the same."""
    streamed: str | None = None
    """The pieces put together; None where none were asked for, or one did not come."""
    asked: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Errors that it was told, by code."""

    @property
    def release(self) -> str:
        """The version's name of the release; of one that was put there by hand, `0`."""
        release, plus, _ = self.version.partition("+")
        return release if plus else "0"


class Pieces:
    """Pieces of one answer, of the newest attempt at it."""

    def __init__(self) -> None:
        self.attempt = 0
        self.text: str | None = None

    def take(self, piece: dict[str, Any]) -> None:
        text, at, attempt = piece.get("text", ""), piece.get("at", 0), piece.get("attempt", 1)
        if not text:
            return
        if attempt > self.attempt:
            self.attempt, self.text = attempt, ""
        if self.text is None or attempt < self.attempt or at != len(self.text):
            self.text = None
            return
        self.text += text


class Talk:
    """`count` conversations with `models` in turn. Use it by `talking`."""

    def __init__(
        self, client: Any, models: Iterable[str], *, count: int, words: int, name: str, answer_s: float, **body: Any
    ) -> None:
        self.client = client
        self.models = tuple(models)
        self.count = count
        self.words = words
        self.name = name
        self.answer_s = answer_s
        self.body = body
        self.replies: list[Reply] = []
        self.stop = asyncio.Event()

    async def live(self, number: int) -> None:
        model, index = self.models[number % len(self.models)], 0
        while not self.stop.is_set():
            conversation = f"{self.name}-{number}-{index // TURNS}"
            id_ = f"{conversation}-{index}"
            reply = Reply(id=id_, words=" ".join((id_, *(f"w{k}" for k in range(self.words - 1)))), model=model)
            self.replies.append(reply)
            await self.ask(reply, conversation, stream=number % 2 == 0)
            index += 1

    async def ask(self, reply: Reply, conversation: str, *, stream: bool) -> None:
        inbox = self.client.new_inbox()
        heard = await self.client.subscribe(inbox)
        body = {"id": reply.id, "text": reply.words, "conversation": conversation, "model": reply.model}
        asked = json.dumps({**body, "stream": stream, **self.body}).encode()
        while reply.text is None:
            reply.asked += 1
            pieces = Pieces()
            try:
                await self.client.publish("roost.ask", asked, reply=inbox)
                while reply.text is None:
                    message = await heard.next_msg(timeout=self.answer_s)
                    if not message.data:  # nobody serves the front door at the moment
                        break
                    answer = json.loads(message.data)
                    if "finish" not in answer and "error" not in answer:
                        pieces.take(answer)
                        continue
                    self.take(reply, answer)
                    break
            except (nats.errors.TimeoutError, nats.errors.OutboundBufferLimitError):
                continue
            if reply.text is None:
                await asyncio.sleep(0.1)
            elif reply.asked == 1:
                reply.streamed = pieces.text
        while heard.pending_msgs:
            self.take(reply, json.loads((await heard.next_msg()).data or b"{}"))
        await heard.unsubscribe()

    @staticmethod
    def take(reply: Reply, answer: dict[str, Any]) -> None:
        if "error" in answer:
            code = answer["error"]["code"]
            reply.refused[code] = reply.refused.get(code, 0) + 1
        elif "finish" not in answer:
            return
        elif reply.text is None:
            reply.request, reply.version = answer["request"], answer.get("version", "")
            reply.text = answer.get("text", "")
        elif answer.get("text", "") != reply.text:
            reply.others.append(answer.get("text", ""))

    @property
    def answered(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.text is not None]

    def since(self, count: int, model: str = "") -> list[Reply]:
        """Answered ones of those that were asked after the first `count`."""
        return [r for r in self.replies[count:] if r.text is not None and model in ("", r.model)]


@asynccontextmanager
async def talking(
    roost: Any, *models: str, count: int = 4, words: int = 8, name: str = "t", answer_s: float = ANSWER_S, **body: Any
) -> AsyncIterator[Talk]:
    """They talk meanwhile; at the end each waits for its answer."""
    client = await roost.client(max_reconnect_attempts=-1, reconnect_time_wait=0.05, pending_size=2**24)
    talk = Talk(client, models or ("talk",), count=count, words=words, name=name, answer_s=answer_s, **body)
    try:
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(talk.live(number))
            try:
                yield talk
            finally:
                talk.stop.set()
    finally:
        await client.close()


def faults(
    talk: Talk, turns: Iterable[Turn], good: Iterable[str], *, marked: bool = True, cut: bool = False
) -> list[str]:
    """Whatever is wrong with what they got, a line each: lost, doubled, mixed, or from a version that must not serve.

    `marked`: each word says which version it is from. `cut`: the line was cut now and then, so that pieces may lack.
    """
    recorded: dict[str, list[Turn]] = defaultdict(list)
    for turn in turns:
        recorded[turn.id].append(turn)
    allowed = set(good)
    found = []
    for reply in talk.replies:
        place = f"{reply.id} ({reply.request}, {reply.version}, asked {reply.asked} times)"
        lines = recorded[reply.request]
        if reply.text is None:
            found.append(f"{place}: lost")
            continue
        if len(lines) != 1 or reply.others:
            found.append(f"{place}: {len(lines)} turns, other answers {reply.others}")
        marks = {word.rpartition("~")[2] for word in reply.text.split()} if marked else {reply.release}
        if marks != {reply.release} or reply.release not in allowed:
            found.append(f"{place}: its words are of {sorted(marks)}")
        if reply.streamed not in (None, reply.text) and not (cut and reply.text.startswith(reply.streamed or "")):
            found.append(f"{place}: the pieces were {reply.streamed!r}, the answer is {reply.text!r}")
        if marked and [word.rpartition("~")[0] for word in reply.text.split()] != reply.words.split():
            found.append(f"{place}: not what was asked: {reply.text!r}")
        if any((turn.text, turn.version) != (reply.text, reply.version) for turn in lines):
            found.append(f"{place}: its turn is {[(t.version, t.text) for t in lines]}")
    return found
