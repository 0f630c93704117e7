"""The test-only backend `brittle`, registered by a real entry point in `SITE`.

In this process: `monkeypatch.syspath_prepend(brittle.SITE)`; in others: `env={**os.environ, **brittle.environment()}`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SITE = Path(__file__).resolve().parent / "site"


def environment() -> dict[str, str]:
    """What a process must have in its environment to know the backend."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(SITE), os.environ.get("PYTHONPATH", ""))))}


def release(folder: Path, mark: str = "", **wrong: Any) -> Path:
    """A folder with a model file for `echo` (nothing wrong) or `brittle` (see roost_brittle.py)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "echo.json").write_text(json.dumps({"mark": mark, **wrong}))
    return folder


def link(link: Path, folder: Path) -> Path:
    """Have `link` name `folder`, as the updater does: a new link, renamed over the old one."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(folder, link.parent))
    new.replace(link)
    return link
