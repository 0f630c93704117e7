"""`roost release goldens`: golden prompts to start from, and whether a model that runs here answers them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from bus import subjects
from bus.contract import Bus
from schemas.ask import Answer, Ask, Refusal
from schemas.errors import ConfigError
from schemas.model import GoldenAnswer
from schemas.release import Golden
from updater.golden import judge
from updater.publish import terminal
from updater.publish.goldens import START, read_goldens
from updater.publish.running import Running

FLOAT_BYTES = 4
"""Of an embedding's number."""


class Tried(Struct, frozen=True):
    """One prompt; `wrong` is empty when the answer would do."""

    prompt: str
    answer: str
    wrong: str


@click.command()
@click.argument("file", required=False, type=terminal.file)
@click.option("--ask", "model", help="Ask this model of the running Roost the prompts in FILE, at temperature 0.")
@terminal.as_json
@click.pass_context
def goldens(context: click.Context, file: Path | None, model: str | None, as_json: bool) -> int:
    """Print golden prompts to start from, with a comment that explains every field; or try those in FILE.

    \b
    Examples:
      roost release goldens > goldens.yaml
      roost release goldens goldens.yaml
      roost release goldens goldens.yaml --ask text-generation
    """
    if file is None:
        if model is not None:
            raise click.UsageError("name the FILE of prompts to ask")
        click.echo(START, nl=False)
        return 0
    prompts = read_goldens(file)
    if model is None:
        click.echo(f"{file} has {len(prompts)} golden prompts")
        return 0
    tried = asyncio.run(_ask_all(context.obj, model, prompts))
    if as_json:
        terminal.show_json(tried)
    else:
        rows = [(row.prompt[:40], row.wrong or "good", "" if row.wrong else repr(row.answer[:40])) for row in tried]
        click.echo(terminal.table(rows, ("PROMPT", "VERDICT", "ANSWER")))
    return 1 if any(row.wrong for row in tried) else 0


async def _ask_all(running: object, model: str, prompts: tuple[Golden, ...]) -> list[Tried]:
    if not isinstance(running, Running):
        raise ConfigError("no Roost is configured here")
    async with running.bus() as bus:
        return [await _ask(bus, model, golden) for golden in prompts]


async def _ask(bus: Bus, model: str, golden: Golden) -> Tried:
    """Ask as an updater's worker would."""
    embedding = golden.kind == "embedding"
    question = Ask(
        text="" if embedding else golden.prompt,
        inputs=[golden.prompt] if embedding else [],
        kind=golden.kind,
        model=model,
        system=golden.system or None,
        max_tokens=None if embedding else golden.max_tokens,
        temperature=None if embedding else 0.0,
    )
    data = await bus.request(subjects.ASK, msgspec.json.encode(question), bus.config.limits.answer_timeout_s)
    answer = _answer(data)
    return Tried(golden.prompt, answer.text, judge((golden,), (answer,)))


def _answer(data: bytes) -> GoldenAnswer:
    try:
        said = msgspec.json.decode(data, type=Answer)
    except msgspec.ValidationError:
        return GoldenAnswer(error=msgspec.json.decode(data, type=Refusal).error.message)
    if isinstance(said.error, Struct):
        return GoldenAnswer(error=said.error.message)
    return GoldenAnswer(
        text=said.text if isinstance(said.text, str) else "",
        finish=said.finish if isinstance(said.finish, str) else "",
        dimensions=len(said.embeddings[0]) // FLOAT_BYTES if said.embeddings else 0,
    )
