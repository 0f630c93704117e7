"""The command `roost`, against a whole Roost with the echo backend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ops.cli import COMMANDS
from tests.ops.conftest import ECHO, Running, run_cli, until

GROUPS = {
    "dead": ["list", "show", "requeue", "purge"],
    "keys": ["create", "list", "revoke"],
    "turns": ["export"],
    "events": ["tail"],
}


def roost(running: Running, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return run_cli(running.config, running.data, *arguments, stdin=stdin)


def output(running: Running, *arguments: str) -> Any:
    done = roost(running, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str, tmp_path: Path) -> None:
    done = run_cli(tmp_path / "config.yaml", tmp_path, command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Examples:" in done.stdout
    for inner in GROUPS.get(command, ()):
        assert inner in done.stdout
        assert run_cli(tmp_path / "config.yaml", tmp_path, command, inner, "--help").returncode == 0


def test_wrong_usage_exits_2(tmp_path: Path) -> None:
    assert run_cli(tmp_path / "config.yaml", tmp_path, "dance").returncode == 2
    assert run_cli(tmp_path / "config.yaml", tmp_path, "dead", "requeue").returncode == 2


def test_an_unknown_part_is_refused_with_the_names_of_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(ECHO)
    done = run_cli(tmp_path / "config.yaml", tmp_path, "run", "dancer")
    assert done.returncode == 78
    assert "installed are: connectors, ops, updater, worker" in done.stderr


@pytest.mark.parametrize("command", [["keys", "list"], ["dead", "list"], ["chat", "hi"], ["turns", "export"]])
def test_without_a_running_roost_a_command_says_how_to_start_it(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "config.yaml").write_text(ECHO)
    done = run_cli(tmp_path / "config.yaml", tmp_path / "data", *command)
    assert done.returncode == 78
    assert done.stderr.startswith("roost: Roost is not running with data folder")
    assert "roost up" in done.stderr


def test_status_has_the_shape_that_scripts_rely_on(roost_up: Running) -> None:
    found = output(roost_up, "status", "--json")
    assert found["ready"] is True
    assert found["nats"].startswith("nats://127.0.0.1:")
    assert Path(found["client_nkey"]).stat().st_mode & 0o777 == 0o600
    assert "http" in found
    for part in found["parts"]:
        assert part["pid"] > 0
        assert part["state"] == "ready"
        assert part["rss_bytes"] > 1_000_000
    assert [part["name"] for part in found["parts"]] == ["nats", "valkey", "connectors", "ops", "worker"]
    models = {model["name"]: model for model in found["models"]}
    assert (models["talk"]["type"], models["talk"]["state"]) == ("echo", "ready")
    assert models["talk"]["version"]
    for name in ("INBOX", "OUTBOX", "TURNS", "EVENTS", "AUDIT", "DEAD"):
        assert set(found["streams"][name]) >= {"messages", "pending"}
    assert found["updates"] == []
    assert found["problem"] == ""


def test_status_for_a_person_names_addresses_and_credentials(roost_up: Running) -> None:
    told = roost(roost_up, "status").stdout
    for text in ("ready:        yes", "client.nk", "connectors", "talk", "INBOX", "web-access-code"):
        assert text in told


def test_status_answers_quickly_and_exits_1_when_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(ECHO)
    done = run_cli(tmp_path / "config.yaml", tmp_path / "data", "status", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["ready"] is False
    assert found["models"] == [{**found["models"][0], "name": "talk", "state": "absent"}]
    assert "not running" in found["problem"]


def test_status_answers_within_seconds_when_the_bus_hangs(roost_up: Running) -> None:
    pid = roost_up.part("nats")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = roost(roost_up, "status", "--json")
        took = time.monotonic() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "the bus does not answer" in json.loads(done.stdout)["problem"]
    assert took < 6  # 2 s, and the start of Python on a busy machine
    until(lambda: roost(roost_up, "chat", "back again").returncode == 0, "the bus is back")


def test_models_are_listed(roost_up: Running) -> None:
    assert [model["name"] for model in output(roost_up, "models", "--json")] == ["talk", "slow"]
    assert "talk" in roost(roost_up, "models").stdout


def test_one_question_is_answered_on_standard_output_alone(roost_up: Running) -> None:
    done = roost(roost_up, "chat", "the owl sleeps")
    assert (done.returncode, done.stdout) == (0, "the owl sleeps\n"), done.stderr
    assert roost(roost_up, "chat", stdin="from a pipe").stdout == "from a pipe\n"


def test_the_answer_as_json_has_model_version_and_usage(roost_up: Running) -> None:
    answer = output(roost_up, "chat", "--json", "--model", "slow", "one two")
    assert (answer["text"], answer["model"], answer["finish"]) == ("one two", "slow", "stop")
    assert answer["version"]
    assert answer["usage"]["completion_tokens"] == 2


def test_an_unknown_model_is_refused_in_one_sentence(roost_up: Running) -> None:
    done = roost(roost_up, "chat", "--model", "nobody", "hello")
    assert done.returncode == 1
    assert done.stderr.startswith("roost: ")
    assert done.stderr.count("\n") == 1
    assert "nobody" in done.stderr


def test_ctrl_c_stops_a_running_answer(roost_up: Running) -> None:
    words = " ".join(str(number) for number in range(200))
    command = [sys.executable, "-m", "ops.cli", "--config", str(roost_up.config), "--data", str(roost_up.data)]
    with subprocess.Popen(
        [*command, "chat", "--model", "slow", words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == "0 "
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "(stopped)" in told
    assert "199" not in rest


def test_keys_are_made_shown_without_their_secret_and_revoked(roost_up: Running) -> None:
    made = roost(roost_up, "keys", "create", "laptop")
    key = made.stdout.removesuffix("\n")
    assert key.startswith("rk-")
    assert "\n" not in key
    assert [row["name"] for row in output(roost_up, "keys", "list", "--json")] == ["laptop"]
    assert key.rpartition("-")[2] not in roost(roost_up, "keys", "list", "--json").stdout
    again = roost(roost_up, "keys", "create", "laptop")
    assert again.returncode == 1
    assert "already" in again.stderr
    assert "laptop" in roost(roost_up, "keys", "list").stdout
    assert roost(roost_up, "keys", "revoke", "laptop").returncode == 0
    assert roost(roost_up, "keys", "revoke", "laptop").returncode == 1
    assert "no keys yet" in roost(roost_up, "keys", "list").stdout


def test_finished_turns_are_exported_one_a_line(roost_up: Running) -> None:
    roost(roost_up, "chat", "remember the acorn")
    lines = roost(roost_up, "turns", "export", "--since", "1h", "--format", "jsonl").stdout.splitlines()
    assert any(json.loads(line)["inbound"].get("text") == "remember the acorn" for line in lines)
    assert roost(roost_up, "turns", "export", "--since", str(time.time() + 100)).stdout == ""
    assert roost(roost_up, "turns", "export", "--since", "yesterday").returncode == 2


def test_events_are_printed_as_json_lines(roost_up: Running) -> None:
    done = roost(roost_up, "events", "tail", "--no-follow", "--json")
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(event["subject"].startswith("roost.event.model.talk") for event in events)


def test_without_dead_letters_there_is_nothing_to_requeue(roost_up: Running) -> None:
    assert output(roost_up, "dead", "list", "--json") == []
    assert roost(roost_up, "dead", "list").stdout == "no dead letters\n"
    for command in ("show", "requeue"):
        done = roost(roost_up, "dead", command, "12")
        assert done.returncode == 1
        assert "there is no dead letter 12" in done.stderr


def test_without_a_page_there_is_no_access_code(roost_up: Running) -> None:
    done = roost(roost_up, "code")
    assert done.returncode == 78
    assert "there is no access code" in done.stderr
