"""A repository in a folder: links, special files and rights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import Untrusted
from updater.source.contract import Missing, Unready
from updater.source.folder import FolderSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "repository" / "metadata").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "repository"


async def test_a_link_out_of_the_folder_is_not_followed(folder: Path) -> None:
    (folder / "metadata" / "file.json").symlink_to(folder.parent / "secret")
    (folder / "targets").symlink_to(folder.parent)
    source = FolderSource(folder, connections=1)
    for path in ("metadata/file.json", "targets/secret"):
        with pytest.raises(Untrusted, match="leads out of the repository"):
            await source.read(path, 100)
    await source.close()


async def test_links_inside_the_folder_and_to_the_folder_are_followed(folder: Path) -> None:
    (folder / "metadata" / "1.json").write_bytes(b"there")
    (folder / "metadata" / "2.json").symlink_to("1.json")
    (folder.parent / "link").symlink_to(folder)
    source = FolderSource(folder.parent / "link", connections=1)
    assert await source.read("metadata/2.json", 100) == b"there"
    await source.close()


async def test_a_link_in_a_circle_or_to_nothing_is_an_error_with_an_end(folder: Path) -> None:
    (folder / "circle").symlink_to("circle")
    (folder / "nothing").symlink_to("gone")
    source = FolderSource(folder, connections=1)
    with pytest.raises(Unready):
        await source.read("circle", 100)
    with pytest.raises(Missing):
        await source.read("nothing", 100)
    await source.close()


async def test_what_is_no_file_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    source = FolderSource(folder, connections=1)
    for path in ("pipe", "metadata"):
        with pytest.raises(Unready):
            await source.read(path, 100)
    await source.close()


async def test_a_folder_that_is_not_there_is_not_an_empty_repository(tmp_path: Path) -> None:
    source = FolderSource(tmp_path / "stick", connections=1)
    with pytest.raises(Unready, match="mounted"):
        await source.read("metadata/timestamp.json", 100)
    (tmp_path / "stick").mkdir()
    with pytest.raises(Missing):
        await source.read("metadata/timestamp.json", 100)
    await source.close()
