"""A model under measurement: how fast it computes a prompt, and answers of several conversations at once.

It decodes as the engine does, through the same machine, and chooses no tokens. What always holds: everything that was
loaded is freed by `close`; two rigs of one model share its weights.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from msgspec import Struct

from workers.llama.engine.machine import Row
from workers.llama.fitting.plan import Plan
from workers.llama.native.native import ContextSpec, NativeMachine, NativeModel

TURN_PROMPT: Final = 200
TURN_ANSWER: Final = 100
"""Tokens of a usual turn: what is new in the prompt, and the answer."""
STEPS_MIN: Final = 4
STEPS_MAX: Final = 32
PROMPT_MIN: Final = 64
PROMPT_MAX: Final = 1_024
PROMPT_SHARE: Final = 0.6
"""Of a run's time, for the prompt; the rest for answers."""


class Options(Struct, frozen=True, kw_only=True):
    """How a model is loaded and computed."""

    threads: int
    batch: int
    kv_type: str
    repack: bool
    flash: bool | None


class Pace(Struct, frozen=True):
    """Tokens a second of a prompt alone, and of all answers together."""

    prompt: float
    answer: float

    @property
    def turn_s(self) -> float:
        """Seconds that a usual turn costs."""
        return TURN_PROMPT / self.prompt + TURN_ANSWER / self.answer


class Length(Struct, frozen=True):
    """How much one run computes."""

    prompt: int
    steps: int


FIRST: Final = Length(PROMPT_MIN, STEPS_MIN)


class Weights:
    """The model's weights, loaded once for each way of keeping them."""

    def __init__(self, path: Path, made: Plan) -> None:
        """`made`: on which cards how many layers lie, and whether the file is mapped."""
        self._path = path
        self._plan = made
        self._models: dict[bool, NativeModel] = {}

    def of(self, repack: bool) -> NativeModel:
        if repack not in self._models:
            made = self._plan
            self._models[repack] = NativeModel(
                self._path, gpu_layers=made.gpu_layers, mmap=made.mmap, repack=repack, devices=made.devices
            )
        return self._models[repack]

    def drop(self, repack: bool) -> None:
        model = self._models.pop(repack, None)
        if model is not None:
            model.close()

    def close(self) -> None:
        for repack in list(self._models):
            self.drop(repack)


class Rig:
    """One context of the model. Call `run` as often as wanted."""

    def __init__(self, weights: Weights, options: Options, rows: int, longest: Length) -> None:
        model = weights.of(options.repack)
        cells = longest.prompt + rows * (longest.steps + 1) + 256
        self._rows = rows
        self._machine = NativeMachine(
            model,
            ContextSpec(
                cells=cells,
                sequences=rows,
                batch_max=options.batch,
                threads=options.threads,
                kv_type=options.kv_type,
                flash=options.flash,
            ),
        )
        pick = random.Random(7)  # noqa: S311  which tokens they are does not matter, only that they are the same
        self._tokens = array("i", (pick.randrange(model.vocabulary) for _ in range(longest.prompt + longest.steps)))

    def run(self, length: Length, clock: Callable[[], float] = time.perf_counter) -> Pace:
        """Compute a prompt in full batches, then so many steps of all conversations, which share it."""
        machine, tokens = self._machine, self._tokens
        begun = clock()
        for at in range(0, length.prompt, machine.batch_max):
            end = min(at + machine.batch_max, length.prompt)
            machine.compute([Row(0, at, tokens[at:end], int(end == length.prompt))])
        prompted = clock()
        for row in range(1, self._rows):
            machine.copy(0, row, length.prompt)
        prepared = clock()
        for n in range(length.steps):
            at = length.prompt + n
            machine.compute([Row(row, at, tokens[at : at + 1], 1) for row in range(self._rows)])
        ended = clock()
        for row in range(self._rows):
            machine.cut(row, 0)
        return Pace(length.prompt / (prompted - begun), self._rows * length.steps / (ended - prepared))

    def close(self) -> None:
        self._machine.close()


def first_pace(weights: Weights, options: Options, rows: int) -> Pace:
    """Read the weights in, and learn about how fast it is."""
    rig = Rig(weights, options, rows, FIRST)
    try:
        rig.run(FIRST)
        return rig.run(FIRST)
    finally:
        rig.close()


def pairs(
    weights: Weights, one: Options, other: Options, rows: int, length: Length, count: int
) -> Iterator[tuple[Pace, Pace]]:
    """`count` runs of both in turn, in changing order, after a short one of each that does not count."""
    with ExitStack() as stack:
        rigs = []
        for options in (one, other):
            rigs.append(Rig(weights, options, rows, length))
            stack.callback(rigs[-1].close)
            rigs[-1].run(FIRST)
        first, second = rigs
        for n in range(count):
            if n % 2:
                after, before = second.run(length), first.run(length)
            else:
                before, after = first.run(length), second.run(length)
            yield before, after


def length_for(pace: Pace, rows: int, run_s: float) -> Length:
    """How much to compute so that one run takes about `run_s`."""
    prompt = int(PROMPT_SHARE * run_s * pace.prompt)
    steps = int((1 - PROMPT_SHARE) * run_s * pace.answer / rows)
    return Length(min(max(prompt, PROMPT_MIN), PROMPT_MAX), min(max(steps, STEPS_MIN), STEPS_MAX))
