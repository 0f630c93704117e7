"""Routing in a real Roost: commands, guesses, a model that cannot be loaded, and the reason in the answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running import RunningRoost, running, wait_for


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRoost]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "no.gguf").write_bytes(b"no model at all")
    models = [
        {"name": "talk", "type": "echo"},
        {"name": "coder", "type": "echo", "routes": {"kinds": ["code"], "commands": ["/dev"]}},
        {"name": "qwen", "type": "echo", "routes": {"languages": ["zh"]}},
        {"name": "broken", "type": "llama", "path": "no.gguf", "routes": {"kinds": ["long"], "fallback": ["qwen"]}},
    ]
    with running(folder, {"models": models}) as started:
        yield started


@pytest.mark.parametrize(
    ("ask", "model", "kind", "reason", "text"),
    [
        ({"text": "hello there"}, "talk", "chat", "default", "hello there"),
        ({"text": "hello", "model": "qwen"}, "qwen", "chat", "named", "hello"),
        ({"text": "hello", "model": "auto"}, "talk", "chat", "default", "hello"),
        ({"text": "Write a bash script that counts"}, "coder", "code", "kind", "Write a bash script that counts"),
        ({"text": "hello", "kind": "code"}, "coder", "code", "kind", "hello"),
        ({"text": "/dev hello", "conversation": "c", "user": "u"}, "coder", "code", "command", "hello"),
        ({"text": "今天天气怎么样"}, "qwen", "chat", "language", "今天天气怎么样"),
    ],
)
async def test_the_answer_says_which_model_gave_it_and_why(
    house: RunningRoost, ask: dict[str, str], model: str, kind: str, reason: str, text: str
) -> None:
    client = await house.client()
    try:
        answer = await house.ask(client, ask)
        assert (answer["model"], answer["text"].strip()) == (model, text)
        route = answer["route"]
        assert (route.get("kind", "chat"), route.get("reason", "default")) == (kind, reason)
    finally:
        await client.close()


async def test_a_model_that_cannot_be_loaded_is_replaced_and_the_answer_says_so(house: RunningRoost) -> None:
    client = await house.client()
    try:

        async def replaced() -> dict[str, object] | None:
            try:  # what is asked before waits in the queue of `broken`, as it should
                answer = await house.ask(client, {"text": "hello", "model": "broken"}, timeout_s=2)
            except TimeoutError:
                return None
            return answer if answer["model"] == "qwen" else None

        answer = await wait_for(replaced, 60, "the connectors have heard that the model failed")
        assert answer["route"] == {"reason": "failover", "wanted": "broken", "why": "broken has no live worker"}
    finally:
        await client.close()


async def test_an_unknown_name_is_refused_with_the_names(house: RunningRoost) -> None:
    client = await house.client()
    try:
        answer = await house.ask(client, {"text": "hello", "model": "gpt-9"})
        assert answer["error"]["code"] == "unknown_model"
        assert "talk, coder, qwen, broken" in answer["error"]["message"]
    finally:
        await client.close()
