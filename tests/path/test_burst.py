"""Bursts, full queues and two workers on a running Roost."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.running import RunningRoost, running, until, wait_for


async def test_fifty_messages_of_fifty_conversations_are_all_answered_and_places_shown(roost: RunningRoost) -> None:
    nc = await roost.client()
    places: set[int] = set()

    async def person(number: int) -> str:
        inbox = nc.new_inbox()
        sub = await nc.subscribe(inbox)
        body = {"text": f"burst {number}", "conversation": f"burst-{number}", "stream": True, "model": "one"}
        await nc.publish("roost.ask", json.dumps(body).encode(), reply=inbox)
        while True:
            event = json.loads((await sub.next_msg(timeout=60)).data)
            assert "error" not in event
            if event.get("state") == "queued":
                places.add(event["place"])
            if "finish" in event:
                return str(event["text"])

    answers = await asyncio.gather(*(person(i) for i in range(50)))
    assert answers == [f"burst {i}" for i in range(50)]
    assert max(places) > 20, "the last ones were told how many are before them"
    await nc.close()


@pytest.mark.parametrize("conversations", [1, 5])
async def test_five_quick_messages_survive_the_death_of_connectors_and_worker(
    tmp_path: Path, conversations: int
) -> None:
    model = {"name": "echo", "type": "echo", "delay_ms": 3000}
    with running(tmp_path, {"models": [model], "connectors": [{"type": "nats"}]}) as roost:
        nc = await roost.client()
        inbox = nc.new_inbox()
        sub = await nc.subscribe(inbox)
        for i in range(5):
            body = {"text": f"message {i}", "conversation": f"quick-{i % conversations}", "id": f"quick-{i}"}
            await nc.publish("roost.ask", json.dumps(body).encode(), reply=inbox)

        async def accepted() -> bool:
            return (await asyncio.to_thread(roost.status))["streams"]["INBOX"]["messages"] == 5

        await wait_for(accepted, 10, "all five are stored")
        await asyncio.gather(asyncio.to_thread(roost.kill, "connectors"), asyncio.to_thread(roost.kill, "worker"))
        # nobody asks again: the answers come by themselves, to the address that each message carries
        texts = [json.loads((await sub.next_msg(timeout=60)).data)["text"] for _ in range(5)]
        assert sorted(texts) == [f"message {i}" for i in range(5)]
        if conversations == 1:
            assert texts == [f"message {i}" for i in range(5)]
        await nc.flush()
        assert sub.pending_msgs == 0, "each once"
        await nc.close()


async def test_a_full_queue_refuses_clearly_loses_nothing_and_leaves_others_alone(tmp_path: Path) -> None:
    config = {
        "models": [{"name": "echo", "type": "echo", "slots": 1, "delay_ms": 500}],
        "limits": {"ack_wait_s": 2.0, "conversation_queue_max": 3, "inbox_messages_max": 6},
        "connectors": [{"type": "nats"}],
    }
    with running(tmp_path, config) as roost:
        nc = await roost.client()

        async def ask(conversation: str, i: int) -> dict[str, Any]:
            return await roost.ask(nc, {"text": f"{conversation} {i}", "conversation": conversation})

        loud = [asyncio.create_task(ask("loud", i)) for i in range(10)]
        answers = await asyncio.gather(*loud)
        refused = [a["error"]["code"] for a in answers if "error" in a]
        told = [a["text"] for a in answers if "text" in a]
        assert set(refused) == {"conversation_full"}
        assert len(told) >= 3
        assert len(told) + len(refused) == 10

        many = [asyncio.create_task(ask(f"other-{i}", i)) for i in range(12)]
        answers = await asyncio.gather(*many)
        refused = [a["error"]["code"] for a in answers if "error" in a]
        assert set(refused) == {"queue_full"}
        assert len([a for a in answers if "text" in a]) >= 6
        assert (await ask("quiet", 1))["text"] == "quiet 1"
        assert roost.status()["streams"]["INBOX"]["messages"] == 0
        await nc.close()


async def test_two_workers_share_the_load_and_keep_their_conversations(tmp_path: Path) -> None:
    model = {"name": "echo", "type": "echo", "slots": 2, "delay_ms": 60}
    with running(tmp_path, {"models": [model], "connectors": [{"type": "nats"}]}) as roost:
        second = subprocess.Popen([sys.executable, "-m", "ops.cli", "run", "worker"], env=roost.environment)
        try:
            until(lambda: roost.status()["models"][0]["workers"] == 2, 20, "the second worker serves")
            nc = await roost.client()

            async def talk(conversation: str, turns: int) -> None:
                for i in range(turns):
                    answer = await roost.ask(nc, {"text": f"line {i}", "conversation": conversation})
                    assert answer["usage"]["prompt_tokens"] == 2 + 4 * i

            async with asyncio.TaskGroup() as tasks:
                for i in range(8):
                    tasks.create_task(talk(f"talk-{i}", 5))
            turns = exported(roost)
            by_conversation: dict[str, set[str]] = {}
            for turn in turns:
                by_conversation.setdefault(turn["conversation"], set()).add(turn["worker"])
            assert len(turns) == 40
            assert all(len(workers) == 1 for workers in by_conversation.values()), "each stays with its worker"
            assert len(set.union(*by_conversation.values())) == 2, "both work"

            # a conversation moves on when its worker dies, with its history
            of_second = psutil.Process(second.pid)
            of_second.kill()
            second.wait()
            async with asyncio.TaskGroup() as tasks:
                for i in range(8):
                    tasks.create_task(once_more(roost, nc, f"talk-{i}"))
            await nc.close()
        finally:
            if second.poll() is None:
                second.send_signal(signal.SIGTERM)
                second.wait(20)


async def once_more(roost: RunningRoost, nc: Any, conversation: str) -> None:
    answer = await roost.ask(nc, {"text": "line 5", "conversation": conversation})
    assert answer["usage"]["prompt_tokens"] == 22


def exported(roost: RunningRoost) -> list[dict[str, Any]]:
    result = roost.cli("turns", "export", "--format", "jsonl")
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]
