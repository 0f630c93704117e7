"""Updates as people make them: with `roost release` and `roost update`, on a whole Roost with echo models."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import RunningRoost, wait_for
from tests.tools import brittle
from tests.updater.publishing import publisher
from tests.updates.following import Following, mark
from tests.updates.talkers import faults, talking


class Publisher:
    """Somebody with a shell, on a machine where no Roost runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "passphrase").write_text("not much of a secret\n")
        self.roost(
            "release", "keys", "create", "--to", str(folder / "keys"), "--passphrase-file", str(folder / "passphrase")
        )

    def roost(self, *words: str) -> str:
        env = {**os.environ, "ROOST_DATA": str(self.folder / "none"), "ROOST_CONFIG": str(self.folder / "none.yaml")}
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", *words], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def root(self) -> Path:
        return self.folder / "keys" / "root.json"

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def create(self, name: str, version: str, prompts: bool = True) -> None:
        files = brittle.release(self.folder / f"{name}-{version}", mark(version))
        goldens = self.folder / "goldens.yaml"
        expect = {"contains": [f"good{mark(version)}", f"morning{mark(version)}"], "finish": "stop"}
        goldens.write_text(yaml.safe_dump([{"prompt": "good morning", "expect": expect}] if prompts else []))
        self.roost(
            "release", "create", name, version, str(files), "--type", "echo", "--goldens", str(goldens),
            "--repository", str(self.site), "--keys", str(self.folder / "keys"), "--licence", "MIT",
            "--changelog", f"this is {version}", "--origin", "a test",
        )  # fmt: skip


def ok(roost: RunningRoost, *words: str) -> str:
    done = roost.cli(*words, timeout_s=60)
    assert done.returncode == 0, f"roost {' '.join(words)}: {done.stdout}\n{done.stderr}"
    return done.stdout


def shown(roost: RunningRoost, *words: str) -> Any:
    return json.loads(ok(roost, *words, "--json"))


async def answer(roost: RunningRoost, client: Any, words: str = "good evening") -> tuple[str, str]:
    body = await roost.ask(client, {"text": words})
    return body["text"], body["version"].partition("+")[0]


async def serves(roost: Following, client: Any, version: str) -> None:
    """Wait until everybody gets `version`."""
    wanted = (f"good{mark(version)} evening{mark(version)}", version)

    async def so() -> bool:
        return await answer(roost, client) == wanted

    await wait_for(so, 30, f"version {version} answers")


@pytest.mark.timeout(180)
async def test_a_newcomer_publishes_and_follows_and_goes_back_by_the_commands_of_the_manual(tmp_path: Path) -> None:
    me = Publisher(tmp_path / "publisher")
    www = tmp_path / "www"
    me.create("talk", "1.0")
    sent = me.roost("release", "push", "--repository", str(me.site), str(www))
    assert "the Roost here was told" not in sent

    roost = Following(
        tmp_path / "here", publisher(tmp_path / "unused"), kind="echo", first=False,
        updates={"source": str(www), "root": str(me.root)},
    )  # fmt: skip
    try:
        await asyncio.to_thread(roost.start)
        client = await roost.client()
        await roost.settled("1.0")  # nothing served before: the source is asked at the start
        await serves(roost, client, "1.0")

        # published elsewhere: found when asked for
        me.create("talk", "1.1")
        me.roost("release", "push", "--repository", str(me.site), str(www))
        checked = await asyncio.to_thread(roost.cli, "update", "check", "--wait")
        assert checked.returncode == 0, checked.stderr
        assert "1.1 serves" in checked.stdout
        assert await answer(roost, client) == ("good~1.1 evening~1.1", "1.1")

        # published from here: the updater is told
        me.create("talk", "1.2")
        assert "the Roost here was told" in ok(roost, "release", "push", "--repository", str(me.site), str(www))
        await roost.settled("1.2")
        assert await answer(roost, client) == ("good~1.2 evening~1.2", "1.2")
        turns = [json.loads(line) for line in ok(roost, "turns", "export", "--format", "jsonl").splitlines()]
        assert {turn["version"].partition("+")[0] for turn in turns} == {"1.0", "1.1", "1.2"}
        assert all(turn["text"].endswith(mark(turn["version"].partition("+")[0])) for turn in turns)

        row = shown(roost, "update", "status")["rows"][0]
        assert (row["name"], row["phase"], row["current"], row["newest"]) == ("talk", "idle", "1.2", "1.2")
        assert row["models"] == ["talk"]
        model = next(m for m in shown(roost, "status")["models"] if m["name"] == "talk")
        assert model["version"].startswith("1.2+")

        # and back
        ok(roost, "update", "rollback", "talk", "--reason", "speaks French")
        assert await answer(roost, client) == ("good~1.1 evening~1.1", "1.1")
        history = shown(roost, "update", "history", "talk")
        assert history["blocked"] == {"1.2": "speaks French"}
        assert history["history"][-1]["what"] == "rolled_back"
        assert set(history["versions"]) >= {"1.1", "1.2"}
        assert "speaks French" in ok(roost, "update", "history", "talk")
        again = await asyncio.to_thread(roost.cli, "update", "check", "--wait")
        assert (again.returncode, roost.serves()) == (0, "1.1"), "blocked ones are not taken again"

        # pinned, and on again
        ok(roost, "update", "pin", "talk")
        ok(roost, "update", "unblock", "talk", "1.2")
        assert roost.serves() == "1.1"
        assert shown(roost, "update", "status")["rows"][0]["pinned"] == "1.1"
        ok(roost, "update", "unpin", "talk")
        await roost.settled("1.2")
        assert "; the newest is 1.2" in ok(roost, "update", "pin", "talk", "1.1", "--wait")
        assert (roost.serves(), await answer(roost, client)) == ("1.1", ("good~1.1 evening~1.1", "1.1"))
        await client.close()
    except BaseException:
        print(roost.logs())
        raise
    finally:
        await asyncio.to_thread(roost.stop)


@pytest.mark.timeout(180)
async def test_by_hand_over_the_bus_and_by_a_file_that_was_replaced(tmp_path: Path) -> None:
    me = Publisher(tmp_path / "publisher")
    roost = Following(
        tmp_path / "here", publisher(tmp_path / "unused"), kind="echo", rollout={"auto": False, "running": "requeue"},
        updates={"source": "bus", "root": str(me.root)}, entry={"delay_token_ms": 10},
    )  # fmt: skip
    try:
        await asyncio.to_thread(roost.start)
        client = await roost.client()
        assert (await answer(roost, client))[0] == "good~0 evening~0"

        me.create("talk", "1")
        ok(roost, "release", "push", "--repository", str(me.site), "bus")

        async def waits() -> bool:
            swap = roost.record().swap
            return swap is not None and swap.step == "staged"

        await wait_for(waits, 30, "the release is here and waits")
        checked = ok(roost, "update", "check", "--wait")
        assert "roost update apply talk" in checked
        assert roost.serves() == "0"
        assert (await answer(roost, client))[0] == "good~0 evening~0"
        async with talking(roost, count=4) as talk:
            assert "1 serves" in ok(roost, "update", "apply", "talk", "--wait")
            before = len(talk.replies)
            await wait_for(lambda: _true(len(talk.since(before)) >= 4), 30, "all ask on")
        async with roost.bus() as bus:
            assert faults(talk, await roost.turns(bus), ("0", "1")) == []
        assert {reply.release for reply in talk.since(before)} == {"1"}

        # by hand: nothing is noticed before it is said
        roost.put("mine", "talk")
        brittle.release(roost.slot() / "releases" / "mine", "~hand")
        assert (await answer(roost, client))[0] == "good~1 evening~1"
        ok(roost, "models", "reload", "talk")
        assert (await answer(roost, client))[0] == "good~hand evening~hand"

        async def pinned() -> bool:
            return roost.record().pinned == "mine"

        await wait_for(pinned, 30, "the updater leaves alone what was put there by hand")
        brittle.release(roost.slot() / "releases" / "mine", "~again")
        assert (await answer(roost, client))[0] == "good~hand evening~hand"
        ok(roost, "models", "reload", "talk")
        assert (await answer(roost, client))[0] == "good~again evening~again"
        await client.close()
    except BaseException:
        print(roost.logs())
        raise
    finally:
        await asyncio.to_thread(roost.stop)


async def _true(value: object) -> object:
    return value
