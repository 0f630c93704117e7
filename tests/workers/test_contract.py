"""The contract suite over every registered backend and the example plug-ins, and over backends that break one rule."""

from __future__ import annotations

import importlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from schemas.errors import ConfigError
from schemas.message import Finish, Sampling, Usage
from schemas.picture import Drawing
from tests.conftest import ROOT
from tests.tools import brittle
from workers import Backend, BackendSettings, BatchBackend, Finished, Job, Piece
from workers.diffusion import DiffusionBackend
from workers.echo import EchoBackend
from workers.host.contract import RULES, BackendCase, Broken, Rule, broken
from workers.host.registry import GROUP
from workers.llama import LlamaBackend

EXAMPLE = ROOT / "docs" / "examples" / "faq_backend"
LIBRARY = ("How many books may I borrow?", "When does the library open?", "Where is the library?")
QUESTIONS = ("Name a colour of the rainbow. 🐔", "How many legs has a spider?")
QUIET = {"context": 256, "cache": 256, "batch": 32, "threads": 1}
"""So small that llama.cpp computes the same in every batch; see tests/workers/llama/test_backend.py."""


def example(name: str) -> Callable[[pytest.FixtureRequest], Any]:
    def backend(request: pytest.FixtureRequest) -> Any:
        request.getfixturevalue("monkeypatch").syspath_prepend(str(EXAMPLE))
        return getattr(importlib.import_module("roost_faq"), name)

    return backend


CASES: dict[str, Callable[[pytest.FixtureRequest], BackendCase]] = {
    "echo": lambda _: BackendCase(EchoBackend),
    "echo, slow": lambda _: BackendCase(EchoBackend, settings={"delay_ms": 1, "delay_token_ms": 1}),
    "echo, with a file": lambda request: BackendCase(
        EchoBackend, path=brittle.release(request.getfixturevalue("tmp_path"), "~1")
    ),
    "llama": lambda request: BackendCase(
        LlamaBackend,
        settings=QUIET,
        path=request.getfixturevalue("starter_model"),
        slots=2,
        prompts=QUESTIONS,
        sampling=Sampling(seed=7, temperature=0, max_tokens=5),
        max_tokens=2,
        honours_stop=True,
        cancel_s=10.0,
    ),
    "diffusion": lambda request: BackendCase(
        DiffusionBackend,
        settings={"resolution": "64x64", "batch": 1, "threads": 1, "precision": "float32"},
        path=request.getfixturevalue("tiny_pipeline"),
        slots=2,
        drawing=Drawing(steps=4),
        cancel_s=10.0,
    ),
    "faq": lambda request: BackendCase(example("FaqBackend")(request), path=EXAMPLE / "faq.txt", prompts=LIBRARY),
    "spell": lambda request: BackendCase(example("SpellBackend")(request)),
}
KNOWN: dict[tuple[str, str], str] = {}
"""Rules that a plug-in of ours breaks, and why; each is a strict xfail until it is mended."""


def case_of(name: str, rule: Rule) -> Any:
    reason = KNOWN.get((name, rule.name))
    marks = [pytest.mark.xfail(strict=True, raises=Broken, reason=reason)] if reason else []
    return pytest.param(name, rule, id=f"{name}-{rule}", marks=marks)


@pytest.mark.parametrize(("name", "rule"), [case_of(name, rule) for name in CASES for rule in RULES])
def test_every_backend_keeps_the_contract(name: str, rule: Rule, request: pytest.FixtureRequest) -> None:
    rule.check(CASES[name](request))


def test_every_registered_backend_has_a_case() -> None:
    assert {point.name for point in entry_points(group=GROUP)} - set(CASES) == set()


def test_every_rule_says_what_it_wants() -> None:
    assert [rule.name for rule in RULES if not rule.says.endswith(".")] == []


def test_the_lines_of_the_guide_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.chdir(EXAMPLE)
    guide = (ROOT / "docs" / "write-a-backend.md").read_text()
    names: dict[str, Any] = {}
    exec(guide.partition("```py\n")[2].partition("```\n")[0], names)
    wrong = {rule for name, rule in KNOWN if name == "faq"}
    assert {sentence.split(": ")[1] for sentence in broken(names["CASE"])} == wrong
    names["test_it_keeps_the_contract"](RULES[0])


# -- two good ones, and what can go wrong with them -----------------------------------------------------------


class Words(Backend):
    """A good plain backend: the words of the text; its file holds the word `model`."""

    slots = 3
    version = "words-1"

    def load(self, path: Path | None) -> None:
        if path is not None and (not path.is_file() or b"model" not in path.read_bytes()[:5]):
            raise ConfigError(f"{path}: not a file of words")

    def words(self, job: Job) -> list[str]:
        return [word + " " for word in job.text.split(" ")]

    def generate(self, job: Job) -> Iterator[str | Finished]:
        words = self.words(job)
        limit = len(words) if job.sampling.max_tokens is None else job.sampling.max_tokens
        yield from words[:limit]
        finish: Finish = "stop" if limit >= len(words) else "length"
        yield Finished(finish=finish, usage=Usage(completion_tokens=min(limit, len(words))))


class Letters(BatchBackend):
    """A good batch backend: a letter of each job in each step."""

    slots = 3
    version = "letters-1"

    def __init__(self, settings: BackendSettings, slots: int | None = None) -> None:
        super().__init__(settings, slots)
        self.open: dict[str, Job] = {}
        self.at: dict[str, int] = {}
        self.unwanted: set[str] = set()

    def add(self, job: Job) -> None:
        self.open[job.request] = job
        self.at[job.request] = 0

    def cancel(self, request: str) -> None:
        if request in self.open:
            self.unwanted.add(request)

    def step(self) -> Sequence[Piece]:
        return [self.next(request) for request in list(self.open)]

    def next(self, request: str) -> Piece:
        text, limit, at = self.open[request].text, self.open[request].sampling.max_tokens, self.at[request]
        cut = limit is not None and at >= limit
        if at < len(text) and not cut and request not in self.unwanted:
            self.at[request] += 1
            return Piece(request, text[at])
        return self.end(request, "cancelled" if request in self.unwanted else "length" if cut else "stop")

    def end(self, request: str, finish: Finish) -> Piece:
        del self.open[request]
        self.unwanted.discard(request)
        return Piece(request, "", Finished(finish=finish, usage=Usage(completion_tokens=self.at[request])))


class Loose(Words):
    class Settings(Struct):  # type: ignore[assignment]
        pass


class Hidden(Words):
    class Settings(BackendSettings, frozen=True):
        path: str = ""


class Careless(Words):
    def load(self, path: Path | None) -> None:
        if path is not None:
            path.read_text()


class Nameless(Words):
    def load(self, path: Path | None) -> None:
        if path is not None and path.suffix != ".model":
            raise ConfigError("not a file of words")


class Anonymous(Words):
    version = ""


class TwoEnds(Letters):
    def end(self, request: str, finish: Finish) -> Piece:
        if request in self.unwanted or self.at[request] < 0:
            return super().end(request, finish)
        self.at[request] = -1  # the next step ends it again
        return Piece(request, "", Finished(finish=finish))


class Talkative(Words):
    def generate(self, job: Job) -> Iterator[str | Finished]:
        yield from super().generate(job)
        yield "and another thing"


class NoEnd(Letters):
    def end(self, request: str, finish: Finish) -> Piece:
        return Piece(request)


class HalfCharacters(Words):
    def words(self, job: Job) -> list[str]:
        return [bytes((byte,)).decode("utf-8", "replace") for byte in job.text.encode()]


class Surrogates(Words):
    def words(self, job: Job) -> list[str]:
        units = job.text.encode("utf-16-le")
        return [units[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2)]


class Moody(Words):
    def words(self, job: Job) -> list[str]:
        return [*super().words(job), random.SystemRandom().choice("abcdefgh") * random.SystemRandom().randint(1, 99)]


class Endless(Words):
    def generate(self, job: Job) -> Iterator[str | Finished]:
        words = self.words(job)
        yield from words
        yield Finished(usage=Usage(completion_tokens=len(words)))


class Cut(Words):
    def generate(self, job: Job) -> Iterator[str | Finished]:
        for item in super().generate(job):
            yield Finished(usage=item.usage) if isinstance(item, Finished) else item


class Uncounted(Words):
    def generate(self, job: Job) -> Iterator[str | Finished]:
        for item in super().generate(job):
            yield Finished(usage=Usage(prompt_tokens=3)) if isinstance(item, Finished) else item


class Negative(Words):
    def generate(self, job: Job) -> Iterator[str | Finished]:
        for item in super().generate(job):
            yield Finished(finish=item.finish, usage=Usage(-1, 1)) if isinstance(item, Finished) else item


class Mixed(Letters):
    """One text for all."""

    def add(self, job: Job) -> None:
        super().add(job)
        self.open = dict.fromkeys(self.open, job)


class Deaf(Letters):
    def cancel(self, request: str) -> None:
        pass


class Slow(Words):
    """Does not look at `job.cancelled` while a piece takes long."""

    def generate(self, job: Job) -> Iterator[str | Finished]:
        for item in super().generate(job):
            if job.cancelled is not None and job.cancelled.is_set():
                threading.Event().wait(1.0)
            yield item


class CancelsAll(Letters):
    def cancel(self, request: str) -> None:
        self.unwanted.update(self.open)


class Startled(Letters):
    def cancel(self, request: str) -> None:
        self.unwanted.add(self.open[request].request)


class Picky(Words):
    def words(self, job: Job) -> list[str]:
        if not job.text[0].isprintable():
            raise ValueError(job.text)
        return super().words(job)


class Hoarder(Words):
    kept: list[bytes] = []

    def load(self, path: Path | None) -> None:
        self.kept.append(b"x" * (96 << 20))  # far above what other tests free meanwhile


class LeavesThread(Words):
    stop = threading.Event()

    def load(self, path: Path | None) -> None:
        threading.Thread(target=self.stop.wait, args=(20,), name="left", daemon=True).start()


class CannotClose(Words):
    def close(self) -> None:
        raise OSError("still in use")


FILE = "the model's file"
CLOSE = "close_ends_what_is_running_and_gives_back_everything"
SETTINGS = "settings_refuse_what_they_do_not_know"
BAD: list[tuple[type[Backend], str, str, dict[str, Any]]] = [
    (Loose, SETTINGS, "do not derive from BackendSettings", {}),
    (Hidden, SETTINGS, "'path' never arrives", {}),
    (Careless, "a_file_it_cannot_load_is_refused_by_name", "a missing file raised FileNotFoundError", {"path": FILE}),
    (Nameless, "a_file_it_cannot_load_is_refused_by_name", "does not name it", {"path": FILE}),
    (Anonymous, "it_says_what_it_is", "nobody could tell which model", {}),
    (TwoEnds, "every_job_ends_once", " times `finished`", {}),
    (Talkative, "every_job_ends_once", "went on after its `finished`", {}),
    (NoEnd, "every_job_ends_once", "no `finished` came within", {"answer_s": 0.3}),
    (HalfCharacters, "characters_are_whole", "a character was cut", {}),
    (Surrogates, "characters_are_whole", "half of a character", {}),
    (Moody, "the_same_job_gives_the_same_answer", "when computed again", {}),
    (Endless, "max_tokens_is_kept", "max_tokens=3 brought 10 tokens", {}),
    (Cut, "max_tokens_is_kept", "say 'length'", {}),
    (Uncounted, "usage_adds_up", "counts no completion_tokens", {}),
    (Negative, "usage_adds_up", "less than nothing", {}),
    (Words, "stop_strings_are_left_out", "is in its answer", {"honours_stop": True}),
    (Mixed, "jobs_at_once_are_not_mixed", "among others", {}),
    (Deaf, "cancel_ends_a_running_job", "a cancel ends it in one", {}),
    (Deaf, "cancel_ends_a_job_that_has_not_begun", "still says", {}),
    (Slow, "cancel_ends_a_running_job", "has not ended after", {"cancel_s": 0.2}),
    (CancelsAll, "cancel_leaves_the_others_alone", "while another job is cancelled", {}),
    (Startled, "cancel_leaves_the_others_alone", "KeyError", {}),
    (Picky, "odd_jobs_harm_nobody", "an empty text made it fail", {}),
    (Hoarder, CLOSE, "each load and close keeps about", {}),
    (LeavesThread, CLOSE, "the thread 'left'", {}),
    (CannotClose, CLOSE, "close() raised OSError", {}),
]


@pytest.fixture
def model_file(tmp_path: Path) -> Iterator[Path]:
    LeavesThread.stop.clear()
    path = tmp_path / "words.model"
    path.write_text("model of words")
    yield path
    Hoarder.kept.clear()
    LeavesThread.stop.set()


@pytest.mark.parametrize("kind", [Words, Letters])
def test_a_small_good_backend_breaks_nothing(kind: type[Backend], model_file: Path) -> None:
    assert broken(BackendCase(kind, path=model_file if kind is Words else None)) == []


@pytest.mark.parametrize(("kind", "name", "sentence", "more"), BAD, ids=[f"{b[0].__name__}-{b[1]}" for b in BAD])
def test_a_broken_backend_is_told_what_it_does_wrong(
    kind: type[Backend], name: str, sentence: str, more: dict[str, Any], model_file: Path
) -> None:
    case = BackendCase(kind, **{**more, "path": model_file if "path" in more else None})
    with pytest.raises(Broken) as caught:
        next(rule for rule in RULES if rule.name == name).check(case)
    assert str(caught.value).startswith(f"{kind.__name__}: {name}: ")
    assert sentence in str(caught.value)


def test_every_rule_has_a_backend_that_breaks_it() -> None:
    assert {rule.name for rule in RULES} == {name for _, name, _, _ in BAD}
