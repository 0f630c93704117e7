"""`kill -9` of any process under load: every accepted message gets one answer or one dead letter, in order.

Seeds are printed with a failure; ROOST_TEST_SEED repeats one, ROOST_TEST_KILLS changes how many.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from tests.running import RunningRoost, wait_for

CLIENTS = 20
KILLS = int(os.environ.get("ROOST_TEST_KILLS", "50"))
SEED = int(os.environ.get("ROOST_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
VICTIMS = ("connectors", "worker", "nats", "valkey", "supervisor")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Client:
    """A person who writes on without waiting for the answer to the message before, and asks again when none comes."""

    def __init__(self, number: int, nc: Any, rng: random.Random) -> None:
        self.number = number
        self.nc = nc
        self.rng = rng
        self.conversation = f"person-{number}"
        self.answers: dict[str, set[str]] = defaultdict(set)
        self.copies: dict[str, int] = defaultdict(int)

    async def ask(self, index: int) -> None:
        id_ = f"{self.conversation}-{index}"
        text = f"{id_} says something"
        body = json.dumps({"id": id_, "text": text, "conversation": self.conversation}).encode()
        inbox = self.nc.new_inbox()
        sub = await self.nc.subscribe(inbox)
        while True:
            try:
                await self.nc.publish("roost.ask", body, reply=inbox)
                message = await sub.next_msg(timeout=4)
            except (nats.errors.TimeoutError, nats.errors.OutboundBufferLimitError):
                continue
            if not message.data:  # nobody serves the front door at the moment
                await asyncio.sleep(0.1)
                continue
            answer = json.loads(message.data)
            if "error" in answer and answer["error"]["code"] != "exhausted":
                await asyncio.sleep(0.1)
                continue
            self.copies[answer["request"]] += 1
            self.answers[id_].add(answer.get("text") or answer["error"]["code"])
            assert answer.get("text", text) == text
            break
        while sub.pending_msgs:
            late = json.loads((await sub.next_msg()).data or b"{}")
            self.answers[id_].add(late.get("text") or late.get("error", {}).get("code", ""))
        await sub.unsubscribe()

    async def live(self, stop: asyncio.Event) -> None:
        index = 0
        while not stop.is_set():
            pair = [asyncio.create_task(self.ask(index + k)) for k in range(2)]
            await asyncio.gather(*pair)
            index += 2
            await asyncio.sleep(self.rng.uniform(0.1, 0.6))


@pytest.mark.timeout(900)
async def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    print(f"ROOST_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    roost = RunningRoost(
        tmp_path,
        {
            "models": [{"name": "echo", "type": "echo", "delay_ms": 20, "delay_token_ms": 5}],
            "connectors": [{"type": "nats"}],
            "bus": {"listen": f"127.0.0.1:{free_port()}"},
            "sessions": {"listen": f"127.0.0.1:{free_port()}", "turns_max": 100_000, "chars_max": 100_000_000},
            "limits": {"ack_wait_s": 2.0, "drain_s": 3.0, "deliveries_max": 12},
        },
    )
    try:
        await asyncio.to_thread(roost.start)
        nc = await roost.client(max_reconnect_attempts=-1, reconnect_time_wait=0, pending_size=2**24)
        clients = [Client(i, nc, random.Random(rng.random())) for i in range(CLIENTS)]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for client in clients:
                tasks.create_task(client.live(stop))
            for number in range(KILLS):
                await asyncio.sleep(rng.uniform(0.05, 0.7))
                victim = rng.choice(VICTIMS)
                began = time.monotonic()
                killed = await asyncio.to_thread(roost.kill, victim)
                if victim == "supervisor":
                    await asyncio.to_thread(roost.start)
                else:
                    await asyncio.to_thread(roost.wait_back, victim, killed)
                print(f"kill {number}: {victim}, back after {time.monotonic() - began:.1f} s")
            stop.set()
        await nc.close()
        await check(roost, clients)
    except BaseException:
        print(f"failed with ROOST_TEST_SEED={SEED}\n{roost.logs()}")
        raise
    finally:
        await asyncio.to_thread(roost.stop)


async def check(roost: RunningRoost, clients: list[Client]) -> None:
    async def drained() -> bool:
        streams = (await asyncio.to_thread(roost.status))["streams"]
        return streams["INBOX"]["messages"] == 0 and streams["OUTBOX"]["messages"] == 0

    await wait_for(drained, 60, "the queues run empty")
    exported = await asyncio.to_thread(roost.cli, "turns", "export", "--format", "jsonl", timeout_s=120)
    turns = [json.loads(line) for line in exported.stdout.splitlines()]
    letters = json.loads((await asyncio.to_thread(roost.cli, "dead", "list", "--json")).stdout)
    dead = {letter["id"] for letter in letters if letter["stream"] == "INBOX"}
    by_request: dict[str, list[dict[str, Any]]] = defaultdict(list)
    by_conversation: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for turn in turns:
        by_request[turn["id"]].append(turn)
        by_conversation[turn["conversation"]].append(turn)
    asked = {id_ for client in clients for id_ in client.answers}
    print(f"{len(asked)} asked, {len(turns)} turns, {len(dead)} dead letters")
    for letter in letters:
        print("dead letter:", {key: letter.get(key) for key in ("stream", "subject", "code", "reason", "deliveries")})
    assert len(turns) + len(dead) >= len(asked) > CLIENTS
    doubled = {request: len(found) for request, found in by_request.items() if len(found) != 1}
    assert not doubled, "requests with more than one turn"
    assert not dead & set(by_request), "answered and dead at once"
    for client in clients:
        wrong = {id_: answers for id_, answers in client.answers.items() if len(answers) != 1}
        assert not wrong, "requests with two different answers"
    for conversation in by_conversation.values():
        accepted = [turn["inbound"]["received_at"] for turn in conversation]
        assert accepted == sorted(accepted), "answered in the order of acceptance"
        if not dead:
            # the model saw each earlier exchange once: 3 words of its own, 6 of every exchange before
            prompts = [turn["usage"]["prompt_tokens"] for turn in conversation]
            assert prompts == [3 + 6 * i for i in range(len(conversation))]
