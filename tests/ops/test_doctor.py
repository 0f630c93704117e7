"""`roost doctor`: what it says of a machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from msgspec.structs import replace

from ops import doctor, updates
from ops.machine import Machine, look
from schemas.config import Config, HttpConfig, ModelConfig
from schemas.update import UpdatesConfig
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


ROOT_JSON = """{"signatures": [], "signed": {"_type": "root", "version": 3, "expires": "2027-01-01T00:00:00Z"}}"""
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def updating(tmp_path: Path, **fields: Any) -> Config:
    """A configuration with one slot whose version 2 serves and is a file of 9 bytes, and a source that is a folder."""
    slot = tmp_path / "models" / "talk"
    if not slot.exists():
        for version in ("1", "2"):
            (slot / "releases" / version).mkdir(parents=True)
            (slot / "releases" / version / "m.gguf").write_bytes(b"123456789")
        (slot / "current").symlink_to("releases/2")
        (tmp_path / "source" / "metadata").mkdir(parents=True)
        (tmp_path / "source" / "metadata" / "timestamp.json").write_text("{}")
        (tmp_path / "root.json").write_text(ROOT_JSON)
    usual = {"source": str(tmp_path / "source"), "root": str(tmp_path / "root.json"), "free_bytes_min": "1 kB"}
    return Config(
        models=(
            ModelConfig(name="talk", type="llama", path=str(slot / "current")),
            ModelConfig(name="plain", type="llama", path=str(tmp_path / "other.gguf")),
        ),
        updates=UpdatesConfig(**{**usual, **fields}),
    )


def looked(config: Config) -> dict[str, doctor.Row]:
    return {row.name: row for row in updates.rows(config, NOW)}


def test_updates_that_can_work_get_no_advice(tmp_path: Path) -> None:
    found = looked(updating(tmp_path))
    assert set(found) == {"update source", "update root", "slot talk", "update space"}
    assert all(row.verdict == "ok" and not row.advice for row in found.values()), found
    assert found["update root"].found == "version 3, until 2027-01-01"
    assert found["slot talk"].found == "2 serves; on the disk: 1, 2"


def test_without_updates_one_row_says_so() -> None:
    [row] = updates.rows(Config(models=(ModelConfig(name="talk", type="echo"),)))
    assert (row.name, row.verdict) == ("updates", "ok")
    assert "not configured" in row.found


def test_the_root_that_a_publisher_makes_can_be_read(tmp_path: Path) -> None:
    from tuf.api.metadata import Metadata, Root

    Metadata(Root(expires=NOW + timedelta(days=3))).to_file(str(tmp_path / "made.json"))
    row = looked(updating(tmp_path, root=str(tmp_path / "made.json")))["update root"]
    assert (row.verdict, row.found) == ("warn", "version 1, until 2026-06-04")
    assert row.advice == "it ends soon"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        ("", "no root metadata"),
        ("[]", "no root metadata"),
        ('{"signed": {"_type": "targets", "expires": "2027-01-01T00:00:00Z"}}', "'targets' and not root"),
        ('{"signed": {"_type": "root", "expires": "soon"}}', "no root metadata"),
        (ROOT_JSON.replace("2027", "2026"), "expired"),
    ],
)
def test_a_root_that_is_no_good_is_warned_of(tmp_path: Path, content: str | None, told: str) -> None:
    config = updating(tmp_path)
    file = tmp_path / "root.json"
    file.unlink() if content is None else file.write_text(content)
    row = looked(config)["update root"]
    assert row.verdict == "warn"
    assert told in row.found
    assert row.advice


def test_slots_that_are_not_in_order_are_warned_of_with_the_remedy(tmp_path: Path) -> None:
    config = updating(tmp_path)
    link = tmp_path / "models" / "talk" / "current"

    def found() -> doctor.Row:
        return looked(config)["slot talk"]

    link.unlink()
    assert "not there yet" in found().found
    link.symlink_to("releases/7")
    assert "releases/7, which is gone" in found().found
    assert "rollback" in found().advice
    link.unlink()
    link.symlink_to(tmp_path / "source")
    assert "no release" in found().found
    link.unlink()
    link.write_bytes(b"GGUF")
    assert "is a file and no link" in found().found
    assert all(row.verdict == "warn" for row in (found(),))
    none = replace(config, models=config.models[1:])
    assert looked(none)["update slots"].verdict == "warn"


def test_blocked_versions_are_told_with_their_reasons(tmp_path: Path) -> None:
    config = updating(tmp_path)
    record = tmp_path / "models" / "talk" / "updates.json"
    record.write_text(json.dumps({"v": 1, "blocked": {"3": "12 of 30 answers failed"}}))
    told = [row for row in updates.rows(config, NOW) if row.verdict == "warn"]
    assert [row.found for row in told] == ["3 is blocked: 12 of 30 answers failed"]
    assert told[0].advice == "`roost update unblock talk 3`"
    for rubbish in ("{", "[]", '{"blocked": 7}'):
        record.write_text(rubbish)
        assert looked(config)["slot talk"]


def test_too_little_space_for_one_more_version_is_warned_of(tmp_path: Path) -> None:
    row = looked(updating(tmp_path, free_bytes_min="900000 TB"))["update space"]
    assert row.verdict == "warn"
    assert "must stay free" in row.found


class Answers(BaseHTTPRequestHandler):
    """A repository: /good has it, /closed wants a token, elsewhere is nothing."""

    def do_GET(self) -> None:
        self.close_connection = True
        allowed = self.path.startswith("/good/") or self.headers.get("Authorization") == "Bearer sesame"
        there = self.path.endswith("/metadata/timestamp.json") and not self.path.startswith("/no/")
        status = 404 if not there else 200 if allowed else 401
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: object) -> None:
        pass


def test_a_source_that_cannot_be_read_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def source(where: str) -> doctor.Row:
        return looked(updating(tmp_path, source=where))["update source"]

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert source(f"{url}/good/").verdict == "ok"
        assert "answers 404" in source(f"{url}/no").found
        assert source(f"{url}/closed").advice == "set ROOST_UPDATES_TOKEN"
        monkeypatch.setenv("ROOST_UPDATES_TOKEN", "sesame")
        assert source(f"{url}/closed").verdict == "ok"
        server.shutdown()
    assert "cannot be read" in source(url).found
    assert "https://" in source("http://example.org/models").advice
    assert "folder, https" in source("ftp://example.org/models").advice
    assert "no folder" in source(str(tmp_path / "nowhere")).found
    assert "no metadata/timestamp.json" in source(str(tmp_path)).found
    assert source("bus").verdict == "ok"


def test_the_command_checks_everything_and_exits_0_where_nothing_fails(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(ECHO)
    done = run_cli(config, tmp_path / "data", "doctor", "--json")
    told = json.loads(done.stdout)
    checks = {row["name"]: row["verdict"] for row in told["checks"]}
    assert done.returncode == 0
    assert told["threads"] >= 1
    assert told["plans"] == [{**told["plans"][0], "name": "talk", "total": 0}]
    for name in (
        "cores",
        "memory",
        "python",
        "nats-server",
        "valkey-server",
        "names",
        "bus.listen",
        "model talk",
        "updates",
        "compute",
        "memory limits",
        "llama.cpp version",
    ):
        assert name in checks
    assert "fail" not in checks.values()
    plain = run_cli(config, tmp_path / "data", "doctor")
    assert "nats-server" in plain.stdout


def test_a_broken_configuration_is_one_failing_row(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("models: 3\n")
    done = run_cli(tmp_path / "config.yaml", tmp_path / "data", "doctor")
    assert done.returncode == 1
    assert "models: expected a list" in done.stdout
