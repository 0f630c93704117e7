"""Who may import whom: the rules of docs/ARCHITECTURE.md, read off the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

LAYERS = ("schemas", "bus", "connectors", "workers", "updater", "knowledge", "ops")
MAY = {
    "schemas": {"schemas"},
    "bus": {"schemas", "bus"},
    **{layer: {"schemas", "bus", layer} for layer in LAYERS if layer not in ("schemas", "bus")},
}
ONLY_IN = {
    "nats": {"bus"},
    "redis": {"bus"},
    "tuf": {"updater"},
    "securesystemslib": {"updater"},
    "pyfastcdc": {"updater"},
    "llama_cpp": {"workers"},
    "torch": {"workers"},
    "diffusers": {"workers"},
    "transformers": {"workers"},
}
PURE = {"msgspec", "schemas"} | sys.stdlib_module_names


def sources(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


def parsed(source: str) -> ast.Module:
    """CPython 3.11 counts the depth of two parses at once (one by another test's thread) in one place (gh-106905)."""
    for _ in range(5):
        try:
            return ast.parse(source)
        except SystemError as error:
            if "recursion depth mismatch" not in str(error):
                raise
    raise AssertionError("ast.parse failed five times in a row")


def imports(source: str, package: str) -> set[str]:
    """Dotted names that a module imports anywhere: at its top, in functions, under TYPE_CHECKING, by name."""
    found: set[str] = set()
    by_name = ("__import__", "importlib.import_module", "import_module")
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            found.add(".".join([*up, *([node.module] if node.module else [])]))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in by_name:
            found.update(arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))
    return found


def breaches(layer: str, source: str, package: str) -> list[str]:
    """What `source`, a module of `package` in `layer`, imports and must not."""
    wrong = []
    for name in sorted(imports(source, package)):
        top = name.split(".")[0]
        if top in LAYERS and top not in MAY[layer]:
            wrong.append(f"{layer} imports {name}: siblings meet on the bus")
        if layer not in ONLY_IN.get(top, {layer}):
            wrong.append(f"{layer} imports {name}: only {', '.join(ONLY_IN[top])} may")
        if layer == "schemas" and top not in PURE:
            wrong.append(f"schemas imports {name}: it holds pure types")
    return wrong


@pytest.mark.parametrize("layer", LAYERS)
def test_every_module_keeps_to_the_rules(layer: str) -> None:
    wrong = []
    for path in sources(layer):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        wrong += [f"{path.relative_to(ROOT)}: {line}" for line in breaches(layer, path.read_text(), package)]
    assert wrong == []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("schemas", "import bus.client"),
        ("schemas", "import yaml"),
        ("bus", "from workers import Backend"),
        ("connectors", "from workers.host import lane"),
        ("workers", "def f():\n    import connectors"),
        ("ops", "if TYPE_CHECKING:\n    from connectors.host import gateway"),
        ("ops", "import nats.aio.client"),
        ("connectors", "from redis import asyncio"),
        ("connectors", "import importlib\nimportlib.import_module('torch.nn')"),
        ("ops", "async def f():\n    from llama_cpp import llama_cpp"),
    ],
)
def test_a_breach_is_found(layer: str, source: str) -> None:
    assert breaches(layer, source, layer)


def test_what_is_allowed_is_no_breach() -> None:
    assert breaches("bus", "import nats\nimport redis.asyncio\nfrom schemas import message", "bus") == []
    assert breaches("bus", "from . import pull\nfrom .pull import Delivery", "bus") == []
    assert breaches("workers", "import torch\nfrom bus import client\nimport json", "workers") == []


def test_importing_the_connectors_loads_no_model_library() -> None:
    program = (
        "import sys, connectors, connectors.nats, connectors.openai, connectors.web, connectors.host.part\n"
        "print([name for name in ('torch', 'llama_cpp', 'diffusers', 'transformers', 'numpy', 'workers')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_schemas_loads_neither_bus_nor_libraries() -> None:
    program = "import sys, schemas.config, schemas.turn, schemas.export\nprint({n.split('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"bus", "nats", "redis", "yaml", "aiohttp"} & set(ast.literal_eval(done.stdout))
