"""What paths mean: real files, the release that they belong to, and whether anything has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from schemas.config import AdapterConfig, ModelConfig
from schemas.errors import ConfigError
from tests.tools import brittle
from tests.workers.host.house import Slot
from workers.host.slot import files_of


def test_links_are_followed_and_the_release_is_named(tmp_path: Path) -> None:
    slot = Slot(tmp_path / "talk")
    files = files_of(ModelConfig(name="talk", type="echo", path=str(slot.link)))
    assert files.path == (tmp_path / "talk/releases/1").resolve()
    assert files.release == "1"
    file = files_of(ModelConfig(name="talk", type="echo", path=str(slot.link / "echo.json")))
    assert (file.path, file.release) == (files.path / "echo.json", "1")


def test_a_slot_stands_for_its_link(tmp_path: Path) -> None:
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/1")
    assert files_of(ModelConfig(name="m", type="echo", path=str(tmp_path))).path == tmp_path / "releases" / "1"


def test_a_missing_path_names_itself_and_none_is_fine(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none does not exist"):
        files_of(ModelConfig(name="talk", type="echo", path=str(tmp_path / "none")))
    assert files_of(ModelConfig(name="talk", type="echo")).path is None


def test_a_link_that_leads_in_a_circle_is_a_missing_path(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="does not exist"):
        files_of(ModelConfig(name="talk", type="echo", path=str(tmp_path / "loop")))


def test_a_part_of_a_split_model_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("x")
    part = tmp_path / "m-00001-of-00002.gguf"
    part.symlink_to("blob")
    assert files_of(ModelConfig(name="talk", type="llama", path=str(part))).path == tmp_path.resolve() / part.name


def test_files_are_equal_until_something_that_is_loaded_differs(tmp_path: Path) -> None:
    folder = brittle.release(tmp_path / "mine", "~a")
    model = ModelConfig(name="talk", type="echo", path=str(folder), lora=(AdapterConfig(path=str(folder)),))
    before = files_of(model)
    assert files_of(replace(model, description="other", warm_up=False)) == before
    assert files_of(replace(model, slots=2)) != before
    brittle.release(folder, "~b")
    assert files_of(model) != before


def test_a_broken_release_file_makes_no_release(tmp_path: Path) -> None:
    folder = brittle.release(tmp_path / "mine", "~a")
    (folder / "RELEASE.json").write_text("{")
    files = files_of(ModelConfig(name="talk", type="echo", path=str(folder)))
    assert files.release == ""
    assert len(files.marks) == 2
