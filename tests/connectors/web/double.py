"""A small gateway in memory that keeps the contract of `connectors.Host`, for the page's development and faults.

Models are queues with slots, as workers are: a message waits, has a place, runs, streams, ends, and is stored with
its answer. `Echo` answers with the text itself, a word at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from connectors import Accepted, Inbound
from connectors.host.route import Asked, route
from schemas.config import Config, ConnectorConfig, ModelConfig
from schemas.errors import QueueFull, Untrusted
from schemas.message import Attachment, Delta, Outbound, Problem, RequestState, Usage, token
from schemas.model import ModelStatus
from schemas.picture import Progress
from schemas.session import Entry, SessionInfo
from schemas.update import UpdateStatus


class Job:
    """One accepted request on its way."""

    def __init__(self, inbound: Inbound, accepted: Accepted) -> None:
        self.inbound = inbound
        self.accepted = accepted
        self.text = ""
        self.attempt = 1
        self.running = False
        self.cancelled = asyncio.Event()
        self.reply: Outbound | None = None
        self.followers: set[asyncio.Queue[Delta | Outbound]] = set()

    def tell(self, piece: Delta | Outbound) -> None:
        for queue in self.followers:
            queue.put_nowait(piece)


class DoubleExchange:
    def __init__(self, job: Job, place: int | None) -> None:
        self.accepted = job.accepted
        self._job = job
        self._queue: asyncio.Queue[Delta | Outbound] = asyncio.Queue()
        if job.reply is not None:
            self._queue.put_nowait(job.reply)
            return
        job.followers.add(self._queue)
        if place is not None:
            self._queue.put_nowait(Delta(request=job.accepted.request, state="queued", place=place))
        if job.text:
            self._queue.put_nowait(Delta(request=job.accepted.request, attempt=job.attempt, text=job.text))

    async def __aiter__(self) -> AsyncIterator[Delta | Outbound]:
        while True:
            piece = await self._queue.get()
            yield piece
            if isinstance(piece, Outbound):
                return

    async def answer(self) -> Outbound:
        async for piece in self:
            if isinstance(piece, Outbound):
                return piece
        raise AssertionError("an exchange ends with its answer")

    async def cancel(self) -> None:
        self._job.cancelled.set()

    async def aclose(self) -> None:
        self._job.followers.discard(self._queue)


class DoubleModel:
    """A model with `slots`, which takes `delay_s` for each word and answers what `answer` makes of the text."""

    def __init__(self, name: str, *, slots: int = 4, delay_s: float = 0.0, kind: str = "echo") -> None:
        self.status = ModelStatus(name=name, type=kind, worker="w1", state="ready", slots=slots)
        self.delay_s = delay_s
        self.slots = asyncio.Semaphore(slots)
        self.waiting: list[Job] = []
        self.answer: Callable[[str], str] = lambda text: text


class DoubleHost:
    """Implements `connectors.Host`. Enter it to run the models; leave it to stop them."""

    def __init__(self, models: Sequence[DoubleModel], config: Config | None = None) -> None:
        self.name = "web"
        self._models = {m.status.name: m for m in models}
        self.config = config or Config(
            models=tuple(ModelConfig(name=m.status.name, type=m.status.type) for m in models),
            connectors=(ConnectorConfig(type="web", name="web"),),
        )
        self.secrets: dict[str, str] = {}
        self.jobs: dict[str, Job] = {}
        self.sessions: dict[str, list[Entry]] = {}
        self.blobs: dict[str, bytes] = {}
        self.full = False
        self.extra: list[ModelStatus] = []
        self.slots: list[UpdateStatus] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> DoubleHost:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _token(self, conversation: str) -> str:
        return conversation if len(conversation) == 26 else token(self.name, conversation)

    async def emit(self, inbound: Inbound) -> Accepted:
        return (await self._accept(inbound)).accepted

    async def _accept(self, inbound: Inbound) -> Job:
        request = token(self.name, inbound.id)
        if known := self.jobs.get(request):
            return known
        if self.full:
            raise QueueFull("the queue of this model is full; try again later", after_s=5)
        asked = Asked(text=inbound.text, model=inbound.model, attachments=inbound.attachments)
        chosen = route(asked, [m for m in self.config.models if m.name in self._models])
        name = chosen.model
        inbound = replace(inbound, text=chosen.text, kind=chosen.kind, route=chosen.route)
        accepted = Accepted(request=request, conversation=self._token(inbound.conversation), model=name)
        job = self.jobs[request] = Job(inbound, accepted)
        model = self._models[name]
        model.waiting.append(job)
        task = asyncio.create_task(self._run(job, model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def ask(self, inbound: Inbound) -> DoubleExchange:
        job = await self._accept(inbound)
        return DoubleExchange(job, self._place(job))

    async def follow(self, request: str, *, stream: bool = True) -> DoubleExchange | None:
        job = self.jobs.get(request)
        return DoubleExchange(job, self._place(job)) if job else None

    def _place(self, job: Job) -> int | None:
        waiting = self._models[job.accepted.model].waiting
        return waiting.index(job) + 1 if job in waiting else None

    async def _run(self, job: Job, model: DoubleModel) -> None:
        request = job.accepted.request
        async with model.slots:
            model.waiting.remove(job)
            for place, other in enumerate(model.waiting, 1):
                other.tell(Delta(request=other.accepted.request, state="queued", place=place))
            job.running = True
            job.tell(Delta(request=request, attempt=job.attempt))
            words = re.findall(r"\S+\s*|\s+", model.answer(job.inbound.text))
            for word in words:
                if job.cancelled.is_set():
                    break
                job.tell(Delta(request=request, attempt=job.attempt, at=len(job.text), text=word))
                job.text += word
                await asyncio.sleep(model.delay_s)
        self._end(job, len(words))

    def paint(self, request: str, step: int, steps: int, preview: bytes = b"", attempt: int = 1) -> None:
        """As if the worker of a model without slots had come that far with a picture."""
        job = self.jobs[request]
        job.running = True
        progress = Progress(step=step, steps=steps, preview=preview)
        job.tell(Delta(request=request, attempt=attempt, progress=progress))

    def painted(self, request: str, attachments: tuple[Attachment, ...]) -> None:
        """As if it had made these pictures."""
        job = self.jobs[request]
        self._models[job.accepted.model].waiting.remove(job)
        self._end(job, 0, attachments)

    def _end(self, job: Job, tokens: int, attachments: tuple[Attachment, ...] = ()) -> None:
        inbound, accepted = job.inbound, job.accepted
        failed = job.text.startswith("FAIL")
        finish = "error" if failed else "cancelled" if job.cancelled.is_set() else "stop"
        error = Problem("backend", "the model ran out of memory") if failed else None
        text = "" if failed else job.text
        conversation = self.sessions.setdefault(accepted.conversation, [])
        now = time.time()
        conversation += [
            Entry(role="user", text=inbound.text, request=accepted.request, at=now, attachments=inbound.attachments),
            Entry(
                role="assistant",
                text=text,
                request=accepted.request,
                at=now,
                model=accepted.model,
                finish=finish,
                error=error,
                route=inbound.route,
                attachments=attachments,
            ),
        ]
        job.reply = Outbound(
            id=accepted.request,
            channel=self.name,
            conversation=accepted.conversation,
            text=text,
            model=accepted.model,
            finish=finish,
            error=error,
            route=inbound.route,
            usage=Usage(prompt_tokens=9, completion_tokens=tokens),
            attachments=attachments,
        )
        job.tell(job.reply)

    def restart(self, request: str) -> None:
        """As if the worker died and another began the answer anew."""
        job = self.jobs[request]
        job.attempt += 1
        job.text = ""

    async def state(self, request: str) -> RequestState | None:
        job = self.jobs.get(request) or self.jobs.get(token(self.name, request))
        return None if job is None else self._state(job)

    def _state(self, job: Job) -> RequestState:
        state = "answered" if job.reply else "running" if job.running else "queued"
        return RequestState(
            id=job.accepted.request,
            state=state,
            channel=self.name,
            conversation=job.accepted.conversation,
            model=job.accepted.model,
            place=self._place(job),
            sender=job.inbound.sender.id,
            asked=job.inbound.text,
            reply=job.reply,
        )

    async def cancel(self, request: str) -> None:
        if job := self.jobs.get(request):
            job.cancelled.set()

    def models(self) -> Sequence[ModelStatus]:
        return [*(m.status for m in self._models.values()), *self.extra]

    def updates(self) -> Sequence[UpdateStatus]:
        return self.slots

    async def verify_key(self, key: str) -> str | None:
        return None

    def secret(self, name: str, make: Callable[[], str] | None = None) -> str:
        if name not in self.secrets:
            assert make is not None
            self.secrets[name] = make()
        return self.secrets[name]

    async def store(self, data: bytes, media_type: str, name: str = "") -> Attachment:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        return Attachment(sha256=sha256, media_type=media_type, size_bytes=len(data), name=name)

    async def fetch(self, sha256: str) -> bytes | None:
        data = self.blobs.get(sha256)
        if data is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise Untrusted(f"blob {sha256} does not match its name; it was left out")
        return data

    async def history(self, conversation: str) -> Sequence[Entry]:
        return tuple(self.sessions.get(self._token(conversation), ()))

    async def conversations(self, sender: str) -> Sequence[SessionInfo]:
        return [
            SessionInfo(conversation=c, title=entries[0].text[:60], updated_at=entries[-1].at)
            for c, entries in sorted(self.sessions.items(), key=lambda item: -item[1][-1].at)
            if entries
        ]

    async def forget(self, conversation: str, sender: str) -> None:
        self.sessions.pop(self._token(conversation), None)

    async def truncate(self, conversation: str, request: str) -> None:
        entries = self.sessions.get(self._token(conversation), [])
        at = next((i for i, e in enumerate(entries) if e.request == request), len(entries))
        del entries[at:]

    async def pending(self, sender: str) -> Sequence[RequestState]:
        return [self._state(job) for job in self.jobs.values() if job.reply is None]

    @property
    def data(self) -> Path:
        return Path(tempfile.gettempdir())
