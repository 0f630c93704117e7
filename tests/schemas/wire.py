"""One value of each wire type, with every field set; `golden/` holds the bytes of these as version 1 wrote them.

A golden file is never changed: a message of that form may lie in somebody's stream. A new field gets a default.
"""

from __future__ import annotations

from msgspec import Struct

from schemas.ask import About, Answer, Ask, AskAttachment, Refusal, Told
from schemas.event import Alert, AuditRecord, ComponentStatus, DeadLetter
from schemas.message import (
    Attachment,
    Delta,
    Inbound,
    Message,
    Outbound,
    Problem,
    RequestState,
    Sampling,
    Sender,
    Timings,
    Usage,
)
from schemas.model import ModelEvent, ModelStatus, WorkerStatus
from schemas.session import Entry, SessionInfo
from schemas.turn import Turn

PICTURE = Attachment(sha256="ab" * 32, media_type="image/png", size_bytes=1234, name="猫.png")
USAGE = Usage(prompt_tokens=12, completion_tokens=3, cached_tokens=8)
TIMINGS = Timings(queued_ms=1.5, first_token_ms=20.25, total_ms=120.125)
INBOUND = Inbound(
    id="request0",
    conversation="conversation0",
    sender=Sender(id="ann", name="Ann Ä", language="zh"),
    text="Guten Tag, 世界 🌍",
    channel="openai",
    kind="completion",
    model="text-generation",
    system="Be brief.",
    history=(Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello")),
    attachments=(PICTURE,),
    sampling=Sampling(
        max_tokens=5, temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, repeat_penalty=1.1, seed=7, stop=("\n", "END"),
        ignore_eos=True,
    ),
    stream=True,
    received_at=1_700_000_000.25,
    reply={"subject": "_INBOX.1"},
)  # fmt: skip
OUTBOUND = Outbound(
    id="request0",
    channel="nats",
    conversation="conversation0",
    text='Hello\n"world"',
    model="text-generation",
    version="0123456789ab",
    finish="length",
    usage=USAGE,
    timings=TIMINGS,
    notes=("The oldest 2 turns were dropped.",),
    attachments=(PICTURE,),
    reply={"subject": "_INBOX.1", "id": "mine"},
)
REFUSED = Outbound(
    id="request1",
    channel="nats",
    conversation="c1",
    finish="error",
    error=Problem("model_failed", "the model failed"),
)
ANSWER = Answer(
    id="mine",
    request="request0",
    model="text-generation",
    text="Hello",
    version="0123456789ab",
    finish="stop",
    usage=USAGE,
    timings=TIMINGS,
    notes=("A note.",),
    attachments=(PICTURE,),
)

EXAMPLES: dict[str, Struct] = {
    "inbound": INBOUND,
    "inbound-least": Inbound(id="r", conversation="c", sender=Sender(id="s"), text="hi"),
    "outbound": OUTBOUND,
    "outbound-error": REFUSED,
    "delta": Delta(request="request0", attempt=2, at=17, text=" wörld", state="running"),
    "delta-place": Delta(request="request0", state="queued", place=4),
    "turn": Turn(
        id="request0",
        channel="nats",
        conversation="conversation0",
        inbound=INBOUND,
        text="Hello",
        model="text-generation",
        version="0123456789ab",
        finished_at=1_700_000_001.5,
        worker="host-abc-0",
        attempt=2,
        finish="stop",
        usage=USAGE,
        timings=TIMINGS,
        notes=("A note.",),
        knowledge=("doc-1",),
    ),
    "request-state": RequestState(
        id="request0",
        state="queued",
        channel="web",
        conversation="conversation0",
        model="text-generation",
        place=3,
        seq=99,
        updated_at=1_700_000_000.25,
        sender="ann",
        asked="What?",
    ),
    "request-state-dead": RequestState(
        id="request1", state="dead", channel="nats", conversation="c1", reason="the model failed", reply=REFUSED
    ),
    "model-status": ModelStatus(
        name="text-generation",
        type="llama",
        worker="host-abc-0",
        state="ready",
        version="0123456789ab",
        reason="",
        context=2048,
        slots=8,
        busy=2,
        description="small",
    ),
    "worker-status": WorkerStatus(
        id="host-abc-0",
        host="host",
        pid=17,
        started_at=1_700_000_000.0,
        seen_at=1_700_000_009.5,
        models=("text-generation", "echo"),
        draining=True,
    ),
    "model-event": ModelEvent(
        model="text-generation", what="rolled_back", at=1_700_000_000.0, version="aa", previous="bb", reason="slow"
    ),
    "component-status": ComponentStatus(
        name="nats", type="nats", state="degraded", seen_at=1_700_000_000.0, pid=18, reason="link lost"
    ),
    "alert": Alert(code="dead_letter", message="given up", at=1_700_000_000.0, level="critical", part="connectors"),
    "dead-letter": DeadLetter(
        stream="INBOX",
        subject="roost.in.echo.nats.c1",
        seq=5,
        reason="delivered 5 times without a result",
        at=1_700_000_000.0,
        payload=b'{"id":"request1"}\x00\xff',
        id="request1",
        code="exhausted",
        deliveries=5,
        headers={"Roost-Requeued": "3"},
    ),
    "audit-record": AuditRecord(
        what="key_created", who="owner", at=1_700_000_000.0, target="laptop", detail={"from": "cli"}, previous="00ff"
    ),
    "entry": Entry(
        role="assistant",
        text="Hello",
        request="request0",
        at=1_700_000_000.0,
        model="text-generation",
        finish="stop",
        notes=("A note.",),
        attachments=(PICTURE,),
        error=Problem("internal", "no"),
    ),
    "session-info": SessionInfo(conversation="conversation0", title="Hello", updated_at=1_700_000_000.0),
    "ask": Ask(
        text="Hello",
        id="mine",
        conversation="talk",
        model="echo",
        kind="chat",
        system="Be brief.",
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        repeat_penalty=1.1,
        seed=7,
        stop=["\n"],
        ignore_eos=True,
        stream=True,
        attachments=[AskAttachment(media_type="image/png", data="iVBORw0=", name="dot.png")],
        user="ann",
    ),
    "about": About(id="mine"),
    "answer": ANSWER,
    "answer-empty": Answer(id="r", request="r", model="echo", text="", version="1", finish="cancelled", usage=Usage(),
                           timings=Timings()),
    "answer-error": Answer(id="mine", request="request1", model="echo", error=Problem("exhausted", "given up")),
    "told": Told(id="request0", state="answered", model="text-generation", reply=ANSWER),
    "told-queued": Told(id="request0", state="queued", model="text-generation", place=2),
    "told-dead": Told(id="request1", state="dead", model="echo", reason="given up"),
    "refusal": Refusal(error=Problem("empty", "the message is empty")),
}  # fmt: skip
