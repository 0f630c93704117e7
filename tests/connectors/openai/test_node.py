"""The official npm client against a running Roost."""

import json

import aiohttp

from tests import node
from tests.running import RunningRoost, wait_for


async def test_the_npm_client_chats_streams_lists_stops_and_knows_the_errors(roost: RunningRoost) -> None:
    key = roost.key("node")
    seen = json.loads(await node.run("openai_client.mjs", ROOST_URL=f"{roost.http}/v1", ROOST_KEY=key))
    assert seen["text"] == seen["streamed"] == "hello small world"
    assert seen["tokens"] == seen["usage"]["total_tokens"] == 6
    assert seen["request"]
    assert seen["completed"] == "once upon"
    assert {"echo", "slow"} <= set(seen["models"])
    assert seen["unknown"] == {
        "kind": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"
    }  # fmt: skip
    assert seen["bad"] == {"kind": "BadRequestError", "status": 400, "code": "unsupported", "param": "n"}

    async def cancelled() -> bool:
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{roost.http}/v1/requests/{seen['stopped']}"
        async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
            found = await response.json()
        return bool(found["error"]) and found["error"]["code"] == "cancelled"

    await wait_for(cancelled, 20, "the stopped generation is cancelled")
