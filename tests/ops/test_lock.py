"""The lock files: everything pinned with hashes, for every platform, from no particular index."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = {name: (ROOT / name).read_text() for name in ("requirements.lock", "requirements-diffusion.lock")}
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s\\]+)", re.MULTILINE)
APART = {"torch"}
"""Not of the same file everywhere, so that one hash would not do: the Makefile has the version of pyproject.toml."""
each = pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)


def pinned(name: str) -> set[str]:
    return {found[0] for found in PIN.findall(LOCKS[name])}


def named(texts: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", text)[0].lower().replace("_", "-") for text in texts}


@each
def test_every_package_is_pinned_with_hashes(lock: str) -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", lock)
    for block in blocks:
        if block.startswith("#"):
            continue
        assert PIN.match(block), block[:80]
        assert "--hash=sha256:" in block, block[:80]


@each
def test_no_address_or_folder_of_a_machine_is_in_it(lock: str) -> None:
    assert "://" not in lock
    assert "--index" not in lock
    assert "--find-links" not in lock


def test_every_dependency_of_the_project_is_in_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    diffusion = extras.pop("diffusion")
    assert named([*project["dependencies"], *chain.from_iterable(extras.values())]) <= pinned("requirements.lock")
    assert named(diffusion) - APART <= pinned("requirements-diffusion.lock")
    [torch] = [text for text in diffusion if text.startswith("torch")]
    assert f"TORCH ?= {torch}\n" in (ROOT / "Makefile").read_text()


def test_the_locks_agree() -> None:
    versions = [dict(PIN.findall(lock)) for lock in LOCKS.values()]
    assert {name for name in versions[0].keys() & versions[1].keys() if versions[0][name] != versions[1][name]} == set()


@each
def test_it_covers_other_platforms_too(lock: str) -> None:
    assert re.search(r"^colorama==\S+ ; ", lock, re.MULTILINE) or "sys_platform" in lock
