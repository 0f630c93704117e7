"""`roost check`: the configuration down to the plug-ins' own settings."""

from __future__ import annotations

import json
from pathlib import Path

from tests.ops.conftest import run_cli

MODELS = "models:\n  - name: talk\n    type: echo\n"


def check(folder: Path, text: str) -> tuple[int, dict[str, object], str]:
    config = folder / "config.yaml"
    config.write_text(text)
    done = run_cli(config, folder / "data", "check", "--json")
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_good_configuration_is_good(tmp_path: Path) -> None:
    code, found, _ = check(tmp_path, MODELS + "connectors: [{type: nats}]\n")
    assert (code, found) == (0, {"ok": True, "errors": [], "warnings": []})


def test_a_backend_that_is_not_installed_is_a_warning(tmp_path: Path) -> None:
    code, found, _ = check(tmp_path, MODELS + "  - {name: image, type: vision, resolution: 512x512}\n")
    assert code == 0
    assert "models[1] (image): no backend of type 'vision' is installed" in str(found["warnings"])


def test_a_model_without_its_file_is_a_warning(tmp_path: Path) -> None:
    code, found, _ = check(tmp_path, MODELS + "    path: none.gguf\nconnectors: [{type: nats}]\n")
    assert code == 0
    assert "none.gguf does not exist" in str(found["warnings"])


def test_an_unknown_setting_of_a_plug_in_is_an_error_with_its_place(tmp_path: Path) -> None:
    text = MODELS + "    delai_ms: 3\nconnectors:\n  - type: nats\n    sevrer: x\n"
    code, found, _ = check(tmp_path, text)
    assert code == 78
    errors = [error.removeprefix(f"{tmp_path}/config.yaml: ") for error in found["errors"]]  # type: ignore[attr-defined]
    assert errors == [
        "models[0] (talk): delai_ms: unknown field; remove it or check its spelling",
        "connectors[0] (nats): sevrer: unknown field; remove it or check its spelling",
    ]


def test_an_unknown_connector_and_an_unknown_model_of_a_connector_are_errors(tmp_path: Path) -> None:
    code, found, _ = check(tmp_path, MODELS + "connectors: [{type: pigeon}, {type: nats, model: none}]\n")
    assert code == 78
    assert "no connector of type 'pigeon' is installed" in str(found["errors"])
    assert "connectors[1] (nats): model: there is no model named 'none'" in str(found["errors"])


def test_errors_are_one_sentence_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("models: 3\n")
    done = run_cli(tmp_path / "config.yaml", tmp_path / "data", "check")
    assert done.returncode == 78
    assert done.stderr == f"roost: {tmp_path}/config.yaml: models: expected a list with at least one entry\n"
