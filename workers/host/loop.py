"""The worker's side of the straight line: from a delivery of INBOX to a reply in OUTBOX.

Safe to be killed between any two lines: the answer is recorded with its conversation in one step (`sessions.finish`),
published under an id that derives from the request, and only then is the delivery acknowledged. A second delivery
finds the record and publishes the same answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from bus import subjects
from bus.blobs import BLOB_HEADER
from bus.consume import AGAIN, Consumer, HandedOver, Handler
from bus.contract import Begun, Bus, Message, Sessions
from bus.dead import REQUEUED
from bus.pull import Delivery
from bus.sessions import trim
from schemas.config import ModelConfig
from schemas.errors import Disconnected, Rejected, Retryable, RoostError, Untrusted
from schemas.message import Delta, Inbound, Outbound, Timings
from schemas.model import FailedAnswer
from schemas.session import Entry
from schemas.turn import turn_of
from workers import Finished, Job
from workers.host import files
from workers.host.able import check_able
from workers.host.lane import Lane, Superseded
from workers.host.pipeline import CONVERSATIONS, entries_of, job_of, refusal_of, reply_of, state_of
from workers.host.resident import Gone, Resident, Withdrawn
from workers.host.said import Said

log = logging.getLogger("roost.loop")

HAND_OVER_S = 2.0
OFFERS_MAX = 20
OUTAGES = {"sessions_unavailable", "bus_unavailable"}
_inbound = msgspec.json.Decoder(Inbound)
_encode = msgspec.json.encode
T = TypeVar("T")


class Beside(Protocol):
    """A version beside the one that serves."""

    def pick(self, inbound: Inbound, history: Sequence[Entry]) -> Resident | None:
        """Where a request is to be answered, if not by the version that serves."""

    def heard(self, inbound: Inbound, history: Sequence[Entry], reply: Outbound) -> None:
        """A request was answered; returns at once."""


class ModelLoop(Handler):
    """Answers the requests of one model on whichever lane it has at the moment."""

    def __init__(
        self,
        bus: Bus,
        sessions: Sessions,
        worker: str,
        model: ModelConfig,
        resident: Resident,
        at_work: Callable[[], object] = bool,
        *,
        beside: Beside | None = None,
    ) -> None:
        self._bus = bus
        self._sessions = sessions
        self._worker = worker
        self.model = model
        """As configured at the moment."""
        self._resident = resident
        self._at_work = at_work
        """Called before each job."""
        self._beside = beside

    # -- Handler ----------------------------------------------------------------------------------------------

    def alone(self, delivery: Delivery) -> bool:
        """Requests that bring their own history have a conversation to themselves."""
        return b'"history":' in delivery.data

    async def handle(self, delivery: Delivery) -> None:
        inbound = self._decode(delivery)
        begun = await self._begin(inbound, delivery)
        if begun.reply is not None:
            await self._publish(inbound, begun.reply, delivery)
            return
        reply = reply_of(inbound, "", Finished(finish="cancelled"), self._resident.version, Timings())
        if not begun.cancelled:
            self._at_work()
            with contextlib.suppress(Withdrawn):
                reply = await self._answer(inbound, begun, delivery)
        await self._conclude(inbound, begun, reply, delivery)
        if self._beside is not None:
            self._beside.heard(inbound, begun.history, reply)

    async def tell(self, delivery: Delivery, error: RoostError) -> None:
        try:
            inbound = self._decode(delivery)
        except Untrusted:
            return
        reply = refusal_of(inbound, error)
        now = time.time()
        state = replace(state_of(inbound), state="dead", reason=error.message, reply=reply, updated_at=now)
        recorded = await self._sessions.finish(state, entries_of(inbound, reply, now))
        if inbound.history is None:
            await self._sessions.settle(recorded, title=inbound.text)
        await self._publish(inbound, recorded.reply or reply, delivery, log_turn=False)

    async def salvage(self, delivery: Delivery) -> bool:
        try:
            inbound = self._decode(delivery)
        except Untrusted:
            return False
        state = await self._sessions.find(inbound.channel, inbound.id)
        if state is None or state.reply is None or state.state != "answered":
            return False
        await self._publish(inbound, state.reply, delivery)
        return True

    # -- steps ------------------------------------------------------------------------------------------------

    def _decode(self, delivery: Delivery) -> Inbound:
        try:
            return _inbound.decode(delivery.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Untrusted(f"{delivery.subject} seq {delivery.seq}: {error}", code="malformed") from None

    async def _begin(self, inbound: Inbound, delivery: Delivery) -> Begun:
        """Claim the request; hand it to the worker that has its conversation when that one lives."""
        state, stateful = state_of(inbound), inbound.history is None
        if REQUEUED in delivery.headers:
            await self._sessions.reopen(state, delivery.headers[REQUEUED])
        for _ in range(OFFERS_MAX):
            begun = await self._patiently(lambda: self._sessions.begin(state, self._worker, stateful=stateful))
            if not begun.owner:
                return begun
            answer = await self._offer(begun.owner, delivery)
            if answer == b"taken":
                raise HandedOver
            if answer is None:
                break
            await asyncio.sleep(0.5)
        return await self._patiently(lambda: self._sessions.begin(state, self._worker, stateful=stateful, force=True))

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do one step; while the server behind it is away, try again, up to `limits.outage_s`.

        The delivery is kept alive meanwhile: giving it back would use up its deliveries on an outage.
        """
        deadline = time.monotonic() + self._bus.config.limits.outage_s
        wait_s = 0.1
        while True:
            try:
                return await step()
            except Retryable as error:
                if error.code not in OUTAGES or time.monotonic() > deadline:
                    raise
                log.warning("waiting for a server: %s", error.message)
            await asyncio.sleep(wait_s)
            wait_s = min(2.0, 2 * wait_s)

    async def _offer(self, owner: str, delivery: Delivery) -> bytes | None:
        """`taken`, `busy`, or None when that worker does not live any more."""
        headers = {**delivery.headers, "Roost-Subject": delivery.subject, "Roost-Ack": delivery.ack_to}
        data = b"" if BLOB_HEADER in headers else delivery.data  # what did not fit once does not fit now
        try:
            return await self._bus.request(subjects.take(owner), data, HAND_OVER_S, headers=headers)
        except (Retryable, Disconnected):
            return None

    async def _answer(self, inbound: Inbound, begun: Begun, delivery: Delivery) -> Outbound:
        """On the version that this request is for; anew on another lane when its own is given up before the first word.

        Raises `Withdrawn` when it is cancelled while it waits.
        """
        new = self._beside.pick(inbound, begun.history) if self._beside is not None else None
        while True:
            try:
                async with (new or self._resident).use(inbound.id) as lane:
                    return await self._infer(lane, inbound, begun, delivery)
            except Superseded:
                continue
            except Gone:
                if new is None:
                    raise
                new = None

    async def _infer(self, lane: Lane, inbound: Inbound, begun: Begun, delivery: Delivery) -> Outbound:
        """Run the model; pieces go out as they come, to whoever listens."""
        started = time.time()
        queued_ms = max(0.0, started - inbound.received_at) * 1000 if inbound.received_at else 0.0
        job = await self._job(lane, inbound, begun.history)
        subject = subjects.delta(inbound.id)
        said, first_ms, finished = Said(inbound.id, delivery.deliveries), 0.0, Finished()
        if inbound.stream:
            await self._bus.send(subject, _encode(Delta(request=inbound.id, attempt=delivery.deliveries)))
        async with contextlib.aclosing(lane.run(job)) as pieces:
            async for piece in pieces:
                if (delta := said.hear(piece)) is not None:
                    first_ms = first_ms or (time.time() - started) * 1000
                    if inbound.stream:
                        await self._bus.send(subject, _encode(delta))
                if piece.finished is not None:
                    finished = piece.finished
        if finished.error is not None:
            await self._failed(inbound.id, lane.version, finished.error, delivery)
            raise finished.error
        self._resident.count(finished.usage.completion_tokens, time.time() - started - first_ms / 1000)
        timings = Timings(
            queued_ms=round(queued_ms, 3),
            first_token_ms=round(first_ms, 3),
            total_ms=round((time.time() - started) * 1000, 3),
        )
        kept = await self._patiently(
            lambda: files.stored(self._bus, finished.pictures, model=self.model.name, version=lane.version)
        )
        return reply_of(inbound, said.text, finished, lane.version, timings, said.logprobs, kept)

    async def _job(self, lane: Lane, inbound: Inbound, history: Sequence[Entry]) -> Job:
        """What this lane's backend sees of a request; raises `Rejected` for what it cannot do."""
        texts: dict[str, str] = {}
        if "files" not in lane.backend.abilities and inbound.kind in CONVERSATIONS:
            texts = await self._patiently(lambda: files.texts(self._bus, inbound, history))
        job = job_of(inbound, history, self.model, texts)
        check_able(job, self.model.name, lane.backend.kinds, lane.backend.abilities)
        if job.attachments:
            job = replace(job, files=await self._patiently(lambda: files.fetched(self._bus, job.attachments)))
        return job

    async def _failed(self, request: str, version: str, error: RoostError, delivery: Delivery) -> None:
        """Tell of a failure that is not the sender's fault: whoever watches this version counts it."""
        if not isinstance(error, Rejected):
            body = FailedAnswer(
                model=self.model.name, version=version, worker=self._worker, at=time.time(), code=error.code,
                request=request, attempt=delivery.deliveries,
            )  # fmt: skip
            await self._bus.event("failure", self.model.name, body=body)

    async def _conclude(self, inbound: Inbound, begun: Begun, reply: Outbound, delivery: Delivery) -> None:
        """Record, then publish: what is recorded first is what everybody gets."""
        now = time.time()
        entries = entries_of(inbound, reply, now)
        drop = 0
        if entries:
            config = self._bus.config.sessions
            drop = trim(begun.history, len(entries), sum(len(e.text) for e in entries), config)
        state = replace(state_of(inbound), state="answered", reply=reply, updated_at=now)
        recorded = await self._patiently(lambda: self._sessions.finish(state, entries, drop=drop))
        if inbound.history is None:
            await self._sessions.settle(recorded, title=inbound.text)
        await self._publish(inbound, recorded.reply or reply, delivery)

    async def _publish(self, inbound: Inbound, reply: Outbound, delivery: Delivery, *, log_turn: bool = True) -> None:
        """Reply to OUTBOX and turn to TURNS, both stored before this returns; kept at while the bus is away."""
        again = f".{delivery.headers[REQUEUED]}" if REQUEUED in delivery.headers else ""
        headers = {AGAIN: "1"} if delivery.deliveries > 1 else None
        turn = turn_of(inbound, reply, worker=self._worker, attempt=delivery.deliveries, finished_at=time.time())

        async def both() -> None:
            out = subjects.outbox(reply.channel, reply.conversation)
            where = subjects.turn(reply.channel, reply.conversation)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._bus.publish(out, _encode(reply), id=f"{reply.id}{again}", headers=headers))
                    if log_turn:
                        tasks.create_task(self._bus.publish(where, _encode(turn), id=f"turn-{reply.id}{again}"))
            except* Retryable as errors:
                raise Retryable(f"the reply to {reply.id}: {errors.exceptions[0]}", code="bus_unavailable") from None

        await self._patiently(both)

    def cancel(self, request: str) -> None:
        self._resident.cancel(request)


async def taken(bus: Bus, consumers: dict[str, Consumer], message: Message) -> None:
    """Answer another worker's offer: take the delivery, with its acknowledgement, or say `busy`."""
    headers = dict(message.headers)
    subject, ack_to = headers.pop("Roost-Subject", ""), headers.pop("Roost-Ack", "")
    parts = subject.split(".")
    consumer = consumers.get(parts[2]) if len(parts) > 2 else None
    if consumer is None or not ack_to.startswith("$JS.ACK."):
        await bus.send(message.reply, b"busy")
        return
    if consumer.full:
        await bus.send(message.reply, b"busy")
        return
    data = await bus.payload(headers, message.data)
    await consumer.receive(Delivery(bus, subject, data, headers, ack_to))
    await bus.send(message.reply, b"taken")
