"""Echo with a file: a model that can be told from another by its answers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from schemas.errors import ConfigError, Untrusted
from schemas.message import Message
from tests.tools import brittle
from workers import Finished, Job
from workers.echo import EchoBackend


def said(backend: EchoBackend, text: str) -> str:
    job = Job(request="r", messages=(Message("user", text),))
    return "".join(item for item in backend.generate(job) if not isinstance(item, Finished))


def test_every_word_ends_with_the_mark_and_the_version_is_the_files_hash(tmp_path: Path) -> None:
    folder = brittle.release(tmp_path, "~2")
    for path in (folder, folder / "echo.json"):
        backend = EchoBackend(EchoBackend.Settings())
        backend.load(path)
        assert said(backend, "good  morning") == "good~2  morning~2"
        assert backend.version == hashlib.sha256((folder / "echo.json").read_bytes()).hexdigest()[:12]


def test_without_a_file_words_are_as_they_are() -> None:
    backend = EchoBackend(EchoBackend.Settings())
    backend.load(None)
    assert (said(backend, "good morning"), backend.version) == ("good morning", "echo-1")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"mark": 1}', b'{"other": ""}', b"\xff\xfe", b" " * 70_000])
def test_a_file_that_is_none_of_echos_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "echo.json").write_bytes(data)
    with pytest.raises(Untrusted, match=r"echo\.json is"):
        EchoBackend(EchoBackend.Settings()).load(tmp_path / "echo.json")


def test_a_folder_without_its_file_is_the_operators_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"echo\.json cannot be read"):
        EchoBackend(EchoBackend.Settings()).load(tmp_path)
