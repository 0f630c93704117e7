"""Echo: answers with the words it was asked. For tests, benchmarks, and as the skeleton a plug-in author copies."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar, cast

import msgspec
from msgspec import Struct

from schemas.errors import ConfigError, Untrusted
from schemas.message import Usage
from workers import Backend, BackendSettings, Finished, Job

FILE = "echo.json"
"""In the folder that `path` names, where it names one."""
FILE_BYTES_MAX = 65_536
T = TypeVar("T")


class EchoFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file behind `path`: a "model" that can be told from another one by its answers."""

    mark: str = ""
    """Every word of an answer ends with it."""


class EchoBackend(Backend):
    """Yields the newest message word by word, at the speed of an imagined model."""

    class Settings(BackendSettings, frozen=True):
        """Both in milliseconds: before the first word, and before each further one."""

        delay_ms: float = 0.0
        delay_token_ms: float = 0.0
        max_tokens: int = 4096

    abilities = frozenset({"files"})
    """It takes them, and says the words of the text all the same."""
    slots = 64
    version = "echo-1"
    mark = ""

    def load(self, path: Path | None) -> None:
        """Take the mark from the file, if there is one; its hash is the version."""
        if path is not None:
            data = read(path)
            self.mark = decode(data, path, EchoFile).mark
            self.version = version(data)

    def generate(self, job: Job) -> Iterator[str | Finished]:
        settings = cast(EchoBackend.Settings, self.settings)
        words = [word + self.mark if word else word for word in job.text.split(" ")]
        said = 0
        limit = job.sampling.max_tokens or settings.max_tokens
        prompt = sum(len(m.text.split()) for m in job.messages)
        for i, word in enumerate(words):
            pause = settings.delay_token_ms if i else settings.delay_ms
            if pause and job.cancelled is not None and job.cancelled.wait(pause / 1000):
                break
            if pause and job.cancelled is None:
                time.sleep(pause / 1000)
            cancelled = job.cancelled is not None and job.cancelled.is_set()
            if cancelled or i >= limit:
                usage = Usage(prompt_tokens=prompt, completion_tokens=i)
                yield Finished(finish="cancelled" if cancelled else "length", usage=usage)
                return
            yield word if i == 0 else " " + word
            said = i + 1
        cancelled = job.cancelled is not None and job.cancelled.is_set()
        yield Finished(
            finish="cancelled" if cancelled else "stop",
            usage=Usage(prompt_tokens=prompt, completion_tokens=said),
        )


def read(path: Path) -> bytes:
    """What the file holds, or the `echo.json` of the folder; raises `ConfigError`, or `Untrusted` when it is large."""
    file = path / FILE if path.is_dir() else path
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}; echo needs a JSON file there") from None
    if len(data) > FILE_BYTES_MAX:
        raise Untrusted(f"{file} is larger than {FILE_BYTES_MAX} bytes; it is no file of echo's", code="model_file")
    return data


def decode(data: bytes, path: Path, kind: type[T]) -> T:
    """The file as what it should be; raises `Untrusted`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Untrusted(f"{path} is not a file of echo's: {error}", code="model_file") from None


def version(data: bytes) -> str:
    """The first digits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:12]
