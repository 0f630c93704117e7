"""`roost release` from the command line: what it prints, what it ends with, and what a person in a terminal sees."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import resource
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bus.contract import Message
from ops.cli import roost as command
from ops.commands import Place
from schemas.errors import ConfigError, Rejected, RoostError
from tests.conftest import ROOT
from tests.running import RunningRoost
from tests.updater.publish.clients import Client, names
from tests.updater.publish.test_create import tiny_gguf
from tests.updater.publishing import Publisher, publisher
from updater.publish.commands import COMMANDS
from updater.publish.goldens import START, read_goldens
from updater.publish.private import read_private

WORDS = "several words are good"


@pytest.fixture
def house(tmp_path: Path) -> Publisher:
    return publisher(tmp_path / "house")


def run(*arguments: object, environment: dict[str, str] | None = None) -> tuple[Any, str, str]:
    """What a command returns, and prints on both outputs; raises what it raises."""
    done = CliRunner().invoke(
        command, ["release", *map(str, arguments)], standalone_mode=False, env=environment, catch_exceptions=False
    )
    return done.return_value, done.stdout, done.stderr


def at(house: Publisher) -> tuple[object, ...]:
    return ("--repository", house.repository, "--keys", house.keys.folder)


def roost_release(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops.cli", "release", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip


def in_terminal(
    arguments: list[object], typed: str, environment: dict[str, str] | None = None, group: str = "release"
) -> tuple[int, str]:
    """Run `roost GROUP ARGUMENTS` in a terminal of its own, type, and return the exit code and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(
            sys.executable, [sys.executable, "-m", "ops.cli", group, *map(str, arguments)],
            {**os.environ, "TERM": "xterm", **(environment or {})},
        )  # fmt: skip
    shown, deadline, waiting = "", time.monotonic() + 60, [line + "\n" for line in typed.splitlines()]
    while time.monotonic() < deadline:
        if waiting and shown.count("assphrase") + shown.count("epeat") > len(typed.splitlines()) - len(waiting):
            os.write(terminal, waiting.pop(0).encode())
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                data = os.read(terminal, 4096)
            except OSError:
                break
            if not data:
                break
            shown += data.decode()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    return code, shown


def test_every_command_explains_itself_with_examples() -> None:
    for name in COMMANDS:
        _, text, _ = run(name, "--help")
        assert "Examples:\n" in text, name
        assert f"roost release {name}" in text, name
    keys = command.get_command(click.Context(command), "release").get_command(click.Context(command), "keys")  # type: ignore[union-attr]
    for name in keys.commands:  # type: ignore[union-attr]
        assert f"roost release keys {name}" in run("keys", name, "--help")[1]


def test_keys_are_made_and_it_is_said_what_to_do_with_them(tmp_path: Path) -> None:
    (tmp_path / "words").write_text(f"{WORDS}\n")
    keys = tmp_path / "keys"
    _, text, _ = run("keys", "create", "--to", keys, "--root-keys", 1, "--threshold", 1, "--passphrase-file",
                     tmp_path / "words")  # fmt: skip
    assert f"take offline      {keys / 'offline'}" in text
    assert f"give to others    {keys / 'root.json'}" in text
    (path,) = (keys / "offline").iterdir()
    assert read_private(path, lambda _: WORDS.encode())
    shown = json.loads(run("keys", "show", "--keys", keys, "--json")[1])
    assert [(row["role"], row["protected"]) for row in shown["counting"]] == [
        ("root", True), ("targets", False), ("snapshot", False), ("timestamp", False),
    ]  # fmt: skip
    path.unlink()
    assert "not here" in run("keys", "show", "--keys", keys)[1]


def test_root_keys_are_never_made_without_a_good_passphrase(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need a passphrase"):
        run("keys", "create", "--to", tmp_path / "keys")
    with pytest.raises(ConfigError, match="12 characters or more"):
        run("keys", "create", "--to", tmp_path / "keys", environment={"ROOST_RELEASE_PASSPHRASE": "short"})
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="first line is empty"):
        run("keys", "create", "--to", tmp_path / "keys", "--passphrase-file", tmp_path / "empty")
    assert not (tmp_path / "keys").exists()


def test_a_person_types_the_passphrase_twice_and_a_wrong_one_ends_with_a_sentence(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    code, shown = in_terminal(
        ["keys", "create", "--to", keys, "--root-keys", 1, "--threshold", 1], f"{WORDS}\n{WORDS}\n"
    )
    assert code == 0, shown
    assert WORDS not in shown
    code, shown = in_terminal(["keys", "renew", "--keys", keys], "not this one at all\n")
    assert code == 78
    assert re.search(r"roost: .*root-\w+\.pem cannot be opened: the passphrase is wrong", shown)
    assert "Traceback" not in shown


def test_online_keys_may_have_a_passphrase_too(house: Publisher, tmp_path: Path) -> None:
    for name in ("root", "online"):
        (tmp_path / name).write_text(f"words for {name} keys\n")
    keys = tmp_path / "keys"
    run("keys", "create", "--to", keys, "--root-keys", 1, "--threshold", 1, "--passphrase-file", tmp_path / "root",
        "--online-passphrase-file", tmp_path / "online")  # fmt: skip
    path = tiny_gguf(tmp_path / "m.gguf")
    making = ("create", "small", "1", path, "--repository", tmp_path / "site", "--keys", keys)
    with pytest.raises(ConfigError, match="has a passphrase"):
        run(*making)
    run(*making, "--passphrase-file", tmp_path / "online")
    with pytest.raises(ConfigError, match="--online-passphrase-file for the new ones"):
        run("keys", "rotate", "timestamp", "--keys", keys, "--passphrase-file", tmp_path / "root")


def test_a_release_is_made_listed_checked_and_withdrawn(house: Publisher, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf", license="mit")
    (tmp_path / "goldens.yaml").write_text(START)
    (tmp_path / "changes.md").write_text("Better.\n")
    made = json.loads(
        run("create", "small", "1", path, *at(house), "--goldens", tmp_path / "goldens.yaml",
            "--changelog", f"@{tmp_path / 'changes.md'}", "--json")[1]
    )  # fmt: skip
    assert (made["name"], made["version"], made["sequence"]) == ("small", "1", 1)
    assert (made["licence"], made["changelog"], made["goldens"], made["notices"]) == ("mit", "Better.", 3, [])
    listed = json.loads(run("list", "--repository", house.repository, "--json")[1])
    assert [row["version"] for row in listed["releases"]] == ["1"]
    assert "small  1" in run("list", "--repository", house.repository)[1]
    code, text, _ = run("check", house.repository, "--root", house.root)
    assert (code, "is sound: 1 releases" in text) == (0, True)
    gone = json.loads(run("remove", "small", "1", *at(house), "--json")[1])
    assert gone["freed"] >= path.stat().st_size
    assert "no releases" in run("list", "--repository", house.repository)[1]


def test_what_a_release_lacks_is_said(house: Publisher, tmp_path: Path) -> None:
    _, text, warnings = run("create", "small", "1", tiny_gguf(tmp_path / "m.gguf"), *at(house))
    assert text.startswith("published small 1")
    assert "warning: no golden prompts" in warnings
    assert "see: roost release goldens" in warnings
    assert "warning: the files name no licence" in warnings


def test_a_root_that_ends_soon_is_spoken_of(house: Publisher, tmp_path: Path) -> None:
    run("create", "small", "1", tiny_gguf(tmp_path / "m.gguf"), *at(house))
    assert run("refresh", *at(house))[2] == ""
    run("keys", "renew", "--keys", house.keys.folder, "--days", 40)
    assert "warning: the root expires at" in run("refresh", *at(house))[2]


def test_a_damaged_repository_ends_the_check_with_1(house: Publisher, tmp_path: Path) -> None:
    run("create", "small", "1", tiny_gguf(tmp_path / "m.gguf"), *at(house))
    next(path for path in (house.repository / "chunks").rglob("*") if path.is_file()).write_bytes(b"")
    code, _, errors = run("check", house.repository)
    assert code == 1
    assert "was altered" in errors
    told = json.loads(run("check", house.repository, "--json")[1])
    assert (told["ok"], len(told["problems"])) == (False, 1)


def test_errors_are_sentences_and_have_exit_codes(house: Publisher, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf")
    run("create", "small", "1", path, *at(house))
    again = roost_release("create", "small", "1", path, *at(house))
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "a version never changes" in again.stderr
    nowhere = roost_release("list", "--repository", tmp_path / "nowhere")
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (78, 1)
    assert "is no repository" in nowhere.stderr


def test_a_disk_that_takes_no_more_is_said_and_the_old_state_stays(house: Publisher, tmp_path: Path) -> None:
    run("create", "small", "1", tiny_gguf(tmp_path / "m.gguf"), *at(house))
    big = tiny_gguf(tmp_path / "big.gguf")
    with big.open("ab") as file:
        file.write(os.urandom(2_000_000))
    full = roost_release(
        "create", "small", "2", big, *at(house),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )  # fmt: skip
    assert (full.returncode, full.stderr.count("\n")) == (1, 1), full.stderr
    assert str(house.repository) in full.stderr
    assert run("check", house.repository)[0] == 0
    assert names(Client(house.repository, house.root.read_bytes(), tmp_path / "state").releases()) == ["small 1"]
    run("create", "small", "2", big, *at(house))


def test_a_terminal_shows_progress(house: Publisher, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf")
    with path.open("ab") as file:
        file.write(os.urandom(3_000_000))
    code, shown = in_terminal(["create", "small", "1", path, *at(house)], "")
    assert code == 0, shown
    assert "100%" in shown
    assert "%" not in run("create", "small", "2", path, *at(house))[2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- prompt: hi\n  expects: {}", "prompt 1: expects is unknown"),
        ("- prompt: hi\n  expect: {contain: [x]}", "prompt 1: expect: contain is unknown"),
        ("- prompt: hi\n- prompt: '  '", "prompt 2: the prompt is empty"),
        ("- prompt: hi\n  max_tokens: 0", r"max_tokens"),
        ("- system: hi", "prompt"),
        ("- just text", "names and values"),
        ("prompt: hi", "a list of 1 to 64"),
        ("[]", "a list of 1 to 64"),
        ("- [", "no YAML"),
    ],
)
def test_golden_prompts_are_read_strictly(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_goldens(tmp_path / "g.yaml")


def test_golden_prompts_may_be_json(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text('[{"prompt": "hi", "expect": {"contains": ["x"]}}]')
    assert read_goldens(tmp_path / "g.json")[0].expect.contains == ("x",)


def test_a_push_needs_what_it_names(house: Publisher, tmp_path: Path) -> None:
    house.release("small", "1", {"a.txt": b"x"})
    nothing = {"ROOST_CONFIG": str(tmp_path / "no.yaml"), "ROOST_DATA": str(tmp_path / "no")}
    with pytest.raises(RoostError):
        run("push", "bus", "--repository", house.repository, environment=nothing)
    sent = json.loads(
        run("push", tmp_path / "site", "--repository", house.repository, "--json", environment=nothing)[1]
    )
    assert (sent["told"], sent["newest"]) == (False, {"small": "1"})
    stranger = publisher(tmp_path / "stranger")
    stranger.release("small", "1", {"a.txt": b"y"})
    with pytest.raises(Rejected):
        run("push", tmp_path / "site", "--repository", stranger.repository, environment=nothing)


async def test_the_running_roost_gets_it_into_its_object_store_and_is_told(
    roost: RunningRoost, house: Publisher
) -> None:
    house.release("small", "1", {"a.txt": b"x"})
    house.release("small", "2", {"a.txt": b"y"})
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def hear(message: Message) -> None:
        await told.put(json.loads(message.data))

    async with Place(roost.config_file, roost.data).bus() as bus:
        await bus.subscribe("roost.event.release.published", hear)
        for to in ("bus", str(house.folder / "site")):
            arguments = ("release", "push", to, "--repository", str(house.repository), "--json")
            done = await asyncio.to_thread(roost.cli, *arguments)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["told"] is True
            event = await asyncio.wait_for(told.get(), 10)
            assert (event["name"], event["version"]) == ("small", "2")
        objects = bus.objects("RELEASES")
        for path in ["metadata/timestamp.json", *(path for path in await objects.list() if path.startswith("chunks/"))]:
            assert await objects.get(path) == (house.repository / path).read_bytes()


def test_golden_prompts_are_tried_on_a_running_model(roost: RunningRoost, tmp_path: Path) -> None:
    path = tmp_path / "goldens.yaml"
    path.write_text("- prompt: the words of the text\n  expect: {contains: [words]}\n")
    good = roost.cli("release", "goldens", str(path), "--ask", "echo")
    assert (good.returncode, "good" in good.stdout) == (0, True), good.stderr
    path.write_text("- prompt: the capital of France\n  expect: {contains: [Paris]}\n")
    bad = roost.cli("release", "goldens", str(path), "--ask", "echo", "--json")
    assert bad.returncode == 1
    assert "lacks 'Paris'" in json.loads(bad.stdout)[0]["wrong"]
    nobody = roost.cli("release", "goldens", str(path), "--ask", "nobody", "--json")
    assert "no answer, there is no model 'nobody'" in json.loads(nobody.stdout)[0]["wrong"]
