"""A plain client of `roost.ask` on the bus: send a question, follow the answer, stop it.

What always holds: an answer is not lost because a part was restarted while we waited; when the stream falls silent
the state of the request is asked for by its id.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from msgspec import Struct

from bus import subjects
from bus.client import Bus
from bus.contract import Message
from schemas import ask
from schemas.errors import Disconnected, Rejected, Retryable
from schemas.message import Attachment, Delta

SILENCE_S = 3.0
STATE_TIMEOUT_S = 2.0
NO_RESPONDERS = "503"


class Answer(Struct, frozen=True, kw_only=True):
    """The final reply of `roost.ask`."""

    id: str
    text: str = ""
    request: str = ""
    model: str = ""
    version: str = ""
    conversation: str = ""
    finish: str = "stop"
    usage: dict[str, int] = {}
    timings: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    """Pictures."""


class Question:
    """One question under way. Iterate for `Delta`s, with one `Answer` at last; raises `Rejected` or `Retryable`."""

    def __init__(self, bus: Bus, text: str, **fields: object) -> None:
        self.bus = bus
        self.id = secrets.token_hex(12)
        given = {key: value for key, value in fields.items() if value not in (None, "")}
        self.body = {"id": self.id, "text": text, "stream": True, **given}
        self._heard: asyncio.Queue[Message] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Delta | Answer]:
        inbox = f"_R.cli.{secrets.token_hex(12)}"
        subscription = await self.bus.subscribe(inbox, self._heard.put)
        try:
            async with asyncio.timeout(self.bus.config.limits.answer_timeout_s):
                await self.bus.send(subjects.ASK, msgspec.json.encode(self.body), reply=inbox)
                accepted = False
                while True:
                    message = await self._next()
                    news = decode(message) if message is not None else await self._state(accepted)
                    accepted = True
                    if news is not None:
                        yield news
                    if isinstance(news, Answer):
                        return
        except TimeoutError:
            limit = self.bus.config.limits.answer_timeout_s
            raise Retryable(f"no answer within {limit:.0f} s; it is kept under the id {self.id}") from None
        finally:
            await subscription.close()

    async def _next(self) -> Message | None:
        try:
            async with asyncio.timeout(SILENCE_S):
                return await self._heard.get()
        except TimeoutError:
            return None

    async def _state(self, accepted: bool) -> Delta | Answer | None:
        """How the request stands, when its stream is silent."""
        try:
            raw = await self.bus.request(subjects.ASK_STATE, msgspec.json.encode({"id": self.id}), STATE_TIMEOUT_S)
            known = msgspec.json.decode(raw, type=dict[str, Any])
            if "error" in known:
                return None
            state = msgspec.convert(known, ask.Told)
            reply = known.get("reply")
        except (Retryable, Disconnected, msgspec.MsgspecError):
            return None  # the part is on its way back
        if reply is not None:
            return told(reply)
        if state.state == "dead":
            raise Rejected(f"the message could not be handled: {state.reason}; see `roost dead list`", code="dead")
        place = state.place if isinstance(state.place, int) else None
        return Delta(request=state.id, state=state.state, place=place) if place else None

    async def cancel(self) -> None:
        """Ask for the answer to be ended; the `Answer` then has `finish="cancelled"`."""
        await self.bus.send(subjects.ASK_CANCEL, msgspec.json.encode({"id": self.id}))


def decode(message: Message) -> Delta | Answer:
    """One message on the reply subject; raises `Rejected` for an error reply."""
    if message.headers.get("Status") == NO_RESPONDERS:
        raise Retryable("nobody takes questions; is the connector `nats` configured and ready? See `roost status`")
    try:
        return told(msgspec.json.decode(message.data, type=dict[str, Any]))
    except msgspec.MsgspecError as error:
        raise Retryable(f"an answer that cannot be read: {error}") from None


def told(body: dict[str, Any]) -> Delta | Answer:
    """A delta or an answer; raises `Rejected` for an error, and `MsgspecError`."""
    if "error" in body:
        problem = body["error"]
        raise Rejected(str(problem.get("message", problem)), code=str(problem.get("code", "rejected")))
    return msgspec.convert(body, Answer) if "id" in body else msgspec.convert(body, Delta)
