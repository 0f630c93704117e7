"""What is measured, what is taken, and what is kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from tests.tools.synthetic import SHAPES, write
from workers.host.machine import look
from workers.llama import LlamaBackend
from workers.llama.fitting import file, tuned
from workers.llama.fitting.plan import Plan
from workers.llama.fitting.rig import PROMPT_MAX, PROMPT_MIN, STEPS_MAX, STEPS_MIN, Pace, length_for
from workers.llama.fitting.tune import judge, questions, thread_counts
from workers.llama.native import build

USUAL = Plan(window=512, trained=512, cells=512, sequences=8, threads=4, cell_bytes=1)


def pairs(*gains: float) -> list[tuple[Pace, Pace]]:
    return [(Pace(100.0, 100.0), Pace(100.0 * (1 + g), 100.0 * (1 + g))) for g in gains]


@pytest.mark.parametrize(
    ("gains", "taken"),
    [
        ((0.1, 0.12, 0.09, 0.11, 0.1), True),
        ((0.02, 0.02, 0.02, 0.02, 0.02), False),
        ((-0.1, -0.1, -0.1, -0.1, -0.1), False),
        ((0.4, -0.3, 0.5, -0.2, 0.1), False),
        ((0.1, 0.12, 0.09, 0.11, -0.5), False),
    ],
)
def test_a_setting_is_taken_for_a_gain_that_is_larger_than_the_noise(gains: tuple[float, ...], taken: bool) -> None:
    found = judge("batch", 512, 256, pairs(*gains))
    assert found.taken is taken
    assert found.gain == pytest.approx(sorted(gains)[2])


def test_a_turn_counts_prompt_and_answer() -> None:
    assert Pace(200.0, 50.0).turn_s == pytest.approx(3.0)


def test_runs_take_about_the_time_they_may() -> None:
    length = length_for(Pace(500.0, 80.0), rows=8, run_s=1.0)
    assert length.prompt / 500 + 8 * length.steps / 80 == pytest.approx(1.0, abs=0.15)
    slow, fast = length_for(Pace(1.0, 1.0), 8, 0.1), length_for(Pace(1e6, 1e6), 8, 10.0)
    assert (slow.prompt, slow.steps) == (PROMPT_MIN, STEPS_MIN)
    assert (fast.prompt, fast.steps) == (PROMPT_MAX, STEPS_MAX)


def test_what_the_operator_named_is_not_measured() -> None:
    every = questions(USUAL, SimpleNamespace(), (2,), copies=True, blocks=True)
    assert [q.setting for q in every] == ["repack", "threads", "flash", "kv_type", "batch"]
    named = SimpleNamespace(batch=512, kv_type="f16", threads=4, repack=True, flash=True)
    assert questions(USUAL, named, (2,), copies=True, blocks=True) == []
    possible = questions(USUAL, SimpleNamespace(), (), copies=False, blocks=False)
    assert [q.setting for q in possible] == ["flash", "batch"]


def test_threads_worth_trying() -> None:
    assert thread_counts(8, 16) == (16, 7, 4)
    assert thread_counts(2, 2) == (1,)
    assert thread_counts(1, 1) == ()


RECORD = tuned.Tuned(
    key=tuned.Key(file="a", machine="b", build="c"),
    at=1.0,
    chosen=tuned.Chosen(threads=2),
    gain=0.1,
    prompt_per_s=1.0,
    answer_per_s=1.0,
)


def test_a_record_counts_for_the_same_file_machine_and_build_only(tmp_path: Path) -> None:
    tuned.save(tmp_path, "m", RECORD)
    assert tuned.find(tmp_path, RECORD.key) == RECORD
    for other in ({"file": "x"}, {"machine": "x"}, {"build": "x"}):
        assert tuned.find(tmp_path, replace(RECORD.key, **other)) is None


def test_the_newest_record_counts_and_damaged_ones_do_not(tmp_path: Path) -> None:
    assert tuned.find(tmp_path, RECORD.key) is None
    tuned.save(tmp_path, "a", RECORD)
    newer = replace(RECORD, at=2.0, chosen=tuned.Chosen(threads=3))
    tuned.save(tmp_path, "b", newer)
    (tmp_path / "tuned" / "c.json").write_text("{")
    (tmp_path / "tuned" / "d.json").write_text(json.dumps({"v": 1}))
    assert tuned.find(tmp_path, RECORD.key) == newer


def test_a_record_is_replaced_whole(tmp_path: Path) -> None:
    tuned.save(tmp_path, "m", RECORD)
    tuned.save(tmp_path, "m", replace(RECORD, at=3.0))
    assert [path.name for path in (tmp_path / "tuned").iterdir()] == ["m.json"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write(path, SHAPES["tiny"], "q4_0", starter=starter_model)
    return path


def command(data: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "workers.llama.fitting.tune", "--data", str(data), "--budget-s", "4", *more]


def model(path: Path, **settings: Any) -> str:
    return json.dumps({"name": "tiny", "type": "llama", "path": str(path), "settings": settings})


def run(given: str, data: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(command(data, *more), input=given, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_model_is_measured_and_uses_what_was_found(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, lines = run(model(tiny), tmp_path)
    assert code == 0, lines
    trials = [line for line in lines if line["event"] == "trial"]
    assert trials
    assert all(line["done"] <= line["of"] for line in trials)
    result = lines[-1]
    assert result["event"] == "result"
    assert result["prompt_per_s"] > 0
    assert result["answer_per_s"] > 0
    assert {c["setting"] for c in result["compared"]} & {"repack", "flash"}
    assert Path(result["saved"]) == tmp_path / "tuned" / "tiny.json"
    monkeypatch.setenv("ROOST_DATA", str(tmp_path))
    found = tuned.chosen(file.model_file(tiny))
    assert found is not None
    assert {k: v for k, v in result["chosen"].items() if v is not None} == {
        name: value for name in found.__struct_fields__ if (value := getattr(found, name)) is not None
    }


def test_the_backend_takes_the_record_and_the_operators_word_before_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_DATA", str(tmp_path))
    key = tuned.Key(file=file.version(tiny), machine=tuned.fingerprint(look()), build=build.look().digest)
    tuned.save(tmp_path, "tiny", replace(RECORD, key=key, chosen=tuned.Chosen(batch=128, kv_type="q8_0")))
    told = LlamaBackend(LlamaBackend.Settings(kv_type="f16"), 2).demand(tiny, None).what
    assert "cells of f16, batch 128" in told
    tuned.save(tmp_path, "tiny", replace(RECORD, key=replace(key, machine="another")))
    assert "batch 512" in LlamaBackend(LlamaBackend.Settings(), 2).demand(tiny, None).what


def test_a_dry_run_keeps_nothing(tiny: Path, tmp_path: Path) -> None:
    code, lines = run(model(tiny, threads=1, batch=64, kv_type="f16"), tmp_path, "--dry-run")
    assert code == 0
    assert lines[-1]["saved"] == ""
    assert {c["setting"] for c in lines[-1]["compared"]} <= {"repack", "flash"}
    assert not (tmp_path / "tuned").exists()


def test_ctrl_c_keeps_nothing(tiny: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        command(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(model(tiny))
        process.stdin.close()
        process.stdin = None
        while json.loads(process.stdout.readline())["event"] != "trial":
            pass
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nonsense", "standard input holds no model"),
        ('{"name": "m", "type": "echo"}', "only models of type llama"),
        ('{"name": "m", "type": "llama", "path": "/no/such.gguf"}', "no such file"),
        ('{"name": "m", "type": "llama", "settings": {"threads": 0}}', "threads"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(given: str, sentence: str, tmp_path: Path) -> None:
    code, lines = run(given, tmp_path)
    assert code == 78
    assert [line["event"] for line in lines] == ["error"]
    assert sentence in lines[0]["message"]
