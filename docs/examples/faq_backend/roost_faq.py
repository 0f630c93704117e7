"""Two backends: `faq` answers from a text file, `spell` answers letter by letter for many requests at once.

Neither is a neural network, and that is the point: a backend is whatever turns a `Job` into text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from schemas.errors import ConfigError
from schemas.message import Finish, Usage
from workers import Backend, BackendSettings, BatchBackend, Finished, Job, Piece


def words(text: str) -> set[str]:
    """The words of a text, without case and punctuation."""
    return set("".join(c if c.isalnum() else " " for c in text.lower()).split())


class FaqBackend(Backend):
    """Answers with the line of its file whose question shares most words with the sender's."""

    class Settings(BackendSettings, frozen=True):
        unknown: str = "I do not know."
        """Said when no question of the file shares enough words."""
        words_min: int = 2

    slots = 4

    def load(self, path: Path | None) -> None:
        """Read `question = answer` lines; raises `ConfigError` for a file that has none."""
        if path is None:
            raise ConfigError("a model of type faq needs `path`, a text file with lines `question = answer`")
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; name a text file") from None
        pairs = (line.partition("=") for line in raw.decode("utf-8", "replace").splitlines())
        self._answers = [(words(question), answer.strip()) for question, mark, answer in pairs if mark]
        if not self._answers:
            raise ConfigError(f"{path}: no line of the form `question = answer`")
        self.version = hashlib.sha256(raw).hexdigest()[:12]

    def generate(self, job: Job) -> Iterator[str | Finished]:
        settings = cast(FaqBackend.Settings, self.settings)
        asked = words(job.text)
        shared, answer = max((len(asked & question), answer) for question, answer in self._answers)
        text = answer if shared >= settings.words_min else settings.unknown
        said = text.split()[: job.sampling.max_tokens]
        yield " ".join(said)
        finish: Finish = "stop" if len(said) == len(text.split()) else "length"
        yield Finished(finish=finish, usage=Usage(prompt_tokens=len(asked), completion_tokens=len(said)))


class SpellBackend(BatchBackend):
    """Sends every open request its next letter in each step."""

    slots = 32
    version = "spell-1"

    def load(self, path: Path | None) -> None:
        self._open: dict[str, tuple[str, int]] = {}
        self._ends: dict[str, Finish] = {}
        self._unwanted: set[str] = set()

    def add(self, job: Job) -> None:
        text = job.text[: job.sampling.max_tokens]
        self._open[job.request] = (text, 0)
        self._ends[job.request] = "stop" if text == job.text else "length"

    def cancel(self, request: str) -> None:
        if request in self._open:
            self._unwanted.add(request)

    def step(self) -> Sequence[Piece]:
        return [self._next(request, text, at) for request, (text, at) in list(self._open.items())]

    def _next(self, request: str, text: str, at: int) -> Piece:
        if at < len(text) and request not in self._unwanted:
            self._open[request] = (text, at + 1)
            return Piece(request, text[at])
        finish: Finish = "cancelled" if request in self._unwanted else self._ends[request]
        self._unwanted.discard(request)
        del self._open[request], self._ends[request]
        return Piece(request, "", Finished(finish=finish, usage=Usage(completion_tokens=at)))
