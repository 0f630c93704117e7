"""The README does what it says: its marked blocks run against a running Roost, its make targets exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.conftest import House

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(sh|python) run\n(.*?)^```$", re.MULTILINE | re.DOTALL)

PICTURES = "/v1/images/"


def here(house: House, text: str) -> str:
    """The same text with the addresses of this Roost in place of the default ones."""
    return text.replace("http://127.0.0.1:8420", house.http)


@pytest.fixture(scope="module")
def environment(house: House) -> dict[str, str]:
    return {
        **house.environment,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NATS_URL": house.nats_url,
        "NATS_NKEY": house.nkey,
    }


def run(command: list[str], script: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, input=script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_shell_blocks_run_one_after_the_other(house: House, environment: dict[str, str]) -> None:
    blocks = [text for language, text in BLOCK.findall(README) if language == "sh" and PICTURES not in text]
    assert len(blocks) >= 5
    printed = run(["bash", "-eux"], here(house, "".join(blocks)), environment)
    assert house.code() in printed
    assert printed.count("What is a roost?\n") == 2, "the terminal and the bus answer"
    assert '"content":"hello"' in printed, "the API answers"
    assert "text-generation" in printed
    assert "no dead letters" in printed


def test_the_python_block_runs(house: House, environment: dict[str, str]) -> None:
    (block,) = [text for language, text in BLOCK.findall(README) if language == "python"]
    printed = run([sys.executable, "-"], here(house, block), {**environment, "ROOST_KEY": house.key("readme")})
    assert printed == "Name three birds."


def test_the_block_that_asks_for_a_picture_gets_one(house: House, environment: dict[str, str]) -> None:
    pytest.importorskip("diffusers", reason="drawing needs the extra diffusion")
    (block,) = [text for language, text in BLOCK.findall(README) if language == "sh" and PICTURES in text]
    key = house.key("pictures")
    printed = run(["bash", "-eux"], here(house, block), {**environment, "ROOST_KEY": key})
    (link,) = json.loads(printed)["data"]
    asked = urllib.request.Request(link["url"], headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=30) as response:
        assert response.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)\b", README))))
def test_every_make_target_that_is_named_exists(target: str) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, env=plain, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_two_commands_come_first() -> None:
    assert README.index("make up") < README.index("make test") < README.index("roost chat")


def test_the_address_of_the_page_is_the_default_one() -> None:
    from schemas.config import BusConfig, HttpConfig

    assert f"http://{HttpConfig().listen}" in README
    assert f"nats://{BusConfig().listen}" in README
