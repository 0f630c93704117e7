"""`roost doctor`: what it says of a machine."""

from __future__ import annotations

import json
from pathlib import Path

from msgspec.structs import replace

from ops import doctor
from ops.machine import Machine, look
from schemas.config import Config, HttpConfig, ModelConfig
from tests.ops.conftest import ECHO, run_cli

GB = 1_000_000_000
GOOD = Machine(
    processor="Test 9000",
    cores=8,
    ghz=3.6,
    memory_bytes=32 * GB,
    memory_free_bytes=20 * GB,
    disk_bytes=1_000 * GB,
    disk_free_bytes=500 * GB,
    rotational=False,
    nvme=True,
    network_mbit=1_000,
)


def test_the_recommended_machine_gets_no_advice() -> None:
    rows = doctor.hardware(GOOD)
    assert all(row.verdict == "ok" and not row.advice for row in rows)


def test_what_is_below_the_minimum_is_warned_of_with_advice() -> None:
    poor = replace(
        GOOD, cores=2, ghz=2.0, memory_bytes=8 * GB, disk_bytes=100 * GB, rotational=True, nvme=False, network_mbit=10
    )
    warned = {row.name: row for row in doctor.hardware(poor) if row.verdict == "warn"}
    assert set(warned) == {"cores", "clock", "memory", "disk", "disk kind", "network"}
    assert all(row.advice for row in warned.values())
    assert warned["cores"].found == "2 cores (minimum 4, recommended 8)"


def test_a_machine_sold_with_16_gb_is_not_below_16_gb() -> None:
    rows = {row.name: row.verdict for row in doctor.hardware(replace(GOOD, memory_bytes=16_400_000_000 - GB))}
    assert rows["memory"] == "ok"


def test_a_full_disk_fails() -> None:
    assert {r.name: r.verdict for r in doctor.hardware(replace(GOOD, disk_free_bytes=10_000))}["disk free"] == "fail"


def test_what_the_system_does_not_tell_is_no_fault() -> None:
    rows = doctor.hardware(replace(GOOD, ghz=None, network_mbit=None, rotational=None))
    assert all(row.verdict == "ok" for row in rows)


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    machine = look(tmp_path / "not" / "yet" / "there")
    assert machine.cores >= 1
    assert machine.memory_bytes > GB
    assert machine.disk_bytes > machine.disk_free_bytes > 0


def test_a_name_that_another_distribution_owns_fails() -> None:
    assert doctor.names({"bus": ["roost"], "schemas": ["Roost"], "yaml": ["PyYAML"]}).verdict == "ok"
    row = doctor.names({"bus": ["roost", "magic-bus"], "workers": ["workers"]})
    assert row.verdict == "fail"
    assert "bus (of magic-bus); workers (of workers)" in row.found


def test_a_taken_port_fails_and_names_the_place() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = Config(
            models=(ModelConfig(name="talk", type="echo"),),
            http=HttpConfig(listen=f"127.0.0.1:{listener.getsockname()[1]}"),
        )
        row = doctor.ports(config, None)[0]
    assert (row.name, row.verdict) == ("http.listen", "fail")
    assert "is taken" in row.advice


def test_model_files_are_listed_with_their_hash_and_absent_ones_warned_of(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    config = Config(
        models=(
            ModelConfig(name="a", type="llama", path=str(tmp_path)),
            ModelConfig(name="b", type="llama", path=str(tmp_path / "none.gguf")),
            ModelConfig(name="c", type="echo"),
        )
    )
    rows = doctor.models(config, hashes=True)
    assert [row.verdict for row in rows] == ["ok", "warn", "ok"]
    assert rows[0].found == "a.gguf 0 MB sha256 b83633aa7853"


def test_the_command_checks_everything_and_exits_0_where_nothing_fails(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(ECHO)
    done = run_cli(config, tmp_path / "data", "doctor", "--json")
    checks = {row["name"]: row["verdict"] for row in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0
    for name in ("cores", "memory", "python", "nats-server", "valkey-server", "names", "bus.listen", "model talk"):
        assert name in checks
    assert "fail" not in checks.values()
    plain = run_cli(config, tmp_path / "data", "doctor")
    assert "nats-server" in plain.stdout


def test_a_broken_configuration_is_one_failing_row(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("models: 3\n")
    done = run_cli(tmp_path / "config.yaml", tmp_path / "data", "doctor")
    assert done.returncode == 1
    assert "models: expected a list" in done.stdout
