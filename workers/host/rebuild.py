"""Conversations and answers from the log: what a sessions server that lost its data gets back from TURNS.

Redis holds no only copy. A server that has never seen this installation, or was emptied, has no mark; the first worker
that finds none writes the finished turns of the log back, oldest first, before it serves. Requests that are still
waiting are in INBOX and need nothing.
"""

from __future__ import annotations

import logging
import time
from collections import deque

import msgspec

from bus import streams, subjects
from bus.client import Bus
from bus.sessions import Sessions, trim
from schemas.message import Outbound, RequestState
from schemas.turn import Turn
from workers.host.pipeline import entries_of

log = logging.getLogger("roost.rebuild")

TURNS_MAX = 50_000
"""The newest turns that are read back; at four thousand a second that is a start some ten seconds longer, once."""
_turn = msgspec.json.Decoder(Turn)


async def rebuild(bus: Bus, sessions: Sessions) -> int:
    """Write the log back when the sessions server is new; returns the number of turns, 0 when there was no need."""
    if not await sessions.claim_empty():
        return 0
    since = time.time() - bus.config.sessions.age_s_max
    newest: deque[Turn] = deque(maxlen=TURNS_MAX)
    async for message in bus.read(streams.TURNS, subjects.TURNS_ALL, since):
        try:
            newest.append(_turn.decode(message.data))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("turn %d left out: %s", message.seq, error)
    for turn in newest:
        await _write(sessions, bus, turn)
    if newest:
        log.warning("the sessions server was empty: %d turns written back from the log", len(newest))
    return len(newest)


async def _write(sessions: Sessions, bus: Bus, turn: Turn) -> None:
    inbound = turn.inbound
    reply = Outbound(
        id=turn.id,
        channel=turn.channel,
        conversation=turn.conversation,
        text=turn.text,
        model=turn.model,
        version=turn.version,
        finish=turn.finish,
        usage=turn.usage,
        timings=turn.timings,
        notes=turn.notes,
        error=turn.error,
    )
    state = RequestState(
        id=turn.id,
        state="answered",
        channel=turn.channel,
        conversation=turn.conversation,
        model=turn.model,
        updated_at=turn.finished_at,
        sender=inbound.sender.id,
        asked=inbound.text,
        attachments=inbound.attachments,
        reply=reply,
    )
    entries = entries_of(inbound, reply, turn.finished_at)
    drop = 0
    if entries:
        known = await sessions.history(turn.channel, turn.conversation)
        drop = trim(known, len(entries), sum(len(e.text) for e in entries), bus.config.sessions)
    await sessions.finish(state, entries, drop=drop)
    if entries:
        await sessions.settle(state, title=inbound.text)
