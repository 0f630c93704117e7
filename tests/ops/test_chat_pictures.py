"""`roost chat "/image …"`: progress on a terminal, pictures in files that nothing writes over."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus.client import Bus
from ops.ask import Answer, Question
from ops.commands import Place
from ops.pictures import saved
from schemas.errors import ConfigError
from tests.running import ECHO, RunningRoost, running, until
from tests.tools import painter

LARGE = {"name": "large", "type": "painter", "ballast_bytes": 2_500_000, "routes": {"commands": ["/large"]}}
SLOW = {"name": "slow", "type": "painter", "delay_step_ms": 60, "steps": 6, "routes": {"commands": ["/slow"]}}


@pytest.fixture(scope="module")
def paints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRoost]:
    config = {"models": [ECHO, painter.MODEL, SLOW, LARGE]}
    with running(tmp_path_factory.mktemp("paints"), config, painter.environment()) as started:
        until(lambda: started.cli("chat", "--json", "/image a dot").returncode == 0, 20, "the router knows the painter")
        yield started


def test_pictures_are_saved_in_the_current_folder_and_never_written_over(paints: RunningRoost, tmp_path: Path) -> None:
    command = ("chat", "--conversation", "boats", "/image a red boat")
    first = paints.cli(*command, cwd=tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    path = tmp_path / first.stdout.strip()
    before = path.read_bytes()
    assert painter.seen(before)[:2] == (64, 64)
    path.write_bytes(b"mine")
    again = paints.cli("chat", "/image a red boat", "--out", str(tmp_path / "new" / "folder"))
    saved_to = Path(again.stdout.strip())
    assert saved_to.parent == tmp_path / "new" / "folder"
    painter.seen(saved_to.read_bytes())
    assert path.read_bytes() == b"mine"


def test_a_name_that_is_taken_gets_a_number_and_one_from_outside_leaves_the_folder_alone(tmp_path: Path) -> None:
    assert [saved(b"x", "m-7.png", tmp_path).name for _ in range(3)] == ["m-7.png", "m-7-2.png", "m-7-3.png"]
    assert saved(b"x", "../../etc/passwd", tmp_path).parent == tmp_path
    assert saved(b"x", "..", tmp_path) == tmp_path / "picture"
    with pytest.raises(ConfigError, match="--out"):
        saved(b"x", "a.png", tmp_path / "missing")


def test_the_answer_as_json_tells_how_the_picture_was_made_and_saves_nothing(
    paints: RunningRoost, tmp_path: Path
) -> None:
    done = paints.cli("chat", "--json", "/image a red boat", cwd=tmp_path)
    (picture,) = json.loads(done.stdout)["attachments"]
    assert picture["drawn"]["prompt"] == "a red boat"
    assert list(tmp_path.iterdir()) == []
    done = paints.cli("chat", "--json", "--out", ".", "/image a red boat", cwd=tmp_path)
    assert json.loads(done.stdout)["attachments"]
    assert [path.name for path in tmp_path.iterdir()] == [done.stderr.strip()]


def test_a_picture_larger_than_a_message_of_the_bus_arrives_whole(paints: RunningRoost, tmp_path: Path) -> None:
    done = paints.cli("chat", "/large a boat", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.strip()).stat().st_size > 2_500_000


def test_a_terminal_sees_how_far_the_picture_is(paints: RunningRoost, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ops.cli", "chat", "/slow a boat"]
    with subprocess.Popen(
        command, env=paints.environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        told = _read(ours)
        out, _ = process.communicate(timeout=20)
    assert "drawing, step 2 of 6" in told
    assert told.endswith("\r\x1b[K")
    assert (tmp_path / out.strip()).exists()


def _read(terminal: int) -> str:
    told = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            data = b""
        if not data:
            os.close(terminal)
            return told.decode()
        told += data


@pytest.mark.parametrize(
    "command", [("chat", "/image"), ("chat", "/image " + "a" * 4_001), ("chat", "--out", "/dev/null/x", "hi")]
)
def test_what_cannot_be_done_is_one_sentence(paints: RunningRoost, command: tuple[str, ...]) -> None:
    done = paints.cli(*command)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith("roost: ")
    assert done.stderr.count("\n") == 1


def test_without_a_model_for_pictures_the_command_says_what_to_do(roost: RunningRoost) -> None:
    done = roost.cli("chat", "/image a boat")
    assert done.returncode == 1
    assert "config.yaml" in done.stderr


class Deaf:
    """A connection that hears nothing of what comes by itself, and of everything else all."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def subscribe(self, subject: str, heard: Any) -> Any:
        return await self._bus.subscribe(f"{subject}.elsewhere", heard)


async def test_an_answer_whose_stream_is_lost_is_asked_for_by_its_id(paints: RunningRoost) -> None:
    async with Place(paints.config_file, paints.data).bus() as bus:
        async with asyncio.timeout(30):
            (answer,) = [news async for news in Question(Deaf(bus), "/image a boat")]  # type: ignore[arg-type]
    assert isinstance(answer, Answer)
    assert answer.attachments[0].drawn is not None
