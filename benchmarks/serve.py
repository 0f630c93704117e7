"""One model behind an OpenAI-compatible address: served by Roost, or by llama-server with the same sizes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks.llama_server import server
from benchmarks.load import Endpoint, conversations
from benchmarks.models import THREADS
from benchmarks.stack import Stack


class Sizes(Struct, frozen=True, kw_only=True):
    """What both are started with: conversations at once, tokens of each one's window, threads."""

    slots: int
    context: int
    threads: int = THREADS


@asynccontextmanager
async def roost(model: Path, sizes: Sizes, **settings: Any) -> AsyncIterator[Endpoint]:
    """A whole Roost with this model, warm; `settings` are further ones of the model."""
    entry = {
        "name": "chat", "type": "llama", "path": str(model), "slots": sizes.slots, "context": sizes.context,
        "threads": sizes.threads, **settings,
    }  # fmt: skip
    async with Stack(models=(entry,)) as stack:
        endpoint = Endpoint(f"{stack.http}/v1", "chat", stack.key)
        (await conversations(endpoint, 2, 1, 8)).whole("the first requests")
        yield endpoint


@asynccontextmanager
async def llama_server(
    model: Path, sizes: Sizes, *options: str, environment: dict[str, str] | None = None
) -> AsyncIterator[Endpoint]:
    """A llama-server with this model, warm; `options` and `environment` beside its defaults."""
    command = [
        "-c", str(sizes.context * sizes.slots), "-np", str(sizes.slots), "-t", str(sizes.threads),
        "-tb", str(sizes.threads), "--no-webui", *options,
    ]  # fmt: skip
    with server(model, *command, environment=environment) as url:
        endpoint = Endpoint(url, "chat")
        (await conversations(endpoint, 2, 1, 8)).whole("the first requests")
        yield endpoint
