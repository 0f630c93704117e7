"""requirements.lock: everything pinned with hashes, for every platform, from no particular index."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==[^\s\\]+", re.MULTILINE)


def test_every_package_is_pinned_with_hashes() -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", LOCK)
    for block in blocks:
        if block.startswith("#"):
            continue
        assert PIN.match(block), block[:80]
        assert "--hash=sha256:" in block, block[:80]


def test_no_address_or_folder_of_a_machine_is_in_it() -> None:
    assert "://" not in LOCK
    assert "--index" not in LOCK
    assert "--find-links" not in LOCK


def test_every_dependency_of_the_project_is_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {re.split(r"[\[<>=!~; ]", text)[0].lower().replace("_", "-") for text in wanted}
    assert names <= set(PIN.findall(LOCK))


def test_it_covers_other_platforms_too() -> None:
    assert re.search(r"^colorama==\S+ ; ", LOCK, re.MULTILINE) or "sys_platform" in LOCK
