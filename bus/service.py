"""A NATS micro service: endpoints that `nats micro ls|info|stats` show (NATS ADR-32). The front door stands on it."""

from __future__ import annotations

from bus import lean  # isort: skip  # noqa: F401

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import nats.errors
import nats.micro
from nats.micro.request import ERROR_CODE_HEADER, ERROR_HEADER, Request
from nats.micro.service import Service

from bus.client import Bus
from bus.contract import Message
from schemas.errors import RoostError

log = logging.getLogger("roost.service")

STOP_S = 3.0
Endpoint = Callable[[Message], Awaitable[None]]


def error_headers(error: RoostError) -> dict[str, str]:
    """How micro clients see that an answer is an error."""
    return {ERROR_HEADER: " ".join(error.message.split()), ERROR_CODE_HEADER: error.code}


async def _end(beginning: asyncio.Future[Service]) -> None:
    """Stop what was begun, within a limit."""
    try:
        async with asyncio.timeout(STOP_S):
            await (await beginning).stop()
    except (TimeoutError, nats.errors.Error) as error:
        log.warning("the service did not stop cleanly: %r", error)


@asynccontextmanager
async def service(
    bus: Bus, name: str, version: str, description: str, endpoints: Mapping[str, tuple[str, Endpoint]]
) -> AsyncIterator[None]:
    """Serve `endpoints` (name → subject and handler) for as long as the block runs.

    A handler must return soon (the next message waits for it) and answers by sending to `message.reply`.
    """

    def adapted(handler: Endpoint) -> Callable[[Request], Awaitable[None]]:
        async def handle(request: Request) -> None:
            message = request._msg
            await handler(Message(message.subject, message.data, message.reply, message.headers or {}))

        return handle

    async def begin() -> Service:
        running = await nats.micro.add_service(bus.nc, name=name, version=version, description=description)
        for endpoint, (subject, handler) in endpoints.items():
            await running.add_endpoint(name=endpoint, subject=subject, handler=adapted(handler))
        return running

    # A cancel must not land inside: what was begun would stay subscribed, and one that hits nats-py while it waits
    # for a pong silences the connection.
    beginning = asyncio.ensure_future(begin())
    try:
        await asyncio.shield(beginning)
        yield
    finally:
        if not bus.nc.is_closed:
            await asyncio.shield(_end(beginning))
