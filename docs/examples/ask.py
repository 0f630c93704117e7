"""Ask Roost over NATS and print the answer as it comes. Needs `nats-py[nkeys]`, and nothing of Roost.

    python ask.py "What is a roost?"                 one question
    python ask.py -c walk -i q1 "And at night?"      in the conversation `walk`, with an id of your own
    python ask.py --state q1                         what became of it, also tomorrow
    python ask.py --cancel q1                        end it

NATS_URL is the server (default nats://127.0.0.1:4222), NATS_NKEY the file with the client's key
(default data/secrets/client.nk).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import uuid
from typing import Any, cast

import nats
from nats.aio.client import Client

SILENCE_S = 5.0  # then ask what became of the request


async def about(nc: Client, what: str, id_: str) -> dict[str, Any]:
    """Ask `roost.ask.state` or `roost.ask.cancel` about one request."""
    message = await nc.request(f"roost.ask.{what}", json.dumps({"id": id_}).encode(), timeout=5)
    return cast(dict[str, Any], json.loads(message.data))


async def missed(nc: Client, question: dict[str, Any], inbox: str) -> dict[str, Any] | None:
    """After a silence: the answer, if there is one. What Roost does not know is asked again, under the same id."""
    try:
        known = await about(nc, "state", question["id"])
    except (nats.errors.NoRespondersError, nats.errors.TimeoutError):  # the front door is being restarted
        await asyncio.sleep(1)
        known = {"error": "nobody there"}
    if "error" in known:
        await nc.publish("roost.ask", json.dumps(question).encode(), reply=inbox)
    return known.get("reply")


async def ask(nc: Client, question: dict[str, Any]) -> dict[str, Any]:
    """Send `question`, print the pieces of its answer, and return the final message."""
    inbox = nc.new_inbox()
    answers = await nc.subscribe(inbox)
    await nc.publish("roost.ask", json.dumps(question).encode(), reply=inbox)
    shown = ""
    while True:
        try:
            data = (await answers.next_msg(timeout=SILENCE_S)).data
        except nats.errors.TimeoutError:
            data = b""
        event = json.loads(data) if data else await missed(nc, question, inbox)  # NATS says "nobody there" with nothing
        if event is None:
            continue
        if "finish" in event or "error" in event:
            rest = event.get("text", "")
            print(rest.removeprefix(shown) if rest.startswith(shown) else f"\n{rest}")
            return cast(dict[str, Any], event)
        if event.get("place"):
            print(f"number {event['place']} in the queue", file=sys.stderr)
        # `at` says where a piece belongs: one that repeats the beginning is of a new attempt
        elif event.get("text") and event.get("at", 0) == len(shown):
            print(event["text"], end="", flush=True)
            shown += event["text"]


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("text", nargs="?", default="")
    parser.add_argument("-c", "--conversation", default="")
    parser.add_argument("-m", "--model", default="")
    parser.add_argument("-i", "--id", default="")
    parser.add_argument("--state", metavar="ID")
    parser.add_argument("--cancel", metavar="ID")
    given = parser.parse_args()
    nc = await nats.connect(
        os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
        nkeys_seed=os.environ.get("NATS_NKEY", "data/secrets/client.nk"),
    )
    try:
        if given.state or given.cancel:
            found = await about(nc, "state" if given.state else "cancel", given.state or given.cancel)
            print(json.dumps(found, indent=2, ensure_ascii=False))
            return int("error" in found)
        question: dict[str, Any] = {"id": given.id or uuid.uuid4().hex, "text": given.text, "stream": True}
        question |= {k: v for k, v in {"conversation": given.conversation, "model": given.model}.items() if v}
        answer = await ask(nc, question)
        if "error" in answer:
            print(f"{answer['error']['code']}: {answer['error']['message']}", file=sys.stderr)
        return int("error" in answer)
    finally:
        await nc.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
