"""The clients and plug-ins of docs/examples, as their readers would run them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import node
from tests.docs.conftest import EXAMPLES, House
from tests.running import until


def environment(house: House) -> dict[str, str]:
    return {**os.environ, "NATS_URL": house.nats_url, "NATS_NKEY": house.nkey}


def ask_py(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", str(EXAMPLES / "ask.py"), *arguments],
        env=environment(house),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_python_client_asks_and_streams(house: House) -> None:
    done = ask_py(house, "what is a roost")
    assert (done.returncode, done.stdout) == (0, "what is a roost\n"), done.stderr


def test_the_python_client_tells_the_state_of_a_request_and_an_error(house: House) -> None:
    assert ask_py(house, "-i", "py-1", "-c", "walk", "and at night").stdout == "and at night\n"
    again = ask_py(house, "-i", "py-1", "-c", "walk", "asked once more")
    assert again.stdout == "and at night\n", "the same id has the same answer"
    state = json.loads(ask_py(house, "--state", "py-1").stdout)
    assert (state["state"], state["reply"]["text"]) == ("answered", "and at night")
    unknown = ask_py(house, "-m", "gpt-9", "hello")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("unknown_model: there is no model 'gpt-9'")
    assert json.loads(ask_py(house, "--state", "never").stdout)["error"]["code"] == "not_found"


def test_the_python_client_cancels(house: House) -> None:
    text = " ".join(f"w{i}" for i in range(2_000))
    asking = subprocess.Popen(
        [sys.executable, "-P", str(EXAMPLES / "ask.py"), "-i", "py-2", text],
        env=environment(house), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert asking.stdout is not None
        assert asking.stdout.read(6) == "w0 w1 ", "it streams while it is cancelled"
        assert json.loads(ask_py(house, "--cancel", "py-2").stdout) == {"ok": True}
        rest = asking.stdout.read()
        assert asking.wait(20) == 0
        assert len(rest) < len(text)
    finally:
        asking.kill()
        asking.wait()
        asking.stdout.close()


def ask_node(house: House, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", "ask.mjs", *arguments],
        cwd=folder, env=environment(house), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def node_folder() -> Path:
    folder = node.installed()
    shutil.copy(EXAMPLES / "ask.mjs", folder / "ask.mjs")
    return folder


def test_the_node_client_asks_and_streams(house: House, node_folder: Path) -> None:
    first = ask_node(house, node_folder, "what is a 🐔 roost", "node-1")
    assert (first.returncode, first.stdout) == (0, "what is a 🐔 roost\n"), first.stderr
    again = ask_node(house, node_folder, "something else", "node-1")
    assert again.stdout == "what is a 🐔 roost\n"
    empty = ask_node(house, node_folder, " ")
    assert empty.returncode == 1
    assert empty.stderr.startswith("empty: the message is empty")


def test_both_clients_get_their_answers_while_the_connectors_are_killed(house: House, node_folder: Path) -> None:
    text = " ".join(f"w{i}" for i in range(60))
    with ThreadPoolExecutor() as pool:
        house.kill("connectors")
        at_once = [pool.submit(ask_py, house, "-i", "killed-1", text), pool.submit(ask_node, house, node_folder, text)]
        house.wait_ready()
        assert [done.result().stdout for done in at_once] == [f"{text}\n"] * 2, "asked while nobody was there"
        killed = house.pid("connectors")
        asked = [pool.submit(ask_py, house, "-i", "killed-2", text), pool.submit(ask_node, house, node_folder, text)]
        until(lambda: ask_py(house, "--state", "killed-2").returncode == 0, 20, "the question is accepted")
        house.kill("connectors")
        house.wait_back("connectors", killed)
        house.wait_ready()  # also learns the web server's new port
        assert [done.result().stdout for done in asked] == [f"{text}\n"] * 2, "killed while they wait"


class Line:
    """A client of the line connector."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, house: House, key: str) -> Line:
        line = cls(*await asyncio.open_connection("127.0.0.1", house.line_port))
        line.send(key)
        return line

    def send(self, text: str) -> None:
        self.writer.write(text.encode() + b"\n")

    async def hear(self) -> tuple[str, str, Any]:
        """Id, what, and the text."""
        raw = (await asyncio.wait_for(self.reader.readline(), 20)).decode()
        assert raw, "the connector has hung up"
        id_, what, *rest = raw.strip().split(" ", 2)
        return id_, what, json.loads(rest[0]) if rest else None

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture(scope="module")
def key(house: House) -> str:
    return house.key("line")


async def test_the_line_connector_answers_in_order(house: House, key: str) -> None:
    line = await Line.connect(house, key)
    for i in range(3):
        line.send(f"{i} message {i}")
    heard = [await line.hear() for _ in range(6)]
    assert sorted(event[0] for event in heard if event[1] == "stored") == ["0", "1", "2"]
    assert [event for event in heard if event[1] == "answer"] == [(str(i), "answer", f"message {i}") for i in range(3)]
    await line.close()


async def test_the_line_connector_gives_the_same_answer_to_a_client_that_comes_back(house: House, key: str) -> None:
    first = await Line.connect(house, key)
    first.send("again said once")
    assert await first.hear() == ("again", "stored", None)
    await first.close()  # before the answer
    second = await Line.connect(house, key)
    second.send("again said once")
    assert await second.hear() == ("again", "stored", None)
    assert await second.hear() == ("again", "answer", "said once")
    await second.close()


async def test_the_line_connector_refuses_what_it_must(house: House, key: str) -> None:
    stranger = await Line.connect(house, "rk-000000000000-" + 48 * "0")
    assert await stranger.hear() == ("-", "error", "unknown key")
    await stranger.close()
    line = await Line.connect(house, key)
    line.send("empty")
    assert await line.hear() == ("empty", "error", "the message is empty")
    line.send("good still here")
    assert [(await line.hear())[1] for _ in range(2)] == ["stored", "answer"]
    await line.close()


async def test_the_faq_backend_answers_from_its_file(house: House) -> None:
    nc = await house.client()
    answer = await house.ask(nc, {"model": "library", "text": "Where can I find the library?"})
    assert answer["text"] == "It is at 4 Mill Lane."
    assert len(answer["version"]) == 12
    assert (await house.ask(nc, {"model": "library", "text": "Why?"}))["text"] == "I do not know."
    await nc.close()


async def test_the_batch_backend_serves_many_at_once_and_cancels(house: House) -> None:
    nc = await house.client()
    texts = [f"{i} letters" for i in range(40)]
    answers = await asyncio.gather(*(house.ask(nc, {"model": "letters", "text": text}) for text in texts))
    assert [answer["text"] for answer in answers] == texts
    short = await house.ask(nc, {"model": "letters", "text": "abcdef", "max_tokens": 3})
    assert short["text"] == "abc"
    await nc.close()


def test_the_plug_ins_settings_are_checked(house: House) -> None:
    done = house.cli("check", "--json")
    assert json.loads(done.stdout) == {"ok": True, "errors": [], "warnings": []}
    broken = house.folder / "broken.yaml"
    broken.write_text("models: [{name: a, type: faq, path: x, word_min: 3}]\nconnectors: [{type: line, port: many}]\n")
    done = house.cli("--config", str(broken), "check")
    assert done.returncode == 78
    assert "models[0] (a): word_min: unknown field" in done.stderr
    assert "connectors[0] (line): port: expected int, got str" in done.stderr
