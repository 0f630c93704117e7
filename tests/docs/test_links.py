"""What the documentation names is there: files, headings, commands, fields, the examples as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from msgspec import Struct

from ops.cli import roost
from schemas.ask import Ask
from schemas.config import BusConfig, Config, ConnectorConfig, HttpConfig, LimitConfig, ModelConfig, SessionConfig
from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
OURS = ("bus/", "connectors/", "workers/", "ops/", "schemas/", "docs/", "tests/", "benchmarks/")
COMMAND = re.compile(r"\broost ((?:[a-z]+)(?: [a-z]+)?)\b")
SECTIONS: dict[str, type[Struct]] = {
    "http": HttpConfig, "bus": BusConfig, "sessions": SessionConfig, "limits": LimitConfig,
    "models[]": ModelConfig, "connectors[]": ConnectorConfig,
}  # fmt: skip
SHELL = re.compile(r"^```sh.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name}: {target}; there are {sorted(anchors(found))}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in CODE.findall(prose(page)):
        if name.startswith(OURS) and re.fullmatch(r"[\w./-]+", name) and page != ROOT / "docs" / "STYLE.md":
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def named_commands(page: Path) -> set[str]:
    """`roost …` in code, in prose and in blocks."""
    text = page.read_text()
    code = [*CODE.findall(prose(page)), *SHELL.findall(text), *re.findall(r"^    .+$", text, re.MULTILINE)]
    return {match for piece in code for match in COMMAND.findall(piece)}


def known(words: str) -> bool:
    """Whether `roost WORDS` is a command: of a group the second word counts, of others it is an argument."""
    context = click.Context(roost)
    first, _, second = words.partition(" ")
    command = roost.get_command(context, first)
    if isinstance(command, click.Group):
        return not second or command.get_command(context, second) is not None
    return command is not None


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_that_are_named_exist(page: Path) -> None:
    unknown = {words for words in named_commands(page) if not known(words)}
    assert not unknown


def test_every_named_command_explains_itself() -> None:
    named = {words.split()[0] for page in PAGES for words in named_commands(page)}
    assert named == set(roost.list_commands(click.Context(roost))), "the documentation mentions every command"
    for command in ("chat", "dead"):  # tests/ops/test_cli.py asks all of them
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", command, "--help"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_configuration_that_is_named_exists(page: Path) -> None:
    for name in CODE.findall(prose(page)):
        section, _, field = name.partition(".")
        field = field.partition(":")[0]
        if section in SECTIONS and re.fullmatch(r"[a-z_]+", field):
            assert field in extra(section) or field in SECTIONS[section].__struct_fields__, f"{page.name}: {name}"


def extra(section: str) -> set[str]:
    """Settings of plug-ins that stand in the same entry."""
    from workers.llama import LlamaSettings

    return set(LlamaSettings.__struct_fields__) if section == "models[]" else set()


def test_operate_lists_every_section() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    for section in Config.__struct_fields__:
        assert re.search(rf"`{section}(\[\])?`", text), section


def test_speak_nats_lists_every_field_of_a_question() -> None:
    table = (ROOT / "docs" / "speak-nats.md").read_text()
    assert [name for name in Ask.__struct_fields__ if f"`{name}`" not in table] == []


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("write-a-connector.md", "line_connector/roost_line.py"),
        ("write-a-connector.md", "line_connector/pyproject.toml"),
        ("write-a-backend.md", "faq_backend/roost_faq.py"),
        ("write-a-backend.md", "faq_backend/pyproject.toml"),
    ],
)
def test_the_shown_examples_are_the_tested_ones(page: str, file: str) -> None:
    blocks = re.findall(
        r"^```(?:python|toml)\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL
    )
    shown = "".join(block.rstrip("\n") + "\n" for block in blocks)
    source = (ROOT / "docs" / "examples" / file).read_text()
    for part in re.split(r"\n\n\n(?=class SpellBackend)", source):
        assert part.strip() in shown, f"docs/{page} does not show {file} as it is"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_lines_fit_and_no_private_path_is_named(page: Path) -> None:
    text = page.read_text()
    long = [line for line in prose(page).splitlines() if len(line) > 120 and not line.startswith(("|", "!["))]
    assert not long
    assert not re.search(r"/work/|/root/|localhost:\d{5}", text)
