"""A NATS micro service: endpoints that `nats micro ls|info|stats` show (NATS ADR-32). The front door stands on it."""

from __future__ import annotations

from bus import lean  # isort: skip  # noqa: F401

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import nats.micro
from nats.micro.request import ERROR_CODE_HEADER, ERROR_HEADER, Request

from bus.client import Bus
from bus.contract import Message
from schemas.errors import RoostError

Endpoint = Callable[[Message], Awaitable[None]]


def error_headers(error: RoostError) -> dict[str, str]:
    """How micro clients see that an answer is an error."""
    return {ERROR_HEADER: " ".join(error.message.split()), ERROR_CODE_HEADER: error.code}


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

    running = await nats.micro.add_service(bus.nc, name=name, version=version, description=description)
    try:
        for endpoint, (subject, handler) in endpoints.items():
            await running.add_endpoint(name=endpoint, subject=subject, handler=adapted(handler))
        yield
    finally:
        if not bus.nc.is_closed:
            await running.stop()
