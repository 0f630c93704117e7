"""What each configured model will take, told by its backend in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def ask(*models: dict[str, Any], **worker: Any) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "workers.host.demand"],
        input=json.dumps({"models": models, "worker": worker}), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_model_has_its_line_whatever_is_wrong_with_another(starter_model: Path) -> None:
    echo, absent, unknown, good = ask(
        {"name": "echo", "type": "echo", "size": "3 GB"},
        {"name": "absent", "type": "llama", "path": "/no/such.gguf"},
        {"name": "unknown", "type": "crystal-ball"},
        {"name": "good", "type": "llama", "path": str(starter_model), "settings": {"context": 1024, "pages_ram": "0"}},
    )
    assert (echo["total"], echo["what"]) == (3_000_000_000, "as models[].size says")
    assert "no such file" in absent["error"]
    assert "crystal-ball" in unknown["error"]
    assert good["error"] == ""
    assert good["total"] == good["weights"] + good["state"] + good["compute"]
    assert 0 < good["least"] < good["total"] < good["limit"]
    assert "context 1024" in good["what"]


def test_the_plan_keeps_to_the_models_own_limit(starter_model: Path) -> None:
    model = {"name": "m", "type": "llama", "path": str(starter_model), "memory": "250 MB"}
    (told,) = ask(model, memory="50%")
    assert told["limit"] == 250_000_000
    assert told["total"] <= told["limit"]
    assert "for 250 MB" in told["what"]
