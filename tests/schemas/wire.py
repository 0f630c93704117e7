"""One value of each wire type, with every field set; `golden/` holds the bytes of these as version 1 wrote them.

A golden file is never changed: a message of that form may lie in somebody's stream. A new field gets a default.
"""

from __future__ import annotations

from msgspec import Struct

from schemas.ask import About, Answer, Ask, AskAttachment, AskFile, Refusal, Told
from schemas.event import Alert, AuditRecord, ComponentStatus, DeadLetter
from schemas.message import (
    Attachment,
    Choice,
    Delta,
    Format,
    Inbound,
    Message,
    Outbound,
    Problem,
    RequestState,
    Route,
    Sampling,
    Sender,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    TopToken,
    Usage,
)
from schemas.model import (
    FailedAnswer,
    GoldenAnswer,
    ModelEvent,
    ModelOrder,
    ModelStatus,
    ModelTold,
    ShadowAnswer,
    WorkerStatus,
)
from schemas.picture import Drawing, Drawn, Progress
from schemas.power import PowerEvent, PowerStatus
from schemas.release import Chunk, Chunking, Expected, Golden, Release, ReleaseFile, Versions
from schemas.session import Entry, SessionInfo
from schemas.turn import Turn
from schemas.update import Change, ReleasePublished, UpdateOrder, UpdateStatus, UpdateTold

PICTURE = Attachment(sha256="ab" * 32, media_type="image/png", size_bytes=1234, name="猫.png")
GOLDEN = Golden(
    prompt="Capital of France?", system="Be brief.", kind="completion", max_tokens=8,
    expect=Expected(
        contains=("Paris",), contains_any=("a", "b"), lacks=("sorry",), chars_min=2, chars_max=80, json=True,
        finish="stop", dimensions=3,
    ),
)  # fmt: skip
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
CALL = ToolCall("call-1", "weather", '{"city":"Köln"}')
LOGPROBS = (TokenLogprob("Hi", -0.25, (72, 105), (TopToken("Ho", -1.5, (72, 111)),)),)
INBOUND_MORE = Inbound(
    id="request2",
    conversation="conversation0",
    sender=Sender(id="ann"),
    channel="openai",
    kind="embedding",
    model="text-generation",
    history=(
        Message("assistant", "", tool_calls=(CALL,)),
        Message("tool", "18 °C", tool_call="call-1", name="weather"),
    ),
    inputs=("one", "two"),
    sampling=Sampling(
        presence_penalty=0.5, frequency_penalty=0.25, logit_bias={"11": -100.0}, logprobs=2, n=2,
        format=Format(type="json_schema", schema={"type": "object"}),
        tools=(Tool("weather", "Tells the weather", {"type": "object", "properties": {"city": {"type": "string"}}}),),
        tool_choice="=weather", parallel_tool_calls=False, adapter="bakery",
    ),
    route=Route(kind="code", reason="failover", wanted="coder", why="No live worker serves coder."),
)  # fmt: skip
OUTBOUND_MORE = Outbound(
    id="request2",
    channel="openai",
    conversation="conversation0",
    model="text-generation",
    finish="tool_calls",
    route=Route(kind="code", reason="kind"),
    tool_calls=(CALL,),
    logprobs=LOGPROBS,
    more=(Choice(text="Ho", finish="length", tool_calls=(CALL,), logprobs=LOGPROBS),),
    embeddings=(b"\x00\x00\x80?",),
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

DRAWING = Drawing(size="512x768", steps=20, guidance=7.5, negative="text", scheduler="ddim", strength=0.6)
DRAWN = Attachment(
    sha256="0" * 64, media_type="image/png", size_bytes=9, name="m-7.png",
    drawn=Drawn(prompt="a red boat", seed=7, width=512, height=768, steps=20, guidance=7.5, negative="text",
                scheduler="ddim", strength=0.6, adapter="ink", model="m", version="1"),
)  # fmt: skip
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
    "model-order": ModelOrder(do="reload", model="text-generation"),
    "model-told": ModelTold(model="text-generation", worker="host-abcdef-0", text="does not exist", ok=False),
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
    "entry-more": Entry(
        role="assistant",
        text="Hi",
        request="request0",
        at=1.0,
        route=Route(kind="code", reason="failover", wanted="a", why="b"),
    ),
    "inbound-more": INBOUND_MORE,
    "outbound-more": OUTBOUND_MORE,
    "delta-choice": Delta(request="request0", at=3, text="Hi", choice=1, logprobs=LOGPROBS),
    "answer-more": Answer(id="r", request="r", model="echo", text="", version="1", finish="tool_calls", usage=Usage(),
                          timings=Timings(), route=Route(kind="code", reason="kind"), tool_calls=(CALL,),
                          embeddings=(b"\x00\x00\x80?",)),
    "model-status-more": ModelStatus(name="a", type="llama", worker="w", state="asleep", kinds=("embedding",),
                                     abilities=("tools",), memory_bytes=5, load_s=0.5, tokens=7, tokens_per_s=2.5),
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
    "ask-file": AskFile(sha256="ab" * 32, offset=5),
    "answer-image": Answer(id="mine", request="request0", model="m", text="", version="1", finish="stop", usage=Usage(),
                           timings=Timings(), attachments=(DRAWN,)),
    "answer": ANSWER,
    "answer-empty": Answer(id="r", request="r", model="echo", text="", version="1", finish="cancelled", usage=Usage(),
                           timings=Timings()),
    "answer-error": Answer(id="mine", request="request1", model="echo", error=Problem("exhausted", "given up")),
    "told": Told(id="request0", state="answered", model="text-generation", reply=ANSWER),
    "told-queued": Told(id="request0", state="queued", model="text-generation", place=2),
    "told-dead": Told(id="request1", state="dead", model="echo", reason="given up"),
    "power-status": PowerStatus(
        host="laptop",
        profile="balanced",
        level="low",
        under_load="normal",
        seen_at=1_700_000_000.0,
        on_battery=True,
        sets="sysfs",
        reason="some counters cannot be read",
        source="battery",
        watts=11.5,
        joules=1234.25,
        tokens_per_joule=0.75,
    ),
    "power-event": PowerEvent(
        host="laptop", what="level", at=1_700_000_000.0, level="full", previous="low", reason="work has come"
    ),
    "entry-version": Entry(
        role="assistant", text="Hallo", request="r", at=1_700_000_000.5, model="m", version="2+ab12"
    ),
    "model-status-candidate": ModelStatus(
        name="m", type="llama", worker="w-0", state="ready", version="1+aa", candidate="2+bb"
    ),
    "model-event-update": ModelEvent(
        model="m", what="fetching", at=1_700_000_000.0, version="2", previous="1", site="host-abcdef", done=5, size=10,
        until=1_700_000_600.0,
    ),
    "model-order-stage": ModelOrder(
        do="stage", model="m", link="/m/current", path="/m/releases/2", goldens=(GOLDEN,), in_place=True, trial=False,
        canary=10, shadow=20,
    ),
    "model-told-stage": ModelTold(
        model="m", worker="w-0", text="staged", ok=True, code="bad_model", version="2+bb",
        answers=(GoldenAnswer(text="Paris", finish="stop", dimensions=3, error="none", seconds=0.25),),
        seconds={"load": 1.5},
    ),
    "shadow-answer": ShadowAnswer(
        model="m", version="2+bb", worker="w-0", at=1_700_000_000.0, ok=False, text_chars=9, repeats=0.5, alike=0.25,
        first_ms=12.5, token_ms=3.25,
    ),
    "failed-answer": FailedAnswer(
        model="m", version="2+bb", worker="w-0", at=1_700_000_000.0, code="model_failed",
        request="r", attempt=2,
    ),
    "release": Release(
        name="m", version="2", sequence=7, type="llama", created_at=1_700_000_000.0,
        files=(
            ReleaseFile(path="m.gguf", size=9, sha256="cd" * 32, chunks=(Chunk("ab" * 32, 4), Chunk("ef" * 32, 5))),
        ),
        chunking=Chunking(least=1, average=2, most=8), goldens=(GOLDEN,), changelog="Better.", licence="Apache-2.0",
        origin="https://example.org",
    ),
    "versions": Versions(name="m", versions=("1", "2")),
    "inbound-image": Inbound(id="request0", conversation="c", sender=Sender("s"), text="a red boat", kind="image",
                             drawing=DRAWING, attachments=(DRAWN,)),
    "outbound-image": Outbound(id="request0", channel="web", conversation="c", model="m", version="1",
                               attachments=(DRAWN,)),
    "delta-progress": Delta(request="request0", progress=Progress(step=3, steps=20, preview=b"\xff\xd8")),
    "release-image": Release(
        name="m", version="2", type="diffusion", created_at=1_700_000_000.0, files=(),
        goldens=(Golden(prompt="a red boat", kind="image", expect=Expected(sees=("#ff0000",))),),
    ),
    "model-told-image": ModelTold(
        model="m", worker="w-0", text="staged", ok=True,
        answers=(GoldenAnswer(palette=("#ff0000", "#ffffff"), finish="stop"),),
    ),
    "release-published": ReleasePublished(name="m", at=1_700_000_000.0, version="2"),
    "update-status": UpdateStatus(
        name="m", site="host-abcdef", phase="watching", at=1_700_000_000.0, current="2", version="2", newest="3",
        pinned="2", done=9, size=9, fetched=4, per_s=1.5, until=1_700_000_600.0, reason="compared", models=("m",),
    ),
    "update-order": UpdateOrder(do="rollback", name="m", version="1", reason="worse", by="ops"),
    "update-told": UpdateTold(
        ok=False, text="no", rows=(UpdateStatus(name="m", site="s", phase="idle", at=1.5),),
        history=(
            Change(
                at=1_700_000_000.0, what="swapped", version="2", previous="1", reason="newer", by="ann",
                seconds={"flip": 0.005}, fetched=4,
            ),
        ),
        blocked={"3": "worse"}, versions=("1", "2"),
    ),
    "refusal": Refusal(error=Problem("empty", "the message is empty")),
}  # fmt: skip
