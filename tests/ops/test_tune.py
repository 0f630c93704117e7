"""`roost tune`: a table for people, JSON for scripts, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ops.conftest import ECHO, run_cli
from tests.tools.synthetic import SHAPES, write

SHORT = ("--seconds", "5")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    write(folder / "tiny.gguf", SHAPES["tiny"], "q8_0", starter=starter_model)
    models = "models:\n  - {name: tiny, type: llama, path: tiny.gguf, threads: 1, batch: 64, kv_type: f16}\n"
    (folder / "config.yaml").write_text(ECHO.replace("models:\n", models, 1))
    return folder / "config.yaml"


def test_the_gain_of_each_setting_is_shown_and_kept(config: Path) -> None:
    done = run_cli(config, config.parent / "data", "tune", "tiny", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "SETTING" in done.stdout
    assert "best for tiny:" in done.stdout
    assert "flash" in done.stderr
    assert json.loads((config.parent / "data" / "tuned" / "tiny.json").read_text())["v"] == 1


def test_for_scripts_it_prints_json_and_keeps_nothing_when_told_so(config: Path) -> None:
    done = run_cli(config, config.parent / "other", "tune", "tiny", "--json", "--dry-run", *SHORT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answer_per_s"] > 0
    assert found["saved"] == ""
    assert not (config.parent / "other" / "tuned").exists()


@pytest.mark.parametrize(
    ("name", "sentence"), [("nobody", "there is no model 'nobody'"), ("talk", "only models of type llama")]
)
def test_what_cannot_be_tuned_is_said_in_one_sentence(config: Path, name: str, sentence: str) -> None:
    done = run_cli(config, config.parent / "data", "tune", name)
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
