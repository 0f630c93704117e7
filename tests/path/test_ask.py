"""The front door `roost.ask` on a running Roost, with a plain nats-py client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.running import RunningRoost, wait_for


@pytest.fixture
async def client(roost: RunningRoost) -> Any:
    nc = await roost.client()
    yield nc
    await nc.close()


async def test_a_question_gets_its_answer(roost: RunningRoost, client: Any) -> None:
    answer = await roost.ask(client, {"text": "hello there world"})
    assert answer["text"] == "hello there world"
    assert answer["model"] == "echo"
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["finish"] == "stop"
    assert answer["timings"]["total_ms"] >= 0


async def test_the_same_id_gets_the_same_answer_without_a_second_inference(roost: RunningRoost, client: Any) -> None:
    before = roost.status()["streams"]["TURNS"]["messages"]
    first = await roost.ask(client, {"text": "once", "id": "twice-asked"})
    second = await roost.ask(client, {"text": "something else", "id": "twice-asked"})
    assert first["id"] == second["id"] == "twice-asked"
    assert first["text"] == second["text"] == "once"
    assert first["request"] == second["request"]
    assert roost.status()["streams"]["TURNS"]["messages"] == before + 1


async def test_the_same_id_asked_while_it_runs_answers_both(roost: RunningRoost, client: Any) -> None:
    body = {"text": "a b c", "id": "both-wait", "model": "slow"}
    answers = await asyncio.gather(roost.ask(client, body), roost.ask(client, body))
    assert [a["text"] for a in answers] == ["a b c", "a b c"]


async def test_a_stream_sends_deltas_first_and_the_answer_last(roost: RunningRoost, client: Any) -> None:
    inbox = client.new_inbox()
    sub = await client.subscribe(inbox)
    body = {"text": "one two three", "stream": True, "model": "slow"}
    await client.publish("roost.ask", json.dumps(body).encode(), reply=inbox)
    text, last = "", {}
    while "finish" not in last:
        last = json.loads((await sub.next_msg(timeout=10)).data)
        if "finish" not in last and last.get("text"):
            assert last.get("at", 0) == len(text)
            text += last["text"]
    assert text == last["text"] == "one two three"
    await sub.unsubscribe()


async def test_a_conversation_is_remembered_and_others_are_not_mixed_in(roost: RunningRoost, client: Any) -> None:
    async def prompt_tokens(conversation: str, text: str) -> int:
        answer = await roost.ask(client, {"text": text, "conversation": conversation})
        return int(answer["usage"]["prompt_tokens"])

    assert await prompt_tokens("remembered", "one two") == 2
    assert await prompt_tokens("remembered", "three") == 5
    assert await prompt_tokens("another", "four") == 1


async def test_messages_of_one_conversation_are_answered_in_order_one_at_a_time(
    roost: RunningRoost, client: Any
) -> None:
    inbox = client.new_inbox()
    sub = await client.subscribe(inbox)
    for i in range(8):
        body = {"text": f"message {i}", "conversation": "ordered", "id": f"ordered-{i}"}
        await client.publish("roost.ask", json.dumps(body).encode(), reply=inbox)
    answers = [json.loads((await sub.next_msg(timeout=20)).data) for _ in range(8)]
    texts = [a["text"] for a in answers]
    assert texts == [f"message {i}" for i in range(8)]
    prompts = {a["text"]: a["usage"]["prompt_tokens"] for a in answers}
    # each sees all that was said before it: 2 words of its own, 4 of every exchange before
    assert [prompts[t] for t in texts] == [2 + 4 * i for i in range(8)]
    await sub.unsubscribe()


async def test_a_state_can_be_asked_for_by_either_id(roost: RunningRoost, client: Any) -> None:
    async def state(id_: str) -> dict[str, Any]:
        return dict(json.loads((await client.request("roost.ask.state", json.dumps({"id": id_}).encode())).data))

    asked = asyncio.create_task(roost.ask(client, {"text": "a b c d e f g h", "id": "watched", "model": "slow"}))

    async def running() -> bool:
        return (await state("watched")).get("state") == "running"

    await wait_for(running, 5, "the request runs")
    answer = await asked
    for id_ in ("watched", answer["request"]):
        found = await state(id_)
        assert found["state"] == "answered"
        assert found["reply"]["text"] == "a b c d e f g h"
    assert (await state("never-asked"))["error"]["code"] == "not_found"


async def test_places_in_the_queue_are_counted(roost: RunningRoost, client: Any) -> None:
    asks = [
        asyncio.create_task(roost.ask(client, {"text": f"w{i}", "id": f"queued-{i}", "model": "one"})) for i in range(4)
    ]

    async def place(i: int) -> int | None:
        reply = await client.request("roost.ask.state", json.dumps({"id": f"queued-{i}"}).encode())
        found = json.loads(reply.data)
        return found.get("place") if found.get("state") == "queued" else None

    async def counted() -> bool:
        places = [await place(i) for i in range(4)]
        waiting = [p for p in places if p]
        return len(waiting) >= 2 and sorted(waiting) == list(range(1, len(waiting) + 1))

    await wait_for(counted, 5, "places of those who wait")
    assert [a["text"] for a in await asyncio.gather(*asks)] == ["w0", "w1", "w2", "w3"]


async def test_a_cancelled_request_ends_with_what_it_has(roost: RunningRoost, client: Any) -> None:
    long = " ".join(f"w{i}" for i in range(200))
    asked = asyncio.create_task(roost.ask(client, {"text": long, "id": "stopped", "model": "slow"}))

    async def running() -> bool:
        reply = await client.request("roost.ask.state", b'{"id": "stopped"}')
        return bool(json.loads(reply.data).get("state") == "running")

    await wait_for(running, 5, "the request runs")
    await client.request("roost.ask.cancel", b'{"id": "stopped"}')
    answer = await asked
    assert answer["finish"] == "cancelled"
    assert len(answer["text"]) < len(long)


async def test_the_service_is_visible_to_nats_tools(roost: RunningRoost, client: Any) -> None:
    info = json.loads((await client.request("$SRV.INFO.roost", b"")).data)
    asks = {"roost.ask", "roost.ask.state", "roost.ask.cancel", "roost.ask.file"}
    assert {e["subject"] for e in info["endpoints"]} == asks
    assert json.loads((await client.request("$SRV.PING.roost", b"")).data)["name"] == "roost"


async def test_outside_clients_cannot_go_around_the_front_door(roost: RunningRoost) -> None:
    errors: list[str] = []

    async def failed(error: Exception) -> None:
        errors.append(str(error).lower())

    nc = await roost.client(error_cb=failed)
    await nc.publish("roost.in.echo.nats.x", b"{}")
    await nc.publish("$JS.API.STREAM.PURGE.INBOX", b"")
    await nc.subscribe("roost.>")
    await nc.flush()

    async def refused() -> bool:
        return len([e for e in errors if "permissions violation" in e]) >= 3

    await wait_for(refused, 5, "three permission errors")
    await nc.close()


BAD = [
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b"\xff\xfe", "invalid_json"),
    (b"[" * 100_000, "invalid"),
    (b"[]", "invalid_request"),
    (b"{}", "empty"),
    (b'{"text": 5}', "invalid_request"),
    (b'{"text": "x", "max_tokens": "many"}', "invalid_request"),
    (b'{"text": ""}', "empty"),
    (b'{"text": "   "}', "empty"),
    (b'{"text": "a\\u0000b"}', "bad_text"),
    (b'{"text": "\\ud800"}', "invalid"),
    (b'{"text": "x", "model": "gpt-9"}', "unknown_model"),
    (b'{"text": "x", "model": "../../etc"}', "unknown_model"),
    (b'{"text": "x", "v": 99}', "unsupported_version"),
    (b'{"text": "x", "kind": "poem"}', "invalid_request"),
    (b'{"text": "x", "temperature": -1}', "bad_value"),
    (b'{"text": "x", "max_tokens": 0}', "bad_value"),
    (b'{"text": "x", "stop": [""]}', "bad_value"),
    (b'{"text": "x", "attachments": [{"media_type": "image/png", "data": "***"}]}', "bad_value"),
    (json.dumps({"text": "x" * 200_000}).encode(), "too_large"),
]


@pytest.mark.parametrize(("payload", "code"), BAD, ids=[str(i) for i in range(len(BAD))])
async def test_bad_input_is_answered_with_a_clear_error(
    roost: RunningRoost, client: Any, payload: bytes, code: str
) -> None:
    reply = await client.request("roost.ask", payload, timeout=10)
    error = json.loads(reply.data)["error"]
    assert error["code"].startswith(code)
    assert error["message"]
    assert reply.headers["Nats-Service-Error-Code"] == error["code"]
    assert (await roost.ask(client, {"text": "still there"}))["text"] == "still there"


async def test_unknown_fields_are_ignored(roost: RunningRoost, client: Any) -> None:
    assert (await roost.ask(client, {"text": "hi", "from_the_future": {"a": [1]}}))["text"] == "hi"
