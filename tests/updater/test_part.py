"""The updater of a real Roost: from a repository in a folder to answers of the new version, by its commands."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.release import Expected, Golden
from tests.running import RunningRoost, running, until
from tests.updater.publishing import Publisher, publisher

GOOD = Golden(prompt="hello", expect=Expected(contains=("hello",)))
ROLLOUT = {"watch_s": 0.5, "answers_min": 1}


def release(house: Publisher, version: str, *, golden: Golden = GOOD) -> None:
    house.release("talk", version, {"echo.json": json.dumps({"mark": f"-{version}"}).encode()}, goldens=(golden,))


def config_of(folder: Path, house: Publisher, **rollout: Any) -> dict[str, Any]:
    slot = folder / "models" / "talk"
    (slot / "releases" / "mine").mkdir(parents=True)
    (slot / "releases" / "mine" / "echo.json").write_text('{"mark": "-mine"}')
    (slot / "current").symlink_to("releases/mine")
    return {
        "models": [{"name": "talk", "type": "echo", "path": str(slot / "current"), "rollout": {**ROLLOUT, **rollout}}],
        "updates": {"source": str(house.repository), "root": str(house.root), "check_every_s": 3600.0},
    }


def say(roost: RunningRoost) -> str:
    done = roost.cli("chat", "hello")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def update(roost: RunningRoost, *arguments: str, code: int = 0) -> str:
    done = roost.cli("update", *arguments, timeout_s=60.0)
    assert done.returncode == code, done.stdout + done.stderr + roost.logs()
    return done.stdout + done.stderr


def told(roost: RunningRoost, *arguments: str, code: int = 0) -> Any:
    return json.loads(update(roost, *arguments, "--json", code=code))


def test_the_life_of_versions_under_the_commands(tmp_path: Path) -> None:
    house = publisher(tmp_path / "publisher")
    release(house, "1")
    with running(tmp_path / "roost", config_of(tmp_path, house)) as roost:
        assert "1 serves" in update(roost, "check", "talk", "--wait")
        assert say(roost) == "hello-1"

        release(house, "2", golden=Golden(prompt="hello", expect=Expected(contains=("bonjour",))))
        assert "golden prompt 'hello': lacks 'bonjour'" in " ".join(update(roost, "check", "--wait", code=1).split())
        assert say(roost) == "hello-1"
        assert "failed" in update(roost, "status")

        release(house, "3")
        assert told(roost, "check", "--wait")["rows"][0]["current"] == "3"
        assert say(roost) == "hello-3"
        seconds = told(roost, "history", "talk")["history"][-2]["seconds"]
        assert seconds.keys() >= {"fetch", "verify", "trial", "load", "golden", "flip", "switched"}

        house.repository.rename(tmp_path / "away")  # the way back needs no source
        assert "1 serves" in update(roost, "rollback", "talk", "--reason", "too loud")
        assert say(roost) == "hello-1"
        assert "cannot be asked" in update(roost, "check", code=1)
        (tmp_path / "away").rename(house.repository)

        history = told(roost, "history", "talk")
        assert history["blocked"].keys() == {"2", "3"}
        assert [c["what"] for c in history["history"] if c["what"] in ("swapped", "rolled_back", "refused")] == [
            "swapped", "refused", "swapped", "rolled_back",
        ]  # fmt: skip
        update(roost, "unblock", "talk", "3")
        assert "3 serves" in update(roost, "check", "--wait")
        assert "1 serves" in update(roost, "pin", "talk", "1", "--wait")
        assert say(roost) == "hello-1"
        update(roost, "unpin", "talk")
        assert "neither" in update(roost, "pin", "talk", "9", code=1)
        assert "no slots" in update(roost, "history", "nobody", code=1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the processor is not shared by sessions")
def test_the_updater_comes_last_for_the_processor(tmp_path: Path) -> None:
    """A nice value counts only among the processes of one session (Linux, sched_autogroup)."""
    with running(tmp_path / "roost", config_of(tmp_path, publisher(tmp_path / "publisher"))) as roost:
        parts = {part["name"]: part["pid"] for part in json.loads(roost.cli("status", "--json").stdout)["parts"]}
        nice = {name: os.getpriority(os.PRIO_PROCESS, pid) for name, pid in parts.items()}
        assert nice["updater"] > nice["worker"] == nice["connectors"]
        assert len({os.getsid(pid) for pid in parts.values()}) == 1


def test_a_killed_updater_goes_on_where_it_was_and_a_change_of_the_configuration_is_taken_up(tmp_path: Path) -> None:
    house = publisher(tmp_path / "publisher")
    release(house, "1")
    with running(tmp_path / "roost", config_of(tmp_path, house, auto=False)) as roost:
        assert "apply" in update(roost, "check", "--wait")
        assert say(roost) == "hello-mine"
        roost.wait_back("updater", roost.kill("updater"))
        [row] = told(roost, "status")["rows"]
        assert (row["phase"], row["version"]) == ("staged", "1")
        roost.config["models"][0]["rollout"]["auto"] = True
        roost.config_file.write_text(json.dumps(roost.config))
        until(lambda: say(roost) == "hello-1", 20, "the change is taken up")
        assert update(roost, "apply", "talk", code=1)


def test_without_an_updater_the_command_says_what_to_configure(roost: RunningRoost) -> None:
    done = roost.cli("update", "status")
    assert done.returncode == 78
    assert "has no `updates:`" in done.stderr
