"""A sessions server that lost its data gets conversations and answers back from the log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.running import RunningRoost


async def test_conversations_and_answers_outlive_the_sessions_data(tmp_path: Path) -> None:
    roost = RunningRoost(tmp_path, {"connectors": [{"type": "nats"}]})
    try:
        roost.start()
        nc = await roost.client()
        for i in range(3):
            body = {"text": f"line {i}", "conversation": "kept", "id": f"kept-{i}"}
            assert (await roost.ask(nc, body))["usage"]["prompt_tokens"] == 2 + 4 * i
        once = await roost.ask(nc, {"text": "no conversation", "id": "once"})
        await nc.close()
        roost.stop()
        shutil.rmtree(tmp_path / "data" / "sessions")

        roost.start()
        nc = await roost.client()
        fourth = await roost.ask(nc, {"text": "line 3", "conversation": "kept", "id": "kept-3"})
        assert fourth["usage"]["prompt_tokens"] == 2 + 4 * 3
        again = await roost.ask(nc, {"text": "something else", "id": "once"})
        assert again["text"] == once["text"]
        assert again["request"] == once["request"]
        state = json.loads((await nc.request("roost.ask.state", b'{"id": "kept-1"}')).data)
        assert state["state"] == "answered"
        assert state["reply"]["text"] == "line 1"
        assert roost.status()["streams"]["TURNS"]["messages"] == 5
        await nc.close()
    finally:
        roost.stop()
