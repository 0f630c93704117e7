"""Everything open, told to every page: the followers of unanswered requests and the pages that listen.

One follower for each open request, however many pages watch; one pulse renders what changed, at most about ten times
a second. A page that connects gets a snapshot, then patches; of a picture that is being made only the newest progress
waits for it. Nothing here is kept: after a restart `sync` finds the open requests again.

What always holds: a page that keeps up shows every open request as it is; one too slow to take its events is cut off
and starts again from a snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from connectors import Accepted, Exchange, Host, Inbound
from connectors.web.answer import Answer, Asked
from schemas.errors import Disconnected, Retryable, RoostError
from schemas.message import Delta, Outbound, Problem

log = logging.getLogger("roost.web")

OWNER = "owner"
PULSE_S = 0.1
RENDER_SHARE = 10
"""A pulse waits this many times what rendering took: at most a tenth of a core goes into Markdown."""
BYTES_PER_S = 400_000
"""Of patches to one page; long blocks are sent less often."""
EVENTS_MAX = 1_000
"""Events that a page may lag behind; a page on a phone that went to sleep starts anew."""
FOLLOW_AGAIN_S = 1.0


def frame(event: str, data: object) -> bytes:
    """One Server-Sent Event. JSON has no raw line breaks, so one `data` line is enough."""
    return b"event: " + event.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


class Page:
    """The queue of one open page. `cut` once it lagged too far or the feed stops."""

    def __init__(self) -> None:
        self.cut = False
        self._frames: asyncio.Queue[bytes | str] = asyncio.Queue(EVENTS_MAX)
        self._newest: dict[str, bytes] = {}

    def put(self, data: bytes) -> None:
        self._put(data)

    def put_newest(self, key: str, data: bytes) -> None:
        """In the place of what still waits under the same key."""
        if self.cut:
            return
        waits = key in self._newest
        self._newest[key] = data
        if not waits:
            self._put(key)

    def _put(self, item: bytes | str) -> None:
        if self.cut:
            return
        try:
            self._frames.put_nowait(item)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        self.cut = True
        while not self._frames.empty():
            self._frames.get_nowait()
        self._newest.clear()
        self._frames.put_nowait(b"")

    async def get(self) -> bytes:
        """The next frames, joined; empty at the end."""
        data = self._bytes_of(await self._frames.get())
        while data and not self._frames.empty():
            more = self._bytes_of(self._frames.get_nowait())
            if not more:
                return b""
            data += more
        return data

    def _bytes_of(self, item: bytes | str) -> bytes:
        return self._newest.pop(item) if isinstance(item, str) else item


class Feed:
    """Follows what is open and tells the pages. Works between the start and the end of `run`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._open: dict[str, Answer] = {}
        self._pages: set[Page] = set()
        self._changed: set[str] = set()
        self._painted: set[str] = set()
        self._wake = asyncio.Event()
        self._syncing = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._pulse()
        finally:
            self._tasks = None
            self._open.clear()
            self._changed.clear()
            self._painted.clear()
            for page in self._pages:
                page.end()

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A page that listens; its first frame is the snapshot of everything open."""
        self._render_changed()  # others get the patch first, so that the snapshot and theirs agree
        page = Page()
        page.put(frame("hello", {"open": [answer.snapshot() for answer in self._open.values()]}))
        self._pages.add(page)
        try:
            yield page
        finally:
            self._pages.discard(page)

    def tell(self, event: str, data: object) -> None:
        """Tell all pages."""
        if self._pages:
            message = frame(event, data)
            for page in self._pages:
                page.put(message)

    def open(self, conversation: str | None = None) -> list[Answer]:
        """Open requests, oldest first, of one conversation or all."""
        return [a for a in self._open.values() if conversation is None or a.asked.conversation == conversation]

    def find(self, request: str) -> Answer | None:
        return self._open.get(request)

    async def ask(self, inbound: Inbound) -> Accepted:
        """Have a question stored, tell the pages and follow its answer. Raises what `Host.ask` raises."""
        if self._tasks is None:
            raise Retryable("the page is starting; try again in a moment", after_s=1.0)
        exchange = await self._host.ask(inbound)
        accepted = exchange.accepted
        asked = Asked(
            request=accepted.request,
            conversation=accepted.conversation,
            id=inbound.id,
            text=inbound.text,
            model=accepted.model,
            attachments=inbound.attachments,
            at=time.time(),
            drawing=inbound.drawing,
            n=inbound.sampling.n,
        )
        if known := self._open.get(accepted.request):
            known.asked = asked
            await exchange.aclose()
        elif accepted.reply is not None:
            await exchange.aclose()
        else:
            self._watch(asked, exchange)
        return accepted

    async def sync(self) -> None:
        """Follow what was accepted earlier, before a restart for instance."""
        async with self._syncing:
            for state in await self._host.pending(OWNER):
                if state.id in self._open or self._tasks is None:
                    continue
                exchange = await self._host.follow(state.id)
                if exchange is None:
                    continue
                if state.id in self._open or self._tasks is None:
                    await exchange.aclose()
                    continue
                asked = Asked(
                    request=state.id,
                    conversation=state.conversation,
                    text=state.asked,
                    model=state.model,
                    at=state.updated_at,
                    attachments=state.attachments,
                )
                self._watch(asked, exchange, state.place)

    async def stop(self, answers: list[Answer], wait_s: float) -> None:
        """Cancel these and wait a while for them to end."""
        for answer in answers:
            await self._host.cancel(answer.asked.request)
        try:
            async with asyncio.timeout(wait_s):
                for answer in answers:
                    await answer.ended.wait()
        except TimeoutError:
            raise Retryable("the answer has not stopped yet; try again in a moment", after_s=2.0) from None

    def _watch(self, asked: Asked, exchange: Exchange, place: int | None = None) -> None:
        answer = Answer(asked)
        answer.place = place
        self._open[asked.request] = answer
        self.tell("asked", answer.snapshot())
        assert self._tasks is not None, "only `ask` and `sync` come here, and they have looked"
        self._tasks.create_task(self._keep(answer, exchange), name=f"web-follow-{asked.request}")

    async def _keep(self, answer: Answer, exchange: Exchange | None) -> None:
        """Follow one request to its end, over time-outs and lost links."""
        request = answer.asked.request
        while exchange is not None:
            try:
                async for piece in exchange:
                    if isinstance(piece, Outbound):
                        self._finish(answer, piece)
                    else:
                        self._apply(answer, piece)
                return
            except (Retryable, Disconnected) as error:
                log.info("following %s again: %s", request, error.message)
            except RoostError as error:
                self._finish(answer, self._lost(answer, Problem(error.code, error.message)))
                return
            except Exception:  # one answer must not take the others' followers along
                log.exception("unexpected error while following %s", request)
                self._finish(answer, self._lost(answer, Problem("internal", "an unexpected error; the log has it")))
                return
            finally:
                await exchange.aclose()
            exchange = await self._again(request)
        self._finish(answer, self._lost(answer, Problem("unknown", "this request is no longer known; ask again")))

    async def _again(self, request: str) -> Exchange | None:
        """Follow again as soon as the link allows; None when the request is unknown by now."""
        while True:
            await asyncio.sleep(FOLLOW_AGAIN_S)
            try:
                return await self._host.follow(request)
            except RoostError as error:
                log.info("cannot follow %s yet: %s", request, error.message)

    @staticmethod
    def _lost(answer: Answer, problem: Problem) -> Outbound:
        asked = answer.asked
        return Outbound(id=asked.request, channel="", conversation=asked.conversation, finish="error", error=problem)

    def _apply(self, answer: Answer, delta: Delta) -> None:
        if answer.apply(delta, time.monotonic()):
            self.tell("progress", answer.progress())
        if delta.text or delta.attempt > 1:
            self._changed.add(answer.asked.request)
            self._wake.set()
        if delta.progress is not None and delta.attempt == answer.attempt:
            self._painted.add(answer.asked.request)
            self._wake.set()

    def _finish(self, answer: Answer, outbound: Outbound) -> None:
        request = answer.asked.request
        self._open.pop(request, None)
        self._changed.discard(request)
        self._painted.discard(request)
        self.tell("final", answer.final(outbound))
        answer.ended.set()

    async def _pulse(self) -> None:
        """Render and tell what changed, then rest: the first words go out at once, a flood in steps."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            begun = time.perf_counter()
            size = self._render_changed() + self._show_painted() if self._pages else 0
            spent = time.perf_counter() - begun
            await asyncio.sleep(max(PULSE_S, RENDER_SHARE * spent, size / BYTES_PER_S))

    def _render_changed(self) -> int:
        """Bring blocks up to date and tell; returns the characters told."""
        size = 0
        while self._changed:
            patch = self._open[self._changed.pop()].render()
            self.tell("blocks", patch)
            size += sum(map(len, patch.html))
        return size

    def _show_painted(self) -> int:
        """Tell how far pictures are; returns the bytes told."""
        size = 0
        while self._painted:
            request = self._painted.pop()
            message = frame("painting", self._open[request].painting())
            size += len(message)
            for page in self._pages:
                page.put_newest(request, message)
        return size
