"""The front door `roost.ask`: any program that speaks NATS asks here and gets its answer on its reply subject.

`roost.ask` answers once, or with `"stream": true` sends deltas first and the answer last; `roost.ask.state` tells
what became of a request, `roost.ask.cancel` ends it, `roost.ask.file` has the bytes of its pictures. The reply subject
travels with the message, so that a client gets its answer from a restarted connector too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from typing import Any

import msgspec

from bus import subjects
from bus.contract import Message
from bus.service import error_headers, service
from connectors import Accepted, Capabilities, Connector, ConnectorSettings, Emit, Host
from schemas.ask import About, Answer, Ask, AskAttachment, AskFile, Refusal, Told, answer_of, told_of
from schemas.errors import Rejected, RoostError
from schemas.message import Attachment, Inbound, Outbound, Problem, Sampling, Sender

log = logging.getLogger("roost.nats")

VERSION = "1.0.0"
ASKS_AT_ONCE = 1_000
RELAY_END_S = 2.0
SENDER = "nats"
_encode = msgspec.json.encode
_ask = msgspec.json.Decoder(Ask)
_about = msgspec.json.Decoder(About)
_file = msgspec.json.Decoder(AskFile)
SHA256 = re.compile(r"[0-9a-f]{64}")
SIZE_HEADER = "Roost-Size-Bytes"
ENVELOPE_BYTES = 4_096
"""Of a message's limit, what headers may take."""


def decode(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    """Decode a request; raises `Rejected` that says what is wrong and where."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise Rejected(str(error).replace("`", ""), code="invalid_request") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"not valid JSON: {error}", code="invalid_json") from None


def sampling_of(ask: Ask) -> Sampling:
    """How to generate, as the question says."""
    return Sampling(
        max_tokens=ask.max_tokens,
        temperature=ask.temperature,
        top_p=ask.top_p,
        top_k=ask.top_k,
        min_p=ask.min_p,
        repeat_penalty=ask.repeat_penalty,
        seed=ask.seed,
        stop=(ask.stop,) if isinstance(ask.stop, str) else tuple(ask.stop),
        ignore_eos=ask.ignore_eos,
        presence_penalty=ask.presence_penalty,
        frequency_penalty=ask.frequency_penalty,
        format=ask.format,
        tools=tuple(ask.tools),
        tool_choice=ask.tool_choice,
        adapter=ask.adapter,
        n=ask.n,
    )


class NatsConnector(Connector):
    """Serves the front door. Who may knock is decided by the bus's own authentication."""

    capabilities = Capabilities(authenticates=True)

    _tasks: asyncio.TaskGroup

    def __init__(self, name: str, settings: ConnectorSettings, host: Host) -> None:
        super().__init__(name, settings, host)
        self._relays: dict[str, asyncio.Event] = {}

    async def run(self, emit: Emit) -> None:
        slots = asyncio.Semaphore(ASKS_AT_ONCE)

        def each(handler: Any) -> Any:
            async def start(message: Message) -> None:
                await slots.acquire()
                task = self._tasks.create_task(self._answered(handler, message))
                task.add_done_callback(lambda _: slots.release())

            return start

        endpoints = {
            "ask": (subjects.ASK, each(self._ask)),
            "state": (subjects.ASK_STATE, each(self._state)),
            "cancel": (subjects.ASK_CANCEL, each(self._cancel)),
            "file": (subjects.ASK_FILE, each(self._give)),
        }
        about = "Ask the models of this house"
        async with asyncio.TaskGroup() as self._tasks, service(self.host.bus, "roost", VERSION, about, endpoints):
            await asyncio.Event().wait()

    async def send(self, message: Outbound) -> None:
        subject = message.reply.get("subject", "")
        if not subject:
            return
        if (relay := self._relays.get(message.id)) is not None:
            try:  # the answer comes after the last delta
                async with asyncio.timeout(RELAY_END_S):
                    await relay.wait()
            except TimeoutError:
                log.warning("deltas of %s are late; the answer overtakes them", message.id)
        headers = None
        if message.error is not None:
            headers = error_headers(RoostError(message.error.message, code=message.error.code))
        await self._tell(subject, answer_of(message), headers)

    async def _tell(self, subject: str, body: Answer | Told, headers: dict[str, str] | None = None) -> None:
        """Send an answer; one that is larger than the bus carries (many embeddings) is refused with both numbers."""
        data, most = _encode(body), self.host.bus.payload_bytes_max
        if len(data) > most:
            error = Rejected(
                f"the answer has {len(data)} bytes and the bus carries {most}; ask for less at once", code="too_large"
            )
            data, headers = _encode(Refusal(error=Problem(error.code, error.message))), error_headers(error)
        await self.host.bus.send(subject, data, headers=headers)

    # -- endpoints --------------------------------------------------------------------------------------------

    async def _answered(self, handler: Any, message: Message) -> None:
        """Run one endpoint; an error becomes an answer, never the end of the service."""
        try:
            await handler(message)
        except RoostError as error:
            await self._refuse(message, error)
        except Exception:
            log.exception("an ask failed")
            await self._refuse(message, RoostError("an unexpected error; the log has the details"))

    async def _refuse(self, message: Message, error: RoostError) -> None:
        if message.reply:
            body = Refusal(error=Problem(error.code, error.message))
            await self.host.bus.send(message.reply, _encode(body), headers=error_headers(error))

    async def _ask(self, message: Message) -> None:
        inbound = await self._inbound(decode(_ask, message.data), message.reply)
        if not inbound.stream:
            accepted = await self.host.emit(inbound)
            if accepted.duplicate:
                await self._again(accepted, inbound)
            return
        exchange = await self.host.ask(inbound)
        request = exchange.accepted.request
        done = self._relays.setdefault(request, asyncio.Event())
        try:
            async for event in exchange:
                if isinstance(event, Outbound):
                    if exchange.accepted.duplicate:
                        await self._respond(event, inbound)
                    return
                await self.host.bus.send(message.reply, _encode(event))
        finally:
            done.set()
            self._relays.pop(request, None)
            await exchange.aclose()

    async def _again(self, accepted: Accepted, inbound: Inbound) -> None:
        """The same id came before: the same answer, now or when it is there."""
        if accepted.reply is not None:
            await self._respond(accepted.reply, inbound)
            return
        exchange = await self.host.follow(accepted.request, stream=False)
        if exchange is None:
            raise RoostError(f"request {accepted.request} is accepted, but its state cannot be read; ask again")
        try:
            await self._respond(await exchange.answer(), inbound)
        finally:
            await exchange.aclose()

    async def _respond(self, reply: Outbound, inbound: Inbound) -> None:
        """Give a known answer to whoever asks now."""
        await self.send(msgspec.structs.replace(reply, reply=inbound.reply))

    async def _state(self, message: Message) -> None:
        state = await self.host.state(decode(_about, message.data).id)
        if state is None:
            raise Rejected("there is no such request", code="not_found")
        await self._tell(message.reply, told_of(state))

    async def _cancel(self, message: Message) -> None:
        await self.host.cancel(decode(_about, message.data).id)
        await self.host.bus.send(message.reply, b'{"ok": true}')

    async def _give(self, message: Message) -> None:
        """Bytes by their hash: whoever can name it has been told of the file, by an answer or by having sent it."""
        asked = decode(_file, message.data)
        if not SHA256.fullmatch(asked.sha256):
            raise Rejected("sha256: expected 64 hex digits in lower case", code="bad_value")
        data = await self.host.fetch(asked.sha256)
        if data is None:
            raise Rejected("sha256: there is no such file, or it is not kept any more", code="not_found")
        most = self.host.bus.payload_bytes_max - ENVELOPE_BYTES
        if asked.offset is None and len(data) > most:
            raise Rejected(
                f"the file has {len(data)} bytes and a message carries {most}; ask for its parts with `offset`, "
                f"or over HTTP: GET /v1/images/files/{asked.sha256}.png",
                code="too_large",
            )
        begin = asked.offset or 0
        if not 0 <= begin <= len(data):
            raise Rejected(f"offset: expected 0 to {len(data)}, got {begin}", code="bad_value")
        headers = {SIZE_HEADER: str(len(data))}
        await self.host.bus.send(message.reply, data[begin : begin + most], headers=headers)

    async def _inbound(self, ask: Ask, reply_to: str) -> Inbound:
        if ask.v != 1:
            raise Rejected(f"v: this server speaks version 1, not {ask.v}", code="unsupported_version")
        if len(ask.id) > 256 or len(ask.conversation) > 256 or len(ask.user) > 256:
            raise Rejected("id, conversation and user: at most 256 characters each", code="too_large")
        attachments = tuple([await self._stored(item) for item in ask.attachments])
        conversation = f"{ask.user}/{ask.conversation}" if ask.conversation else ""
        if conversation and ask.messages:
            raise Rejected("messages: a stored conversation has its own; leave `conversation` out", code="bad_value")
        embedding = ask.kind == "embedding"
        inputs = tuple(ask.inputs) or ((ask.text,) if embedding and ask.text else ())
        return Inbound(
            id=ask.id,
            conversation=conversation,
            sender=Sender(id=ask.user or SENDER, application=SENDER),
            text="" if embedding else ask.text,
            kind=ask.kind,
            model=ask.model,
            system=ask.system,
            history=None if conversation and not embedding else tuple(ask.messages),
            inputs=inputs,
            attachments=attachments,
            sampling=sampling_of(ask),
            drawing=ask.drawing,
            stream=ask.stream,
            reply={"subject": reply_to, **({"id": ask.id} if ask.id else {})},
        )

    async def _stored(self, item: AskAttachment) -> Attachment:
        try:
            data = base64.b64decode(item.data, validate=True)
        except binascii.Error as error:
            raise Rejected(f"attachments: {item.name or 'data'} is not base64: {error}", code="bad_value") from None
        return await self.host.store(data, item.media_type, item.name)
