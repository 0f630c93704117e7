"""Pulls messages of a durable consumer: raw pull requests on an inbox of its own, topped up as room appears.

It knows how many messages it has asked for and not received, by request, from what the server says about each
(filled, expired, refused) and from its heartbeats; a lost connection or a silent server resets the count. It asks
for exactly as many as `room()` allows and never holds more.
"""

from __future__ import annotations

from bus import lean  # isort: skip  # noqa: F401

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import nats.errors
from nats.aio.msg import Msg

from schemas.errors import RoostError

if TYPE_CHECKING:
    from bus.client import Bus as NatsBus
    from bus.contract import Bus, Receive

log = logging.getLogger("roost.pull")

EXPIRES_S = 30.0
HEARTBEAT_S = 5.0
NS = 1_000_000_000
GONE = "consumer deleted"


class Delivery:
    """One delivered message. Exactly one of `ack`, `nak`, `term` ends it; `progress` keeps it ours meanwhile."""

    __slots__ = ("_bus", "ack_to", "data", "deliveries", "headers", "seq", "subject")

    def __init__(self, bus: Bus, subject: str, data: bytes, headers: dict[str, str], ack_to: str) -> None:
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>, newer servers put
        # a domain and an account hash in front and a token behind (NATS ADR-15)
        fields = ack_to.split(".")
        if len(fields) > 9:
            fields = fields[2:]
        self._bus = bus
        self.subject = subject
        self.data = data
        self.headers = headers
        self.ack_to = ack_to
        self.deliveries = int(fields[4])
        self.seq = int(fields[5])

    async def ack(self) -> None:
        await self._bus.send(self.ack_to, b"+ACK")

    async def nak(self, after_s: float = 0.0) -> None:
        """Deliver again, after a delay."""
        body = b'-NAK {"delay": %d}' % int(after_s * NS) if after_s > 0 else b"-NAK"
        await self._bus.send(self.ack_to, body)

    async def term(self) -> None:
        """Never deliver again; a work queue drops the message."""
        await self._bus.send(self.ack_to, b"+TERM")

    async def progress(self) -> None:
        """Still at it: the wait for an acknowledgement starts anew."""
        await self._bus.send(self.ack_to, b"+WPI")


class Puller:
    """One process's share of a durable consumer. `run` until cancelled; `poke` when room has appeared."""

    def __init__(self, bus: NatsBus, stream: str, consumer: str, receive: Receive, room: Callable[[], int]) -> None:
        self._bus = bus
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._what = f"{consumer} of {stream}"
        self._receive = receive
        self._room = room
        self._inbox = f"_R.pull.{secrets.token_hex(8)}"
        self._count = itertools.count()
        self._asked: dict[str, int] = {}
        self._heard = 0.0
        self._wake = asyncio.Event()
        self._stopped = False

    @property
    def outstanding(self) -> int:
        return sum(self._asked.values())

    def poke(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """Ask for nothing more, and take back what was asked: what is on its way is still received, and no more.

        (Requests left with the server would be filled with the very messages that a stopping process gives back.)
        """
        self._stopped = True
        self._wake.set()

    def _reset(self) -> None:
        self._asked.clear()
        self._wake.set()

    async def run(self) -> None:
        subscription = await self._bus.nc.subscribe(
            f"{self._inbox}.*", cb=self._arrived, pending_msgs_limit=0, pending_bytes_limit=0
        )
        self._bus.on_reconnect.append(self._reset)
        try:
            while not self._stopped:
                await self._top_up()
                self._wake.clear()
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await self._wake.wait()
                except TimeoutError:
                    if self._asked and time.monotonic() - self._heard > 2.5 * HEARTBEAT_S:
                        log.warning("no sign of %s for %.0f s; asking anew", self._what, 2.5 * HEARTBEAT_S)
                        self._reset()
        finally:
            self._bus.on_reconnect.remove(self._reset)
            with contextlib.suppress(nats.errors.Error, TimeoutError):  # a lost link has taken it back already
                await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py does not say

    async def _top_up(self) -> None:
        if self._stopped or not self._bus.connected:
            return
        room, outstanding = self._room(), self.outstanding
        want = room - outstanding
        if want <= 0 or (outstanding and want < room // 2):
            return
        key = str(next(self._count))
        self._asked[key] = want
        if len(self._asked) == 1:
            self._heard = time.monotonic()
        body = {"batch": want, "expires": int(EXPIRES_S * NS), "idle_heartbeat": int(HEARTBEAT_S * NS)}
        try:
            await self._bus.nc.publish(self._next, msgspec.json.encode(body), f"{self._inbox}.{key}")
        except nats.errors.Error as error:
            log.warning("cannot ask for messages of %s: %r", self._what, error)
            self._asked.pop(key, None)

    async def _arrived(self, msg: Msg) -> None:
        self._heard = time.monotonic()
        headers = msg.headers or {}
        if "Status" in headers and not msg.reply.startswith("$JS.ACK"):
            self._status(msg.subject[len(self._inbox) + 1 :], headers)
            return
        self._received_one()
        try:
            data = await self._bus.payload(headers, msg.data)
            await self._receive(Delivery(self._bus, msg.subject, data, headers, msg.reply))
        except RoostError as error:
            log.warning("a message of %s waits for its next delivery: %s", self._what, error.message)
        if not self._asked or self._room() - self.outstanding >= max(1, self._room() // 2):
            self._wake.set()

    def _received_one(self) -> None:
        """Messages carry no mark of the request they answer; the server fills requests in their order."""
        for key, left in self._asked.items():
            if left > 1:
                self._asked[key] = left - 1
            else:
                del self._asked[key]
            return

    def _status(self, key: str, headers: dict[str, str]) -> None:
        """100 heartbeat; 404, 408: nothing (more) for this request; 409: refused; 503: nobody there."""
        if headers["Status"] == "100":
            return
        self._asked.pop(key, None)
        if headers["Status"] == "409" and GONE in headers.get("Description", "").lower():
            log.error("%s was deleted; restart Roost to make it again", self._what)
        if headers["Status"] in ("503", "409"):
            asyncio.get_running_loop().call_later(0.5, self._wake.set)
        else:
            self._wake.set()
