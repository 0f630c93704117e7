"""The ops part as a process: without a bus, killed, without rights, and in a whole Roost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import nats
import psutil
import pytest

from bus import subjects
from tests.conftest import ROOT, missing
from tests.ops.trees import Tree, closed, container, laptop, server
from tests.running import RunningRoost, running, until, wait_for

ALONE = """
models: [{name: talk, type: echo}]
bus: {servers: ["nats://127.0.0.1:9"]}
sessions: {url: "redis://127.0.0.1:9/0"}
power: POWER
"""
SLOW = {"name": "slow", "type": "echo", "delay_ms": 1500}


class Alone:
    """`roost run ops` with a bus that is never there."""

    def __init__(self, folder: Path, tree: Tree, power: str = "{}", prefix: tuple[str, ...] = ()) -> None:
        self.folder, self.tree = folder, tree
        self.config = folder / "config.yaml"
        self.config.write_text(ALONE.replace("POWER", power))
        self.log = folder / "ops.log"
        self.command = [*prefix, sys.executable, "-P", "-m", "ops.cli", "run", "ops"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {
            **os.environ, "ROOST_CONFIG": str(self.config), "ROOST_DATA": str(self.folder / "data"),
            "ROOST_SYSFS_ROOT": str(self.tree.root), "PATH": "/nowhere", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, env=env, stdout=log, stderr=log)

    def told(self, text: str) -> None:
        until(lambda: text in self.log.read_text(), 20, f"{text!r} in {self.log.read_text()}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)


@contextlib.contextmanager
def alone(*args: Any, **more: Any) -> Iterator[Alone]:
    part = Alone(*args, **more)
    try:
        part.start()
        yield part
    finally:
        if part.process is not None and part.process.poll() is None:
            part.process.kill()
            part.process.wait()


def test_without_a_bus_the_machine_is_looked_after_and_put_back_at_the_end(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "sys")
    with alone(tmp_path, tree, "{idle_after_s: 1}") as part:
        until(lambda: tree.preferences() == {"power"}, 20, "idle lowers")
        part.told("no bus yet; the machine is looked after without")
        assert part.end() == 0
        assert (tree.governors(), tree.preferences()) == ({"powersave"}, {"balance_power"})
        assert part.log.read_text().count("no bus yet") == 1


def test_after_a_kill_the_next_start_puts_back_what_was_there_before(tmp_path: Path) -> None:
    tree = server(tmp_path / "sys")
    with alone(tmp_path, tree, "{profile: performance}") as part:
        until(lambda: tree.governors() == {"performance"}, 20, "the profile is set")
        assert part.end(signal.SIGKILL) == -signal.SIGKILL
        assert tree.governors() == {"performance"}, "a killed process puts nothing back"
    with alone(tmp_path, tree, "{profile: performance, cpu: false}") as part:
        until(lambda: tree.governors() == {"ondemand"}, 20, "the next start puts back, even one that sets nothing")
        part.told("put back 8 settings")
        assert part.end() == 0
    assert tree.governors() == {"ondemand"}


def test_a_second_start_after_a_kill_knows_the_first_values_and_not_its_own(tmp_path: Path) -> None:
    tree = server(tmp_path / "sys")
    for _ in range(2):
        with alone(tmp_path, tree, "{profile: performance}") as part:
            until(lambda: tree.governors() == {"performance"}, 20, "the profile is set")
            part.end(signal.SIGKILL)
    with alone(tmp_path, tree, "{profile: saver}") as part:
        until(lambda: tree.governors() == {"conservative"}, 20, "the profile is set")
        part.end()
    assert tree.governors() == {"ondemand"}


def test_a_second_one_on_the_same_data_folder_is_refused(tmp_path: Path) -> None:
    with alone(tmp_path, Tree(tmp_path / "sys")) as part:
        part.told("level normal")
        part.told("looked after without")
        first = part.process
        part.start()
        second, part.process = part.process, first
        assert second is not None
        assert second.wait(20) == 78
        assert "the part ops runs already with data folder" in part.log.read_text()


def without_rights() -> tuple[str, ...]:
    """Root may do everything: as root, the part runs without the capabilities that make it so."""
    if os.geteuid() != 0:
        return ()
    program = shutil.which("setpriv")
    if program is None:
        missing("setpriv (util-linux) is needed to give up root's rights")
    return (str(program), "--bounding-set=-dac_override,-dac_read_search")


def test_without_permission_it_says_so_once_and_goes_on(tmp_path: Path) -> None:
    tree = container(tmp_path / "sys")
    closed(tree)
    with alone(tmp_path, tree, "{idle_after_s: 4}", prefix=without_rights()) as part:
        part.told("level low after normal")
        text = part.log.read_text()
        assert text.count("the processor's power cannot be set") == 1, text
        assert "policy0/scaling_governor: Permission denied" in text or "policy0/energy" in text
        assert text.count("energy cannot be measured") == 1, text
        assert text.count("Permission denied") == 2, text
        assert "Traceback" not in text
        assert part.end() == 0
    assert tree.preferences() == {"balance_power"}


def test_files_that_go_away_and_rubbish_do_not_stop_it(tmp_path: Path) -> None:
    tree = laptop(tmp_path / "sys")
    with alone(tmp_path, tree, "{idle_after_s: 6}") as part:
        part.told("level normal")
        shutil.rmtree(tree.root / "class/powercap")
        tree.put("class/power_supply/AC", online=b"\x00\xff")
        shutil.rmtree(tree.root / "devices/system/cpu/cpufreq/policy1")
        part.told("level low after normal")
        assert tree.preferences() == {"power"}
        assert "Traceback" not in part.log.read_text()
        assert part.end() == 0


# -- in a whole Roost --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningRoost, Tree]]:
    folder = tmp_path_factory.mktemp("power")
    tree = laptop(folder / "sys")
    patch = pytest.MonkeyPatch()
    patch.setenv("ROOST_SYSFS_ROOT", str(tree.root))
    patch.setenv("PATH", str(Path(sys.executable).parent))  # without this machine's own power-profiles-daemon
    config = {"models": [SLOW, {"name": "echo", "type": "echo"}], "power": {"idle_after_s": 4}}
    try:
        with running(folder / "roost", config) as roost:
            yield roost, tree
    finally:
        patch.undo()
    assert (tree.governors(), tree.preferences()) == ({"powersave"}, {"balance_power"}), "put back at the end"


def power_of(roost: RunningRoost) -> dict[str, Any]:
    rows = roost.status()["power"]
    return dict(rows[0]) if rows else {}


async def test_the_first_request_wakes_the_part_and_a_rest_lowers_the_level(made: tuple[RunningRoost, Tree]) -> None:
    roost, tree = made
    nc = await roost.client()
    part = await nats.connect(roost.nats_url, nkeys_seed=str(roost.data / "secrets" / "parts.nk"))
    woken = await part.subscribe("roost.power.wake.*")
    await asyncio.to_thread(until, lambda: tree.preferences() == {"power"}, 30, "idle lowers")
    asked = asyncio.create_task(roost.ask(nc, {"text": "hello", "model": "slow"}))
    message = await woken.next_msg(timeout=10)
    assert message.subject == f"roost.power.wake.{subjects.host(socket.gethostname())}"
    await asyncio.to_thread(until, lambda: tree.governors() == {"performance"}, 10, "work raises")
    assert (await asked)["text"] == "hello"
    await asyncio.to_thread(until, lambda: tree.preferences() == {"power"}, 30, "rest lowers")

    await part.publish(message.subject, b"")  # nothing is in the queue: only this word can raise it
    await asyncio.to_thread(until, lambda: tree.governors() == {"performance"}, 10, "the word alone raises")
    await asyncio.to_thread(until, lambda: tree.preferences() == {"power"}, 30, "rest lowers")
    events = []
    done = await asyncio.to_thread(roost.cli, "events", "tail", "--since", "5m", "--no-follow", "--json")
    for line in done.stdout.splitlines():
        event = json.loads(line)
        if ".power." in json.dumps(event):
            events.append(json.dumps(event))
    assert any('"full"' in event for event in events)
    await part.close()
    await nc.close()


async def test_status_and_metrics_tell_what_can_be_read_and_nothing_else(made: tuple[RunningRoost, Tree]) -> None:
    roost, tree = made
    key = await asyncio.to_thread(roost.key, "power")

    async def metrics() -> dict[str, float]:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http,
            http.get(f"{roost.http}/metrics") as response,
        ):
            lines = (await response.text()).splitlines()
        power = [line for line in lines if line.startswith(("roost_power", "roost_energy", "roost_tokens_per"))]
        return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in power}

    joules = 2_000_000

    async def watts() -> float:
        nonlocal joules
        joules += 1_500_000
        tree.put("class/powercap/intel-rapl:0", energy_uj=joules)
        return (await metrics()).get("roost_power_watts", 0.0)

    assert await wait_for(watts, 30, "watts in the metrics") > 0
    found = await metrics()
    assert found["roost_energy_joules_total"] > 0
    assert found["roost_power_level"] in (0.0, 1.0, 2.0)
    row = await asyncio.to_thread(power_of, roost)
    assert row["source"] == "rapl"
    assert row["watts"] > 0
    nc = await roost.client()
    await roost.ask(nc, {"text": " ".join("word" for _ in range(50)), "model": "echo"})

    async def counted() -> bool:
        await watts()
        found = await metrics()
        return 40 < found.get("roost_tokens_per_joule", 0.0) * found.get("roost_energy_joules_total", 0.0) < 500

    await wait_for(counted, 100, "the 50 tokens of this answer over the joules of the last minute")
    await nc.close()
    text = (await asyncio.to_thread(roost.cli, "status")).stdout
    assert "power:" in text
    assert " W (rapl)" in text

    shutil.rmtree(tree.root / "class/powercap")

    async def silent() -> bool:
        return not {"roost_power_watts", "roost_energy_joules_total"} & (await metrics()).keys()

    await wait_for(silent, 30, "what cannot be read is absent")
    assert "roost_power_level" in await metrics()


async def test_unplugging_is_told_and_work_on_battery_raises_to_normal_only(made: tuple[RunningRoost, Tree]) -> None:
    roost, tree = made
    nc = await roost.client()
    tree.plug(False)
    tree.put("class/power_supply/BAT0", power_now=11_000_000)
    await asyncio.to_thread(until, lambda: power_of(roost).get("on_battery"), 30, "the battery is noticed")
    assert power_of(roost)["under_load"] == "normal"
    asks = [asyncio.create_task(roost.ask(nc, {"text": f"{i}", "model": "slow"})) for i in range(4)]
    await asyncio.to_thread(until, lambda: tree.preferences() == {"balance_performance"}, 10, "normal")
    assert tree.governors() == {"powersave"}
    await asyncio.gather(*asks)
    tree.plug(True)
    await asyncio.to_thread(until, lambda: not power_of(roost).get("on_battery", True), 30, "mains are noticed")
    await nc.close()


def test_a_killed_part_comes_back_and_a_bus_that_goes_away_does_not_stop_it(made: tuple[RunningRoost, Tree]) -> None:
    roost, tree = made
    killed = roost.kill("ops")
    roost.wait_back("ops", killed)
    until(lambda: power_of(roost).get("level") == "low", 30, "its row is there again")
    ops = roost.pid("ops")
    roost.wait_back("nats", roost.kill("nats"))
    until(lambda: tree.preferences() == {"power"}, 30, "the level is kept")
    until(lambda: power_of(roost).get("level") == "low", 60, "its row is written to the new bus")
    assert roost.pid("ops") == ops
    assert "Traceback" not in (roost.data / "logs" / "ops.log").read_text()


def test_the_part_is_small(made: tuple[RunningRoost, Tree]) -> None:
    roost, _ = made
    assert psutil.Process(roost.pid("ops")).memory_info().rss < 50_000_000
