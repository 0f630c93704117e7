"""The supervisor, on real servers and a tiny part."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

from ops.state import SystemState
from ops.up import ready_line
from tests.ops.conftest import ECHO, Start, gone, until


def test_it_prints_one_ready_line_when_everything_is_ready(start: Start) -> None:
    running = start().ready()
    assert running.state()["ready"] is True
    assert [part["name"] for part in running.state()["parts"]] == ["nats", "valkey", "tiny"]
    running.stop()
    assert running.stdout == "Roost is ready: http://127.0.0.1:1\n"


def test_the_ready_line_gives_the_access_code_to_a_person_and_its_file_to_a_script(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "web-access-code").write_text("oak-owl-7\n")
    state = SystemState(pid=1, created=0, config="", started_at=0)
    assert ready_line(state, tmp_path, tty=True) == "Roost is ready (access code: oak-owl-7)"
    assert ready_line(state, tmp_path, tty=False).endswith("secrets/web-access-code)")
    assert "oak" not in ready_line(state, tmp_path, tty=False)


def test_each_killed_child_comes_back_and_the_servers_keep_their_ports(start: Start) -> None:
    running = start().ready()
    for name in ("tiny", "nats", "valkey"):
        before = running.part(name)
        os.kill(before["pid"], signal.SIGKILL)
        until(
            lambda name=name, old=before["pid"]: (
                running.part(name)["pid"] not in (0, old)  # type: ignore[misc]
                and running.part(name)["state"] == "ready"
            ),
            f"{name} is ready again",
        )
        assert running.part(name)["restarts"] == 1
        assert running.part(name)["facts"] == before["facts"]
    running.told("tiny: ended by signal 9")
    assert running.stdout.count("\n") == 1


def test_a_second_supervisor_on_the_same_data_is_refused(start: Start) -> None:
    first = start().ready()
    second = start()
    assert second.process.wait(20) == 78
    assert f"running already with data folder {first.data} (pid {first.process.pid})" in second.stderr
    assert first.state()["ready"] is True


def test_sigterm_stops_everything_and_the_next_start_finds_its_data_again(start: Start) -> None:
    first = start().ready()
    pids = [part["pid"] for part in first.state()["parts"]]
    secret = (first.data / "secrets" / "parts.nk").read_text()
    began = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - began < 10
    assert all(gone(pid) for pid in pids)
    assert not (first.data / "run" / "endpoints.json").exists()
    second = start().ready()
    assert (second.data / "secrets" / "parts.nk").read_text() == secret


def test_a_killed_supervisor_takes_its_children_along_and_the_next_one_starts(start: Start) -> None:
    first = start().ready()
    pids = [part["pid"] for part in first.state()["parts"]]
    first.process.kill()
    first.process.wait()
    until(lambda: all(gone(pid) for pid in pids), "the children have ended")
    start().ready()


def test_a_part_that_ignores_sigterm_and_a_dead_supervisor_is_ended_by_the_next_one(start: Start) -> None:
    first = start("stubborn").ready()
    stubborn = first.part("tiny")["pid"]
    first.process.kill()
    first.process.wait()
    second = start().ready()
    assert gone(stubborn)
    assert "ended what an earlier start left running: tiny" in second.stderr


def test_a_part_that_does_not_stop_is_killed_after_its_limit(start: Start) -> None:
    running = start("stubborn").ready()
    assert running.stop() == 0
    assert "tiny: did not end within 7 s and was killed" in running.stderr


def test_a_second_signal_ends_at_once(start: Start) -> None:
    running = start("stubborn").ready()
    running.process.send_signal(signal.SIGINT)
    running.told("press Ctrl-C again")
    began = time.monotonic()
    running.stop(signal.SIGINT)
    assert time.monotonic() - began < 4


def test_a_part_with_a_wrong_configuration_is_not_restarted_until_the_file_changes(start: Start) -> None:
    running = start("refuse")
    running.told("tiny has failed: models[0]: no such thing")
    assert running.part("tiny")["restarts"] == 0
    (running.data / "MODE").write_text("serve")
    running.config.write_text(ECHO + "language: zh\n")
    running.ready()
    running.told("language: en → zh")


def test_a_part_that_crashes_while_it_starts_is_tried_again_with_its_last_words_told(start: Start) -> None:
    running = start("crash")
    running.told("tiny: Traceback: something broke (see ")
    (running.data / "MODE").write_text("serve")
    running.ready()
    assert running.part("tiny")["restarts"] >= 1


def test_a_change_of_the_configuration_is_told_and_restarts_the_parts_it_concerns(start: Start) -> None:
    running = start().ready()
    before = running.part("tiny")["pid"]
    nats = running.part("nats")["pid"]
    running.config.write_text(ECHO.replace("type: echo", "type: echo\n    slots: 8"))
    running.told("models[0].slots: not set → 8")
    until(lambda: running.part("tiny").get("pid") not in (0, before) and running.state()["ready"], "a new part")
    assert running.part("nats")["pid"] == nats


def test_an_invalid_configuration_is_told_and_ignored(start: Start) -> None:
    running = start().ready()
    before = running.part("tiny")["pid"]
    running.config.write_text(ECHO + "limits_: 3\n")
    running.told("the changed configuration is ignored:")
    running.told("limits_: unknown field")
    running.config.write_text(ECHO.replace("type: echo", "type: echo\n    no_such_setting: 8"))
    running.told("no_such_setting: unknown field")
    os.kill(before, signal.SIGKILL)  # what starts meanwhile runs with the accepted configuration
    until(lambda: running.part("tiny")["pid"] not in (0, before) and running.state()["ready"], "a new part")


def test_a_change_of_the_servers_waits_for_the_next_start(start: Start) -> None:
    running = start().ready()
    running.config.write_text(ECHO.replace("bus: {listen", "bus: {sync: 2s, listen"))
    running.told("bus.sync: always → 2s")
    running.told("take effect when Roost is restarted")
    assert running.part("tiny")["restarts"] == 0


def test_what_a_part_prints_is_in_its_log_and_its_warnings_on_the_terminal(start: Start) -> None:
    running = start().ready()
    running.told("tiny: warning: tiny: a warning for the operator")
    assert "a warning for the operator" in (running.data / "logs" / "tiny.log").read_text()


def test_the_data_folder_is_closed_to_others(start: Start) -> None:
    running = start().ready()
    for path in [running.data, *running.data.rglob("*")]:
        if path.name == "MODE":
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"


def test_a_taken_port_is_told_with_its_place_and_remedy(start: Start, tmp_path: Path) -> None:
    first = start().ready()
    address = first.part("nats")["facts"]["address"]
    first.config.write_text(ECHO.replace('bus: {listen: "127.0.0.1:0"}', f'bus: {{listen: "{address}"}}'))
    second = start(folder=tmp_path / "other")
    assert second.process.wait(20) == 78
    assert f"bus.listen: port {address.rpartition(':')[2]} on 127.0.0.1 is taken" in second.stderr
    assert "choose another port" in second.stderr
