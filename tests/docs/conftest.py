"""One Roost for all tests of the documentation: models named as in config.yaml, and the plug-ins of docs/examples."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus.programs import free_port
from tests.conftest import ROOT
from tests.running import RunningRoost

EXAMPLES = ROOT / "docs" / "examples"
DOODLER = ROOT / "workers" / "diffusion" / "doodler" / "weights"
PLUGINS = (EXAMPLES / "line_connector", EXAMPLES / "faq_backend")


def install(plugin: Path, site: Path) -> None:
    """Do what `pip install` does with a plug-in: its metadata, with the entry points of its pyproject.toml."""
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


class House(RunningRoost):
    """A Roost with plug-ins on its path."""

    def __init__(self, folder: Path, config: dict[str, Any], *, line_port: int) -> None:
        super().__init__(folder, config)
        self.line_port = line_port
        self.site = folder / "site"
        for plugin in PLUGINS:
            install(plugin, self.site)

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "PYTHONPATH": os.pathsep.join(map(str, (self.site, *PLUGINS)))}


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    line_port = free_port("127.0.0.1")
    models: list[dict[str, Any]] = [
        {"name": "text-generation", "type": "echo", "delay_token_ms": 20},
        {"name": "library", "type": "faq", "path": str(EXAMPLES / "faq_backend" / "faq.txt")},
        {"name": "letters", "type": "spell"},
    ]
    if find_spec("diffusers"):
        models.append({"name": "image-processing", "type": "diffusion", "path": str(DOODLER), "warm_up": False})
    names = [connector["type"] for connector in yaml.safe_load((ROOT / "config.yaml").read_text())["connectors"]]
    connectors = [*({"type": name} for name in names), {"type": "line", "port": line_port}]
    started = House(tmp_path_factory.mktemp("house"), {"models": models, "connectors": connectors}, line_port=line_port)
    try:
        started.start()
        yield started
    finally:
        started.stop()
