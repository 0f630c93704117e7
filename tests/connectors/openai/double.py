"""A gateway in memory that keeps the contract of `connectors.Host`, with a script for what each request meets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from connectors import Accepted, Exchange
from connectors.host.metrics import Metrics
from schemas.config import Config, HttpConfig, LimitConfig, ModelConfig
from schemas.errors import QueueFull, Rejected
from schemas.message import Attachment, Delta, Inbound, Outbound, RequestState, Usage, token
from schemas.model import ModelStatus
from schemas.session import Entry, SessionInfo

KEY = "roost-test-key"
OTHER = "roost-other-key"
Item = Delta | Outbound
Script = Callable[[Inbound, str, asyncio.Event], AsyncIterator[Item]]


def text_of(inbound: Inbound) -> str:
    return inbound.text or (inbound.history[-1].text if inbound.history else "")


async def echo(inbound: Inbound, request: str, cancelled: asyncio.Event) -> AsyncIterator[Item]:
    """Words of the last message, piece by piece."""
    text = text_of(inbound)
    yield Delta(request=request, state="queued", place=1)
    at = 0
    for word in text.split(" "):
        piece = word if at == 0 else " " + word
        yield Delta(request=request, at=at, text=piece)
        at += len(piece)
    words = len(text.split())
    yield answer(inbound, request, text=text, usage=Usage(prompt_tokens=words, completion_tokens=words))


def answer(inbound: Inbound, request: str, **fields: object) -> Outbound:
    base = Outbound(
        id=request, channel="openai", conversation=inbound.conversation, model=inbound.model or "echo",
        version="0123456789ab", reply=inbound.reply,
    )  # fmt: skip
    return Outbound(**{name: getattr(base, name) for name in base.__struct_fields__} | fields)


class DoubleExchange:
    def __init__(self, host: DoubleHost, inbound: Inbound, accepted: Accepted, script: Script) -> None:
        self.accepted = accepted
        self.closed = False
        self.cancelled = asyncio.Event()
        self._host = host
        self._items = script(inbound, accepted.request, self.cancelled)

    async def __aiter__(self) -> AsyncIterator[Item]:
        if self.accepted.reply is not None:
            yield self.accepted.reply
            return
        async for item in self._items:
            if isinstance(item, Outbound):
                self._host.finish(item)
            yield item

    async def answer(self) -> Outbound:
        async for item in self:
            if isinstance(item, Outbound):
                return item
        raise AssertionError("the script has no end")

    async def cancel(self) -> None:
        self.cancelled.set()
        self._host.cancelled.append(self.accepted.request)
        self._host.cancel_seen.set()

    async def aclose(self) -> None:
        self.closed = True


class DoubleHost:
    """Answers with `script`; `full` and `models_known` make it refuse."""

    name = "openai"

    def __init__(self, http: HttpConfig | None = None, limits: LimitConfig | None = None) -> None:
        self.config = Config(
            models=(ModelConfig(name="echo", type="echo"),), http=http or HttpConfig(), limits=limits or LimitConfig()
        )
        self.metrics = Metrics()
        self.script: Script = echo
        self.full = False
        self.asked: list[Inbound] = []
        self.exchanges: list[DoubleExchange] = []
        self.cancelled: list[str] = []
        self.cancel_seen = asyncio.Event()
        self.states: dict[str, RequestState] = {}
        self.ids: dict[str, str] = {}
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def emit(self, inbound: Inbound) -> Accepted:
        return (await self.ask(inbound)).accepted

    async def ask(self, inbound: Inbound) -> Exchange:
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.full:
            raise QueueFull("the queue is full; try again later", after_s=3)
        if inbound.model not in ("", "auto", "echo"):
            raise Rejected(f"there is no model {inbound.model!r}", code="unknown_model")
        inbound = replace(inbound, id=inbound.id or f"new-{len(self.asked)}")
        request = self.ids.get(inbound.id)
        duplicate = request is not None
        if request is None:
            request = self.ids[inbound.id] = token(self.name, inbound.id)
            self.asked.append(inbound)
            self.states[request] = RequestState(
                id=request, state="queued", channel=self.name, conversation=inbound.conversation, model="echo",
                place=1, sender=inbound.sender.id, updated_at=1_700_000_000.0,
            )  # fmt: skip
        accepted = Accepted(
            request=request, conversation=inbound.conversation, model="echo",
            duplicate=duplicate, reply=self.states[request].reply,
        )  # fmt: skip
        exchange = DoubleExchange(self, inbound, accepted, self.script)
        self.exchanges.append(exchange)
        return exchange

    def finish(self, outbound: Outbound) -> None:
        known = self.states[outbound.id]
        self.states[outbound.id] = RequestState(
            id=known.id, state="answered", channel=known.channel, conversation=known.conversation, model=known.model,
            sender=known.sender, updated_at=known.updated_at, reply=outbound,
        )  # fmt: skip

    async def follow(self, request: str, *, stream: bool = True) -> Exchange | None:
        return None

    async def state(self, request: str) -> RequestState | None:
        return self.states.get(self.ids.get(request, request))

    async def cancel(self, request: str) -> None:
        self.cancelled.append(request)

    def models(self) -> Sequence[ModelStatus]:
        return (
            ModelStatus(name="echo", type="echo", worker="a", state="loading"),
            ModelStatus(name="echo", type="echo", worker="b", state="ready", context=4096),
            ModelStatus(name="picture", type="diffusion", worker="", state="absent"),
        )

    async def verify_key(self, key: str) -> str | None:
        return {KEY: "test", OTHER: "other"}.get(key)

    def secret(self, name: str, make: Callable[[], str] | None = None) -> str:
        return make() if make else name

    async def store(self, data: bytes, media_type: str, name: str = "") -> Attachment:
        return Attachment(sha256="0" * 64, media_type=media_type, size_bytes=len(data), name=name)

    async def fetch(self, sha256: str) -> bytes | None:
        return None

    async def history(self, conversation: str) -> Sequence[Entry]:
        return ()

    async def conversations(self, sender: str) -> Sequence[SessionInfo]:
        return ()

    async def forget(self, conversation: str, sender: str) -> None: ...

    async def truncate(self, conversation: str, request: str) -> None: ...

    async def pending(self, sender: str) -> Sequence[RequestState]:
        return ()

    @property
    def data(self) -> Path:
        return Path()
