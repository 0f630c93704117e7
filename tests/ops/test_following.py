"""What `roost update … --wait` shows while a version comes: a bar in a terminal, a line for each phase elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from ops.commands.following import Progress
from schemas.update import UpdateStatus
from tests.running import wait_for
from tests.updater.cutting import noise, weights
from tests.updater.publish.test_commands import in_terminal
from tests.updater.publishing import publisher
from tests.updates.following import TALK, Following, following, golden

BAR = re.compile(r"talk: fetching 1 \[(#*)(\.*)\] +(\d+) % of 3\.0 MB")
MB = 1_000_000


def row(phase: Any, **facts: Any) -> UpdateStatus:
    return UpdateStatus(name="talk", site="here", phase=phase, at=1.0, version="2", **facts)


def shown(capsys: pytest.CaptureFixture[str], *rows: UpdateStatus, quiet: bool = False) -> str:
    """What each of these in turn makes it print."""
    progress = Progress(quiet=quiet)
    for status in rows:
        progress.show([status])
    progress.end()
    out, err = capsys.readouterr()
    assert out == "", "standard output is for the result"
    return err


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (
            row("fetching", done=3 * MB, size=12 * MB, per_s=2.0 * MB),
            "talk: fetching 2 [######..................]  25 % of 12.0 MB, 2.0 MB/s",
        ),
        (row("fetching", size=12 * MB), "talk: fetching 2 [........................]   0 % of 12.0 MB"),
        (row("fetching", done=13, size=12), "talk: fetching 2 [########################] 100 % of 12 B"),
        (row("fetching", reason="no route"), "talk: fetching 2 (no route)"),
        (row("loading"), "talk: loading 2"),
        (row("rolling_back", reason="slower"), "talk: rolling back 2 (slower)"),
    ],
)
def test_the_line_says_phase_version_share_rate_and_reason(
    capsys: pytest.CaptureFixture[str], status: UpdateStatus, line: str
) -> None:
    assert shown(capsys, status) == f"{line}\n"


def test_outside_a_terminal_there_is_a_line_for_each_change_of_phase_alone(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [row("fetching", done=done, size=9) for done in range(9)]
    text = shown(capsys, *steps, row("loading"), row("loading"), row("watching", current="2"))
    assert [line.split()[1] for line in text.splitlines()] == ["fetching", "loading"]


def test_for_a_program_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, row("fetching", done=3, size=9), row("loading"), quiet=True) == ""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Following]:
    """Takes a few seconds for a release of three megabytes."""
    folder = tmp_path_factory.mktemp("progress")
    with following(folder / "here", publisher(folder / "house"), updates={"rate": "700 kB"}) as roost:
        yield roost


def publish(roost: Following, version: str) -> None:
    """Once the version before it is not watched any more: until then a newer one waits."""

    async def at_rest() -> bool:
        return roost.record().swap is None

    asyncio.run(wait_for(at_rest, 30, "nothing is under way"))
    files = {"echo.json": f'{{"mark": "~{version}"}}'.encode(), "w.safetensors": weights(noise(int(version), 3 * MB))}
    roost.house.release(TALK, version, files, goldens=(golden(version),))


@pytest.mark.timeout(120)
def test_a_terminal_shows_the_bar_growing_in_one_line_and_clears_it(slow: Following) -> None:
    publish(slow, "1")
    code, text = in_terminal(["check", "--wait"], "", slow.environment, group="update")
    assert code == 0, text
    bars = [BAR.search(line) for line in text.split("\r\x1b[K")]
    shares = [int(bar[3]) for bar in bars if bar]
    assert shares == sorted(shares)
    assert len({share for share in shares if 0 < share < 100}) >= 2, text
    assert all(len(bar[1] + bar[2]) == 24 for bar in bars if bar)
    assert text.rpartition("\r\x1b[K")[2].splitlines()[0].startswith("talk: 1 serves")
    assert text.count("\n") == 1, "nothing but the result stays"


@pytest.mark.timeout(120)
def test_a_pipe_gets_no_bar_that_grows_and_nothing_to_move_a_cursor(slow: Following) -> None:
    publish(slow, "2")
    done = slow.cli("update", "check", "--wait", timeout_s=60)
    assert done.returncode == 0, done.stderr
    assert not set("\r\x1b") & set(done.stdout + done.stderr)
    assert done.stdout.startswith("talk: 2 serves")
    assert done.stderr.count("talk: fetching 2") == 1, done.stderr
