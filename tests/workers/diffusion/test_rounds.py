"""Requests and rounds on a real painter, with a pipeline that paints one colour: what is computed together, and what
becomes of a round that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from schemas.errors import Retryable
from tests.workers.diffusion.asked import Told, job
from workers import Job
from workers.diffusion import offline
from workers.diffusion.painter import Painter
from workers.diffusion.pipeline import OnStep, Painted, Stroke
from workers.diffusion.preview import Pace
from workers.diffusion.round import Round, Row
from workers.diffusion.rounds import Rounds
from workers.diffusion.threads import Threads
from workers.diffusion.wishes import Key, Wish

offline.libraries()
import torch  # noqa: E402


class OneColour:
    """Paints the seed as a shade of grey, and keeps which pictures were painted together."""

    preview: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.fault: Exception | None = None
        self.unsafe = False

    def paint(self, key: Key, strokes: Sequence[Stroke], on_step: OnStep) -> Painted:
        self.calls.append([stroke.seed for stroke in strokes])
        values = torch.tensor([stroke.seed / 255 for stroke in strokes]).reshape(-1, 1, 1, 1)
        for step in range(key.steps):
            on_step(step + 1, key.steps, values.expand(-1, 4, 8, 8))
            if self.fault is not None:
                raise self.fault
        return Painted(values.expand(-1, 3, key.height, key.width), (self.unsafe,) * len(strokes))


class Studio:
    def __init__(self, batch: int) -> None:
        self.paints = OneColour()
        self.painter = Painter("painter-rounds")

        def made(key: Key, rows: Sequence[Row]) -> Round:
            return Round(key, rows, self.paints, "v", Pace(0.5), Threads(1))

        self.rounds = Rounds(self.painter, made, lambda _key: batch)
        self.told: dict[str, Told] = {}

    def add(self, asked: Job, width: int = 64) -> None:
        key = Key(width, 64, asked.drawing.steps or 2, 7.5, False, "ddim", "", None)
        wish = Wish(
            key=key, prompt=asked.text, negative="", seed=asked.sampling.seed or 0, pictures=asked.sampling.n, tokens=3
        )
        self.told[asked.request] = Told()
        self.rounds.add(asked, wish)

    def run(self, *ended: str) -> None:
        waiting = set(self.told) - set(ended)
        for _ in range(2_000):
            for piece in self.rounds.step():
                assert piece.request in waiting, "a piece after the end"
                if piece.progress is not None:
                    self.told[piece.request].progress.append(piece.progress)
                if piece.finished is not None:
                    self.told[piece.request].finished = piece.finished
                    waiting.remove(piece.request)
            if not waiting:
                return
        raise AssertionError(f"these have not ended: {waiting}")


@pytest.fixture
def studio() -> Iterator[Studio]:
    made = Studio(batch=4)
    yield made
    made.painter.close()


def test_requests_that_agree_are_painted_together_and_each_gets_its_own(studio: Studio) -> None:
    studio.add(job("a", n=3, seed=10))
    studio.add(job("wide", seed=50), width=128)
    studio.add(job("c", seed=30))
    studio.add(job("d", n=2, seed=40))
    studio.run()
    assert studio.paints.calls == [[10, 11, 12, 30], [50], [40, 41]]
    for request, seeds in {"a": [10, 11, 12], "wide": [50], "c": [30], "d": [40, 41]}.items():
        assert [each.drawn.seed for each in studio.told[request].finished.pictures] == seeds


def test_a_request_that_comes_meanwhile_waits_for_the_next_round(studio: Studio) -> None:
    studio.add(job("a", seed=1, steps=5))
    while not studio.paints.calls:
        studio.rounds.step()
    studio.add(job("b", seed=2, steps=5))
    studio.run()
    assert studio.paints.calls == [[1], [2]]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (ValueError("something in the library"), "model_failed"),
        (MemoryError(), "no_memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), "no_memory"),
    ],
)
def test_a_round_that_fails_ends_its_requests_alone(studio: Studio, fault: Exception, code: str) -> None:
    studio.paints.fault = fault
    studio.add(job("a"))
    studio.add(job("b", n=9))
    studio.run()
    for request in "ab":
        error = studio.told[request].finished.error
        assert isinstance(error, Retryable)
        assert error.code == code
    studio.paints.fault = None
    studio.add(job("c"))
    studio.run("a", "b")
    assert len(studio.told["c"].finished.pictures) == 1


def test_what_the_folders_own_safety_checker_refuses_is_an_error(studio: Studio) -> None:
    studio.paints.unsafe = True
    studio.add(job("a"))
    studio.run()
    error = studio.told["a"].finished.error
    assert error is not None
    assert error.code == "unsafe"


def test_a_request_with_many_pictures_that_is_cancelled_between_rounds_computes_no_more(studio: Studio) -> None:
    studio.add(job("a", n=12, steps=1))
    while len(studio.paints.calls) < 2:
        studio.rounds.step()
    studio.rounds.cancel("a")
    studio.rounds.cancel("nobody")
    studio.run()
    assert studio.told["a"].finished.finish == "cancelled"
    studio.add(job("b", seed=9))
    studio.run("a")
    assert len(studio.paints.calls) == 3
