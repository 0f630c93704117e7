"""Measures the settings with which a model is fastest here: `python -m workers.llama.fitting.tune --data DIR`.

The model's entry of the configuration comes as JSON on standard input; each line of standard output is a JSON object:
`trial` (progress), then `result` or `error`. `roost tune` is the command for people. What always holds: what the
operator named is not varied; a setting is changed only for a gain that is larger than the noise; the record is written
last and whole, so that a run that was stopped has changed nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import msgspec
import psutil
from msgspec import Struct
from msgspec.structs import replace

from schemas.config import ModelConfig, settings_of
from schemas.errors import ConfigError, RoostError
from workers.host import machine
from workers.llama.fitting import file, sizes, tuned
from workers.llama.fitting.plan import Plan, plan
from workers.llama.fitting.rig import Options, Pace, Weights, first_pace, length_for, pairs
from workers.llama.native import build
from workers.llama.native.native import LoadFailed
from workers.llama.settings import LlamaSettings

PAIRS: Final = 5
PAIRS_MIN: Final = 3
BUDGET_S: Final = 150.0
OVER: Final = 1.15
"""Beyond this times the budget no comparison begins, and one that has begun is cut short."""
RUN_S_MIN: Final = 0.25
GAIN_MIN: Final = 0.03
"""A smaller gain is not worth another setting than the usual one."""
ROWS: Final = 8
BATCHES: Final = (128, 256, 1024)
BUSY_CORES: Final = 0.5
"""When other programs compute more than this, a thread fewer looks faster than it will be."""
LOOK_S: Final = 1.0
EXIT_CONFIG: Final = 78
INTERRUPTED: Final = 130

Say = Callable[[dict[str, object]], None]


class Question(Struct, frozen=True):
    """A setting, and other values of it to try."""

    setting: str
    values: tuple[Any, ...]


def thread_counts(usual: int, logical: int) -> tuple[int, ...]:
    """Numbers of threads worth trying beside the usual one, the most first."""
    return tuple(sorted({logical, max(usual - 1, 1), max(usual // 2, 1)} - {usual}, reverse=True))


def questions(stands: Plan, fixed: object, threads: Sequence[int], *, copies: bool, blocks: bool) -> list[Question]:
    """What to measure, the weightiest first; nothing that `fixed`, the operator's settings, names.

    `copies`: some weights can be repacked; `blocks`: the cells can be q8_0.
    """
    every = [
        (copies, Question("repack", (not stands.repack,))),
        (True, Question("threads", tuple(threads))),
        (stands.flash is None, Question("flash", (False,))),
        (blocks, Question("kv_type", ("q8_0" if stands.kv_type != "q8_0" else "f16",))),
        (True, Question("batch", tuple(b for b in BATCHES if b != stands.batch))),
    ]
    return [q for possible, q in every if possible and q.values and getattr(fixed, q.setting, None) is None]


def judge(setting: str, stood: object, tried: object, pairs: Sequence[tuple[Pace, Pace]]) -> tuned.Compared:
    """Compare runs in turn, each pair within seconds: the median gain of a usual turn, and whether it is real."""
    gains = [before.turn_s / after.turn_s - 1 for before, after in pairs]
    low, _, high = quantiles(gains, n=4) if len(gains) > 1 else (gains[0], gains[0], gains[0])
    gain = median(gains)
    return tuned.Compared(
        setting=setting,
        stood=shown(stood),
        tried=shown(tried),
        gain=gain,
        spread=high - low,
        taken=gain >= GAIN_MIN and low > 0,
    )


class Round:
    """The questions answered one after the other, each beginning with what the earlier ones chose."""

    def __init__(
        self, path: Path, made: Plan, say: Say, budget_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._weights = Weights(path, made)
        self._rows = min(ROWS, made.sequences)
        self._say = say
        self._budget_s = budget_s
        self._clock = clock
        self.stands = Options(
            threads=made.threads, batch=made.batch, kv_type=made.kv_type, repack=made.repack, flash=made.flash
        )
        self.compared: list[tuned.Compared] = []
        self._done = self._trials = 0
        self._ends = clock() + OVER * budget_s

    def run(self, asked: Sequence[Question]) -> tuple[tuned.Compared, ...]:
        """Measure all; `pace` is then that of the settings chosen."""
        self._trials = PAIRS * sum(len(q.values) for q in asked)
        self.pace = first_pace(self._weights, self.stands, self._rows)
        self._length = length_for(self.pace, self._rows, max(self._budget_s / max(2 * self._trials, 1), RUN_S_MIN))
        for question in asked:
            for value in question.values:
                if self._clock() > self._ends:
                    told = f"the time is up; not measured: {question.setting} {shown(value)}"
                    self._say({"event": "warning", "message": told})
                else:
                    self._try(question.setting, value)
            if question.setting == "repack":
                self._weights.drop(not self.stands.repack)
        return tuple(self.compared)

    def _try(self, setting: str, value: object) -> None:
        other = replace(self.stands, **{setting: value})
        if other.flash is False and other.kv_type == "q8_0":
            self._done += PAIRS  # llama.cpp has no such thing
            return
        found = []
        for pair in pairs(self._weights, self.stands, other, self._rows, self._length, PAIRS):
            found.append(pair)
            self._done += 1
            gain = round(pair[0].turn_s / pair[1].turn_s - 1, 3)
            what = f"{setting} {shown(value)}"
            self._say({"event": "trial", "what": what, "done": self._done, "of": self._trials, "gain": gain})
            if len(found) >= PAIRS_MIN and self._clock() > self._ends:
                break
        verdict = judge(setting, getattr(self.stands, setting), value, found)
        self.compared.append(verdict)
        if verdict.taken:
            self.stands = other
        chosen = [pair[int(verdict.taken)] for pair in found]
        self.pace = Pace(median(p.prompt for p in chosen), median(p.answer for p in chosen))

    def close(self) -> None:
        self._weights.close()


def measure(
    path: Path, made: Plan, asked: Sequence[Question], say: Say, budget_s: float, key: tuned.Key
) -> tuned.Tuned:
    """The record of a whole round."""
    turn = Round(path, made, say, budget_s)
    try:
        compared = turn.run(asked)
    finally:
        turn.close()
    return tuned.Tuned(
        key=key,
        at=time.time(),
        chosen=tuned.Chosen(**{c.setting: getattr(turn.stands, c.setting) for c in compared}),
        gain=prod(1 + c.gain for c in compared if c.taken) - 1,
        prompt_per_s=turn.pace.prompt,
        answer_per_s=turn.pace.answer,
        compared=compared,
    )


def shown(value: object) -> str:
    """A setting's value as `config.yaml` would have it."""
    return str(value).lower() if isinstance(value, bool) else "auto" if value is None else str(value)


def tune(model: ModelConfig, data: Path, say: Say, *, dry: bool, budget_s: float) -> dict[str, object]:
    """Measure one model and keep the result (not with `dry`); returns it as plain data."""
    if model.type != "llama":
        raise ConfigError(f"model {model.name!r} is of type {model.type}; only models of type llama can be tuned")
    settings = settings_of(LlamaSettings, model.settings, f"models ({model.name})")
    path = file.model_file(Path(model.path) if model.path else None)
    header = file.header(path)
    here, built = machine.look(), build.look()
    site = build.site(built, here)
    made = plan(header, replace(settings, context=1024, cache=4096), model.slots or ROWS, site=site)
    sized = sizes.sizes(header, site.instructions, repack=site.repacks)
    twice = made.demand.total + sized.copied
    if made.demand.least > here.memory.free:
        raise ConfigError(
            f"{path}: measuring needs {made.demand.least / 1e6:.0f} MB and {here.memory.free / 1e6:.0f} MB are free; "
            "stop Roost or other programs first"
        )
    others = psutil.cpu_percent(LOOK_S) / 100 * (psutil.cpu_count() or 1)
    if others > BUSY_CORES:
        told = f"other programs compute on {others:.1f} cores: threads are not measured, and all figures are rough"
        say({"event": "warning", "message": told})
        if settings.threads is None:  # all threads of a step wait for the one that shares its core
            made = replace(made, threads=max(made.threads - round(others), 1))
    asked = questions(
        made,
        settings,
        () if others > BUSY_CORES else thread_counts(site.threads, here.cpu.allowed),
        copies=sized.copied > 0 and twice < here.memory.free,
        blocks=sized.quantises,
    )
    key = tuned.Key(file=file.version(path), machine=tuned.fingerprint(here), build=built.digest)
    found = measure(path, made, asked, say, budget_s, key)
    saved = None if dry else tuned.save(data, model.name, found)
    return {"event": "result", "saved": str(saved or ""), **msgspec.to_builtins(found)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; see the module's description."""
    program = "python -m workers.llama.fitting.tune"
    parser = ArgumentParser(prog=program, description="Measure one model's best settings.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S)
    given = parser.parse_args(arguments)

    def say(line: dict[str, object]) -> None:
        print(msgspec.json.encode(line).decode(), flush=True)

    # Not by an exception: one that is raised while llama.cpp calls Python to log something is lost.
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        model = msgspec.json.decode(sys.stdin.buffer.read(), type=ModelConfig)
        say(tune(model, given.data, say, dry=given.dry_run, budget_s=given.budget_s))
    except msgspec.MsgspecError as error:
        say({"event": "error", "message": f"standard input holds no model: {error}", "code": EXIT_CONFIG})
        return EXIT_CONFIG
    except RoostError as error:
        code = EXIT_CONFIG if isinstance(error, ConfigError) else 1
        say({"event": "error", "message": error.message, "code": code})
        return code
    except LoadFailed as error:
        say({"event": "error", "message": f"{model.name}: {error}", "code": EXIT_CONFIG})
        return EXIT_CONFIG
    except ImportError as error:
        say({"event": "error", "message": f"no llama.cpp ({error.name}); run `make up`", "code": EXIT_CONFIG})
        return EXIT_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
