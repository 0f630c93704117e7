"""`roost tune`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from ops.commands import Place, as_json, pass_place, show_json, table
from schemas.config import Config, ModelConfig
from schemas.errors import ConfigError, RoostError

BUDGET_S = 150.0
OVER_S = 600.0
"""Beyond the time asked for: loading a large model from a slow disk, several times."""
LEAVE_S = 10.0
EXIT_CONFIG = 78


@click.command()
@click.argument("model")
@click.option("--dry-run", is_flag=True, help="Measure and show, but keep nothing.")
@click.option("--seconds", default=BUDGET_S, show_default=True, type=click.FloatRange(5, 3_600), help="About how long.")
@as_json
@pass_place
def tune(place: Place, model: str, dry_run: bool, seconds: float, as_json: bool) -> None:
    """Measure the fastest settings of MODEL (of type llama) on this machine, and keep them in the data folder.

    The model uses them from its next start, where config.yaml says nothing else, as long as its file, the machine and
    llama.cpp stay the same. Stop Roost and other programs first: they disturb the measurement. Ctrl-C changes nothing.

    \b
    Examples:
      roost tune text-generation
      roost tune text-generation --dry-run --json
    """
    chosen = _model(place.current(), model)
    program = [sys.executable, "-m", "workers.llama.fitting.tune"]
    command = [*program, "--data", str(place.data), "--budget-s", str(seconds)]
    result: dict[str, Any] = {}
    shown = Progress(quiet=as_json)
    for line in _lines([*command, "--dry-run"] if dry_run else command, msgspec.json.encode(chosen), seconds + OVER_S):
        if line["event"] == "trial":
            shown.trial(line)
        elif line["event"] == "warning":
            shown.say(f"warning: {line['message']}")
        elif line["event"] == "error":
            shown.end()
            raise (ConfigError if line.get("code") == EXIT_CONFIG else RoostError)(str(line["message"]))
        elif line["event"] == "result":
            result = line
    shown.end()
    if not result:
        raise RoostError("the measurement ended without a result; nothing was changed")
    if as_json:
        show_json(result)
    else:
        _print(model, result)


def _model(config: Config, name: str) -> ModelConfig:
    for model in config.models:
        if model.name == name:
            return model
    raise ConfigError(f"there is no model {name!r} in the configuration; there are: {_names(config)}")


def _names(config: Config) -> str:
    return ", ".join(model.name for model in config.models)


class Progress:
    """The trial that runs, on one line of a terminal; elsewhere a line for each question."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._what = ""

    def trial(self, line: dict[str, Any]) -> None:
        if self._quiet:
            return
        told = f"{100 * line['done'] // max(line['of'], 1):3d} %  {line['what']}: {_percent(line['gain'])}"
        if self._terminal:
            click.echo(f"\r\x1b[K{told}", err=True, nl=False)
        elif line["what"] != self._what:
            click.echo(told, err=True)
        self._what = line["what"]

    def say(self, text: str) -> None:
        self.end()
        click.echo(text, err=True)

    def end(self) -> None:
        if self._terminal and self._what:
            click.echo("\r\x1b[K", err=True, nl=False)
        self._what = ""


def _lines(command: list[str], given: bytes, limit_s: float) -> Iterator[dict[str, Any]]:
    """What the measuring program prints, one JSON object a line. It never outlives this generator."""
    with _process(command) as process:
        watch = threading.Timer(limit_s, process.kill)
        watch.daemon = True
        watch.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(given)
            process.stdin.close()
            for line in process.stdout:
                try:
                    found = msgspec.json.decode(line, type=dict[str, Any])
                except msgspec.MsgspecError:
                    continue  # a library's own words
                if "event" in found:
                    yield found
            code = process.wait(LEAVE_S)
        finally:
            watch.cancel()
    if code not in (0, 1, EXIT_CONFIG):
        raise RoostError(f"the measurement ended with {code}; nothing was changed")


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _print(model: str, result: dict[str, Any]) -> None:
    rows = [
        (c["setting"], c["stood"], c["tried"], _percent(c["gain"]), f"±{50 * c['spread']:.0f} %", _verdict(c))
        for c in result["compared"]
    ]
    if rows:
        click.echo(table(rows, ("SETTING", "STOOD", "TRIED", "GAIN", "SPREAD", "")))
    best = ", ".join(f"{k}: {_shown(v)}" for k, v in result["chosen"].items() if v is not None) or "nothing to choose"
    click.echo(f"\nbest for {model}: {best}")
    click.echo(
        f"prompt {result['prompt_per_s']:.0f} tokens/s, answers {result['answer_per_s']:.0f} tokens/s together; "
        f"gained over the usual settings: {_percent(result['gain'])}"
    )
    click.echo(
        f"kept in {result['saved']}; used from the model's next start" if result["saved"] else "nothing was kept"
    )


def _verdict(compared: dict[str, Any]) -> str:
    return "taken" if compared["taken"] else ""


def _percent(gain: float) -> str:
    return f"{100 * gain:+.0f} %"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
