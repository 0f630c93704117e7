"""The list of models changes while twenty clients ask: no process is restarted, no request fails or is lost."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.path.test_kills import free_port
from tests.running import RunningRoost, running, until, wait_for

GONE = {"model_removed", "unknown_model"}
PATIENCE_S = 30.0


def change(roost: RunningRoost, models: list[dict[str, Any]], **sections: Any) -> None:
    """Write the file as an editor does: whole, under another name first."""
    new = roost.config_file.with_suffix(".new")
    new.write_text(yaml.safe_dump({**roost.config, "models": models, **sections}))
    new.replace(roost.config_file)


def rows(roost: RunningRoost) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in roost.status()["models"]}


def shows(roost: RunningRoost, name: str, **facts: Any) -> dict[str, Any]:
    """Wait until the model's row has these values; the reason may have more around it."""

    def look() -> dict[str, Any] | None:
        row = rows(roost).get(name, {})
        right = all(value in row.get(k, "") if k == "reason" else row.get(k) == value for k, value in facts.items())
        return row if right and row else None

    try:
        found: dict[str, Any] = until(look, PATIENCE_S, f"{name} is {facts}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {rows(roost)}\n{roost.logs()}") from None
    return found


def parts(roost: RunningRoost) -> list[int]:
    return [roost.pid(name) for name in ("worker", "connectors")]


class Clients:
    """So many people who ask one question after the other."""

    def __init__(self, roost: RunningRoost, nc: Any, models: list[str], count: int) -> None:
        self.roost, self.nc = roost, nc
        self.told: dict[str, Counter[str]] = {model: Counter() for model in models}
        self.wrong: list[Any] = []
        self.stop = asyncio.Event()
        self._ids = itertools.count()
        self._models = list(itertools.islice(itertools.cycle(models), count))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for model in self._models:
                tasks.create_task(self._live(model))

    async def _live(self, model: str) -> None:
        while not self.stop.is_set():
            text = f"question {next(self._ids)} is answered"
            body = {"text": text, "model": model, "max_tokens": 8, "temperature": 0}
            answer = await self.roost.ask(self.nc, body, timeout_s=PATIENCE_S)
            code = answer.get("error", {}).get("code", "answered")
            self.told[model][code] += 1
            if code == "answered" and not model.startswith("llama") and answer["text"] != text:
                self.wrong.append((text, answer))
            if code != "answered":
                await asyncio.sleep(0.05)

    async def asked_again(self, model: str, times: int = 5) -> None:
        """Wait until some more have been answered."""
        goal = self.told[model]["answered"] + times

        async def enough() -> bool:
            return self.told[model]["answered"] >= goal

        await wait_for(enough, PATIENCE_S, f"{model} answers")


@pytest.mark.timeout(300)
async def test_ten_changes_under_twenty_clients_lose_nothing_and_restart_nothing(tmp_path: Path) -> None:
    def models(slots: int, *, guest: int | None) -> list[dict[str, Any]]:
        steady = {"name": "steady", "type": "echo", "slots": slots, "delay_ms": 20, "delay_token_ms": 2}
        visitor = {"name": "guest", "type": "echo", "slots": guest, "delay_ms": 20}
        return [steady, *([] if guest is None else [visitor])]

    config = {"models": models(2, guest=2), "connectors": [{"type": "nats"}]}
    with running(tmp_path, config) as roost:
        nc = await roost.client()
        clients = Clients(roost, nc, ["steady", "guest"], 20)
        before = parts(roost)
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(clients.run())
            await clients.asked_again("steady")
            for number in range(10):
                slots, guest = 3 + number, None if number % 3 == 1 else 2 + number
                change(roost, models(slots, guest=guest))
                await asyncio.to_thread(shows, roost, "steady", state="ready", slots=slots, reason="")
                if guest is None:
                    gone = clients.told["guest"].copy()
                    await wait_for(partial(_more_gone, clients, gone), PATIENCE_S, "the guest's clients are told")
                else:
                    await asyncio.to_thread(shows, roost, "guest", state="ready", slots=guest)
                    await clients.asked_again("guest")
                await clients.asked_again("steady")
            clients.stop.set()
            await asking
        assert parts(roost) == before
        assert clients.wrong == []
        assert set(clients.told["steady"]) == {"answered"}, clients.told
        assert set(clients.told["guest"]) <= {"answered", *GONE}, clients.told
        assert roost.status()["streams"]["INBOX"]["messages"] == 0
        await nc.close()


async def _more_gone(clients: Clients, before: Counter[str]) -> bool:
    return any(clients.told["guest"][code] > before[code] for code in GONE)


@pytest.mark.timeout(300)
async def test_a_real_model_takes_new_settings_up_while_it_answers(tmp_path: Path, starter_model: Path) -> None:
    def models(slots: int, context: int) -> list[dict[str, Any]]:
        own = {"slots": slots, "context": context, "max_tokens": 8}
        return [{"name": "llama", "type": "llama", "path": str(starter_model), **own}]

    with running(tmp_path, {"models": models(2, 512), "connectors": [{"type": "nats"}]}) as roost:
        nc = await roost.client()
        clients = Clients(roost, nc, ["llama"], 6)
        before = parts(roost)
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(clients.run())
            for slots, context in ((3, 512), (3, 1024), (4, 768)):
                await clients.asked_again("llama")
                change(roost, models(slots, context))
                await asyncio.to_thread(shows, roost, "llama", state="ready", slots=slots, context=context, reason="")
            await clients.asked_again("llama")
            clients.stop.set()
            await asking
        assert parts(roost) == before
        assert set(clients.told["llama"]) == {"answered"}, clients.told
        assert len(list((roost.data / "scratch" / "worker-0" / "llama").iterdir())) == 1
        await nc.close()


async def test_what_runs_when_a_model_is_removed_is_finished_and_what_waits_is_told(tmp_path: Path) -> None:
    slow = {"name": "slow", "type": "echo", "slots": 1, "delay_ms": 3_000}
    other = {"name": "other", "type": "echo"}
    with running(tmp_path, {"models": [other, slow], "connectors": [{"type": "nats"}]}) as roost:
        nc = await roost.client()
        asked = [asyncio.create_task(roost.ask(nc, {"text": f"n{i}", "model": "slow"})) for i in range(4)]
        await asyncio.to_thread(until, lambda: roost.status()["streams"]["INBOX"]["messages"] == 4, 10, "all wait")
        change(roost, [other])
        answers = await asyncio.gather(*asked)
        assert sum(a.get("text", "").startswith("n") for a in answers) >= 1
        refused = [a["error"] for a in answers if "error" in a]
        assert len(refused) >= 1
        assert {e["code"] for e in refused} == {"model_removed"}
        assert "the model slow has been removed from the configuration" in refused[0]["message"]
        assert "slow" not in rows(roost)
        letters = json.loads(roost.cli("dead", "list", "--json").stdout)
        assert len(letters) == len(refused)
        change(roost, [other, {**slow, "delay_ms": 0}])
        shows(roost, "slow", state="ready")
        assert roost.cli("dead", "requeue", "--all").returncode == 0
        until(lambda: roost.status()["streams"]["INBOX"]["messages"] == 0, 20, "they are answered after all")
        turns = [json.loads(t) for t in roost.cli("turns", "export", "--format", "jsonl").stdout.splitlines()]
        assert {t["text"] for t in turns if t.get("text")} == {"n0", "n1", "n2", "n3"}
        await nc.close()


async def test_broken_settings_leave_the_old_ones_serving_and_the_row_says_why(tmp_path: Path) -> None:
    talk = {"name": "talk", "type": "echo", "slots": 2}
    file = tmp_path / "later.bin"
    with running(tmp_path / "roost", {"models": [talk], "connectors": [{"type": "nats"}]}) as roost:
        nc = await roost.client()
        change(roost, [{**talk, "slots": 5, "path": str(file)}])
        row = shows(roost, "talk", state="ready", slots=2, reason="the changed settings are not in use")
        assert f"{file} does not exist" in row["reason"]
        assert (await roost.ask(nc, {"text": "still here"}))["text"] == "still here"
        assert "the changed settings are not in use" in roost.cli("status").stdout
        told = roost.cli("models", "reload", "talk")
        assert told.returncode == 1
        assert f"{file} does not exist" in told.stdout
        file.write_text('{"mark": ""}')
        shows(roost, "talk", state="ready", slots=5, reason="")
        change(roost, [{**talk, "settings_unheard_of": 1}])
        until(lambda: "is ignored" in (roost.folder / "up.log").read_text(), PATIENCE_S, "the mistake is told")
        assert (await roost.ask(nc, {"text": "and still"}))["text"] == "and still"
        await nc.close()


async def test_a_model_is_unloaded_and_reloaded_by_hand_and_asleep_until_it_is_asked_for(tmp_path: Path) -> None:
    models = [{"name": "talk", "type": "echo"}, {"name": "late", "type": "echo", "warm_up": False}]
    config = {"models": models, "connectors": [{"type": "nats"}], "worker": {"unload_after_s": 300}}
    with running(tmp_path, config) as roost:
        nc = await roost.client()
        assert rows(roost)["late"]["state"] == "asleep"
        assert (await roost.ask(nc, {"text": "good morning", "model": "late"}))["text"] == "good morning"
        shows(roost, "late", state="ready", tokens=2)
        assert "is unloaded" in roost.cli("models", "unload", "late").stdout
        assert rows(roost)["late"]["state"] == "asleep"
        assert "is loaded, version echo-1" in roost.cli("models", "reload", "late").stdout
        assert rows(roost)["late"]["state"] == "ready"
        unknown = roost.cli("models", "reload", "nobody")
        assert unknown.returncode == 78
        assert "there is no model 'nobody'; there are: late, talk" in unknown.stderr
        told = json.loads(roost.cli("models", "reload", "--json").stdout)
        assert {(row["model"], row.get("ok", True)) for row in told} == {("talk", True), ("late", True)}
        assert {row["name"] for row in json.loads(roost.cli("models", "list", "--json").stdout)} == {"talk", "late"}
        before = parts(roost)
        change(roost, models, worker={"unload_after_s": 0.5})
        shows(roost, "late", state="asleep")
        shows(roost, "talk", state="asleep")
        assert (await roost.ask(nc, {"text": "once more", "model": "late"}))["text"] == "once more"
        assert parts(roost) == before
        await nc.close()


@pytest.mark.timeout(300)
async def test_a_kill_during_a_change_loses_nothing_and_what_waits_for_a_removed_model_is_told(tmp_path: Path) -> None:
    steady = {"name": "steady", "type": "echo", "slots": 2, "delay_ms": 100}
    slow = {"name": "slow", "type": "echo", "slots": 1, "delay_ms": 3_000}
    config = {
        "models": [steady, slow],
        "connectors": [{"type": "nats"}],
        "bus": {"listen": f"127.0.0.1:{free_port()}"},
        "sessions": {"listen": f"127.0.0.1:{free_port()}"},
    }
    with running(tmp_path, config) as roost:
        nc = await roost.client(max_reconnect_attempts=-1, reconnect_time_wait=0)
        waiting = [asyncio.create_task(_insist(nc, f"slow-{i}", "slow")) for i in range(16)]

        def wait() -> bool:
            return bool(roost.status()["streams"]["INBOX"]["messages"] >= 6)

        await asyncio.to_thread(until, wait, PATIENCE_S, "some wait")
        asked = [asyncio.create_task(_insist(nc, f"steady-{i}", "steady")) for i in range(20)]
        change(roost, [{**steady, "slots": 4}])
        log = roost.folder / "up.log"
        await asyncio.to_thread(until, lambda: "worker takes the new" in log.read_text(), PATIENCE_S, "it is told")
        killed = roost.kill("worker")
        await asyncio.to_thread(roost.wait_back, "worker", killed)
        answers = await asyncio.gather(*asked)
        assert [a.get("text") for a in answers] == [f"steady-{i}" for i in range(20)]
        told = await asyncio.gather(*waiting)
        codes = Counter(a.get("error", {}).get("code", "answered") for a in told)
        assert set(codes) <= {"answered", "model_removed"}, codes
        assert codes["model_removed"] >= 1
        shows(roost, "steady", state="ready", slots=4)
        change(roost, [{**steady, "slots": 6}, slow])
        text = log.read_text().count("worker takes the new")
        await asyncio.to_thread(
            until, lambda: log.read_text().count("worker takes the new") > text, PATIENCE_S, "it is told again"
        )
        killed = roost.kill("connectors")
        await asyncio.to_thread(roost.wait_back, "connectors", killed)
        shows(roost, "steady", state="ready", slots=6)
        assert (await _insist(nc, "again", "slow"))["text"] == "again"
        await nc.close()


async def _insist(nc: Any, text: str, model: str) -> dict[str, Any]:
    """Ask under one id until there is an answer, as a client does whose connection is lost meanwhile."""
    body = json.dumps({"id": text, "text": text, "model": model}).encode()
    while True:
        try:
            message = await nc.request("roost.ask", body, timeout=20)
        except Exception:
            await asyncio.sleep(0.1)
            continue
        if message.data:
            answer: dict[str, Any] = json.loads(message.data)
            return answer
