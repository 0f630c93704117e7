"""A gateway in one process that stores what is emitted in a list and answers nothing: for tests of connectors.

It keeps the contract of `connectors.Host`, and has no bus. What always holds: the same id is stored once.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bus.client import Bus
from connectors import Accepted, Host
from connectors import Exchange as ExchangeContract
from connectors.host.metrics import Metrics
from schemas.config import Config, ModelConfig
from schemas.message import Attachment, Delta, Inbound, Outbound, RequestState, token
from schemas.model import ModelStatus
from schemas.session import Entry, SessionInfo
from schemas.update import UpdateStatus


class Exchange:
    """A request whose answer does not come."""

    def __init__(self, accepted: Accepted) -> None:
        self.accepted = accepted

    async def __aiter__(self) -> AsyncIterator[Delta | Outbound]:
        yield Delta(request=self.accepted.request, state="queued", place=1)
        yield await self.answer()

    async def answer(self) -> Outbound:
        await asyncio.Event().wait()
        raise AssertionError("nobody answers here")

    async def cancel(self) -> None: ...

    async def aclose(self) -> None: ...


class QuietHost:
    """Implements `connectors.Host`; `emitted` holds what the connector handed over, `keys` who may enter."""

    bus: Bus
    """Only where it is given: the front door alone uses it."""

    def __init__(self, data: Path, name: str = "contract", *, bus: Bus | None = None) -> None:
        self.name = name
        self.data = data
        self.config = Config(models=(ModelConfig(name="echo", type="echo"),))
        self.metrics = Metrics()
        self.emitted: list[Inbound] = []
        self.keys: dict[str, str] = {"contract-key": "contract"}
        self._states: dict[str, RequestState] = {}
        self._secrets: dict[str, str] = {}
        self._blobs: dict[str, bytes] = {}
        if bus is not None:
            self.bus = bus

    async def emit(self, inbound: Inbound) -> Accepted:
        request = token(self.name, inbound.id)
        duplicate = request in self._states
        if not duplicate:
            self.emitted.append(inbound)
            self._states[request] = RequestState(
                id=request,
                state="queued",
                channel=self.name,
                conversation=token(self.name, inbound.conversation),
                model="echo",
                sender=inbound.sender.id,
                asked=inbound.text,
            )
        state = self._states[request]
        return Accepted(request=request, conversation=state.conversation, model="echo", duplicate=duplicate)

    async def ask(self, inbound: Inbound) -> ExchangeContract:
        return Exchange(await self.emit(inbound))

    async def follow(self, request: str, *, stream: bool = True) -> ExchangeContract | None:
        state = self._states.get(request)
        if state is None:
            return None
        return Exchange(Accepted(request=request, conversation=state.conversation, model=state.model, duplicate=True))

    async def state(self, request: str) -> RequestState | None:
        return self._states.get(request) or self._states.get(token(self.name, request))

    async def cancel(self, request: str) -> None: ...

    def models(self) -> Sequence[ModelStatus]:
        return (ModelStatus(name="echo", type="echo", worker="contract", state="ready"),)

    def updates(self) -> Sequence[UpdateStatus]:
        return ()

    async def verify_key(self, key: str) -> str | None:
        return self.keys.get(key)

    def secret(self, name: str, make: Callable[[], str] | None = None) -> str:
        if name not in self._secrets:
            self._secrets[name] = make() if make is not None else name
        return self._secrets[name]

    async def store(self, data: bytes, media_type: str, name: str = "") -> Attachment:
        sha256 = hashlib.sha256(data).hexdigest()
        self._blobs[sha256] = data
        return Attachment(sha256=sha256, media_type=media_type, size_bytes=len(data), name=name)

    async def fetch(self, sha256: str) -> bytes | None:
        return self._blobs.get(sha256)

    async def history(self, conversation: str) -> Sequence[Entry]:
        return ()

    async def conversations(self, sender: str) -> Sequence[SessionInfo]:
        return ()

    async def forget(self, conversation: str, sender: str) -> None: ...

    async def truncate(self, conversation: str, request: str) -> None: ...

    async def pending(self, sender: str) -> Sequence[RequestState]:
        return tuple(state for state in self._states.values() if state.sender == sender)


@asynccontextmanager
async def quiet_host(bus: Bus | None = None) -> AsyncIterator[Host]:
    """A host with a data folder of its own for as long."""
    with tempfile.TemporaryDirectory() as folder:
        yield QuietHost(Path(folder), bus=bus)
