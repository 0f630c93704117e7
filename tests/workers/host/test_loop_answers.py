"""What travels from a backend to the reply beside its text, and what a backend cannot do; over the bus in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from bus import contract, streams, subjects
from schemas.message import Delta, Format, Kind, Message, Route, Sampling, TokenLogprob, Tool, ToolCall
from tests.bus.real import soon
from tests.workers.host.talented import TalentedBackend
from tests.workers.host.test_loop import CONFIG, House

TOOL = Tool("weather", "The weather", {"type": "object"})


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await streams.apply(house.bus, CONFIG)
    yield house
    await house.bus.close()


async def listen(house: House, request: str) -> list[Delta]:
    heard: list[Delta] = []

    async def arrived(message: contract.Message) -> None:
        heard.append(msgspec.json.decode(message.data, type=Delta))

    await house.bus.subscribe(subjects.delta(request), arrived)
    return heard


async def test_several_answers_go_out_apart_with_their_log_probabilities(house: House) -> None:
    text = "one 🦀 three"
    deltas = await listen(house, "r1")
    async with house.worker("w1", backend=TalentedBackend()):
        await house.ask("r1", text, history=(), stream=True, sampling=Sampling(n=3, logprobs=0))
        (reply,) = await house.replies(1)
        await soon(lambda: sum(len(d.text) for d in deltas) >= 3 * len(text) + 2, "all pieces")
    texts: dict[int, str] = defaultdict(str)
    logprobs: dict[int, tuple[TokenLogprob, ...]] = defaultdict(tuple)
    for delta in deltas[1:]:
        assert delta.at == len(texts[delta.choice])
        assert delta.text, "a delta that could be lost unnoticed"
        texts[delta.choice] += delta.text
        logprobs[delta.choice] += delta.logprobs
    assert texts == {0: text, 1: "ONE 🦀 THREE1", 2: "ONE 🦀 THREE2"}
    assert reply.text == text
    assert [choice.text for choice in reply.more] == [texts[1], texts[2]]
    assert [reply.logprobs, *(choice.logprobs for choice in reply.more)] == [logprobs[i] for i in range(3)]
    assert b"".join(bytes(t.bytes) for t in reply.logprobs).decode() == text


async def test_tool_calls_embeddings_and_the_route_reach_the_reply(house: House) -> None:
    backend = TalentedBackend()
    route = Route(reason="kind", why="for embedding")
    async with house.worker("w1", backend=backend):
        await house.ask("r1", history=(), sampling=Sampling(tools=(TOOL,)), route=route)
        (called,) = await house.replies(1)
        await house.ask("r2", "", history=(), kind="embedding", inputs=("a", "b"))
        embedded = (await house.replies(2))[1]
    assert (called.finish, called.tool_calls) == ("tool_calls", (ToolCall("call_1", "weather", '{"city":"Bonn"}'),))
    assert called.route == route
    assert len(embedded.embeddings) == 2
    assert (backend.seen[1].kind, backend.seen[1].inputs) == ("embedding", ("a", "b"))


CALLED = Message("assistant", "", (ToolCall("c", "weather"),))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sampling": Sampling(tools=(TOOL,))}, "tools"),
        ({"history": (Message("user", "hi"), CALLED)}, "messages[1]"),
        ({"history": (CALLED, Message("tool", "x", tool_call="c"))}, "messages[0]"),
        ({"sampling": Sampling(format=Format(type="json"))}, "format"),
        ({"sampling": Sampling(logprobs=0)}, "logprobs"),
        ({"sampling": Sampling(n=2)}, "n"),
        ({"sampling": Sampling(logit_bias={"5": 1.0})}, "logit_bias"),
        ({"sampling": Sampling(adapter="pirate")}, "adapter"),
        ({"kind": "embedding", "inputs": ("a",), "text": ""}, "kind"),
        ({"kind": "image"}, "kind"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_a_backend_cannot_do_is_refused_by_name_and_never_ignored(
    house: House, fields: dict[str, Any], field: str
) -> None:
    async with house.worker("w1"):
        await house.ask("r1", **{"history": (), **fields})
        (reply,) = await house.replies(1)
        await house.ask("r2", "after it", history=())
        assert (await house.replies(2))[1].text == "after it"
    assert reply.error is not None
    assert reply.error.code == "unsupported"
    assert reply.error.message.startswith(f"{field}: the model 'echo'")
    assert reply.finish == "error"


@pytest.mark.parametrize("kind", ["auto", "chat", "code", "long"])
async def test_every_kind_of_conversation_is_a_chat_to_the_backend(house: House, kind: Kind) -> None:
    backend = TalentedBackend()
    async with house.worker("w1", backend=backend):
        await house.ask("r1", "hi", kind=kind, history=())
        (reply,) = await house.replies(1)
    assert reply.text == "hi"
    assert backend.seen[0].kind == "chat"
