"""`roost chat`: the terminal as a client of the bus, one question or a conversation."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from ops.commands import Place, as_json, pass_place, show_json, wait_for
from schemas.errors import ConfigError, RoostError
from schemas.message import Delta

if TYPE_CHECKING:
    from bus.client import Bus
    from ops.ask import Answer, Question

HELP = """\
/new begins a new conversation, /quit or Ctrl-D leaves, Ctrl-C stops an answer
/model NAME takes a model from here on, /model auto leaves the choice to Roost again
/model NAME TEXT, /code TEXT, /image TEXT, /chat TEXT and /long TEXT choose for one message (where no model is taken)"""


class Printer:
    """Shows an answer as it comes, each character once; the queue's place, and how far a picture is, on a line of its
    own that vanishes."""

    def __init__(self, out: TextIO, notes: TextIO) -> None:
        self.out, self.notes = out, notes
        self.shown = 0
        self.attempt = 1
        self._waiting = False

    def delta(self, delta: Delta) -> None:
        if delta.state == "queued" and delta.place:
            self._passing(f"waiting, number {delta.place} in the queue")
        elif delta.progress is not None:
            self._passing(f"drawing, step {delta.progress.step} of {delta.progress.steps}")
        if not delta.text:
            return
        self._arrived()
        if delta.attempt > self.attempt:
            self.attempt = delta.attempt
            if self.shown:
                self.out.write("\n")
                self.notes.write("(the worker was restarted and begins anew)\n")
                self.shown = 0
        if delta.at <= self.shown:  # a gap is left to the final answer, which is whole
            self._write(delta.text[self.shown - delta.at :])

    def answer(self, answer: Answer) -> None:
        self._arrived()
        self._write(answer.text[self.shown :])
        if answer.text or not answer.attachments:
            self.out.write("\n")
        self.out.flush()
        for note in answer.notes:
            self.notes.write(f"({note})\n")
        if answer.finish in ("cancelled", "length"):
            self.notes.write("(stopped)\n" if answer.finish == "cancelled" else "(cut off at max_tokens)\n")

    def _passing(self, text: str) -> None:
        if self.notes.isatty():
            self.notes.write(f"\r\x1b[K{text}")
            self.notes.flush()
            self._waiting = True

    def _arrived(self) -> None:
        if self._waiting:
            self.notes.write("\r\x1b[K")
            self.notes.flush()
            self._waiting = False

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()
        self.shown += len(text)


async def follow(question: Question, printer: Printer | None) -> Answer:
    """Wait for the whole answer, showing it as it comes; Ctrl-C stops it, a second one leaves."""
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def interrupted() -> None:
        if stopping:
            loop.remove_signal_handler(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        stopping.append(loop.create_task(question.cancel()))

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        async for news in question:
            if isinstance(news, Delta):
                if printer:
                    printer.delta(news)
            else:
                if printer:
                    printer.answer(news)
                return news
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        await asyncio.gather(*stopping, return_exceptions=True)
    raise AssertionError("a question always ends with an answer or an error")


def prepared(folder: Path) -> None:
    """Make the folder for pictures before anything is asked; raises `ConfigError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror or error}; choose another folder") from None


async def save(bus: Bus, answer: Answer, folder: Path, told: TextIO) -> None:
    """Save the pictures of an answer, and tell their paths."""
    from ops.pictures import fetched, saved

    for picture in answer.attachments:
        print(saved(await fetched(bus, picture), picture.name, folder), file=told)


@click.command()
@click.argument("question", required=False)
@click.option("--conversation", "-c", default="", help="Go on with this conversation (any text names one).")
@click.option("--model", "-m", default="", help="The model to ask.  [default: the configured one]")
@click.option("--system", default=None, help="A system prompt for this conversation.")
@click.option("--max-tokens", type=click.IntRange(1), default=None, help="At most so many tokens in an answer.")
@click.option(
    "--out",
    default=None,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for pictures; with --json they are saved only where it is given.  [default: the current one]",
)
@as_json
@pass_place
def chat(
    place: Place,
    question: str | None,
    conversation: str,
    model: str,
    system: str | None,
    max_tokens: int | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Talk to a model. With QUESTION: ask once, print the answer, end. `-` or a pipe: the question is read there.

    Where no model is named, Roost chooses one, and a question may begin with a command such as /code or /image.
    Pictures are saved as new files, and their paths printed.

    \b
    Examples:
      roost chat
      roost chat "Why is the sky blue?"
      roost chat "Count to ten" --model text-generation --json
      git diff | roost chat
      roost chat "/image a red boat under a yellow sun" --out pictures
    """
    fields = {"model": model, "system": system, "max_tokens": max_tokens}

    async def ask(text: str) -> Answer:
        from ops.ask import Question

        printer = None if as_json else Printer(sys.stdout, sys.stderr)
        async with place.bus() as bus:
            answer = await follow(Question(bus, text, conversation=conversation, **fields), printer)
            if out is not None or not as_json:
                await save(bus, answer, out or Path(), sys.stderr if as_json else sys.stdout)
            return answer

    if out is not None:
        prepared(out)
    if question == "-" or (question is None and not sys.stdin.isatty()):
        question = sys.stdin.read()
    if question is not None:
        answer = wait_for(ask(question))
        if as_json:
            show_json(answer)
        return 0

    import readline  # noqa: F401  gives `input` a history and line editing

    conversation = conversation or f"terminal-{secrets.token_hex(8)}"
    click.echo(HELP, err=True)
    while True:
        try:
            line = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            click.echo("", err=True)
            return 0
        command, _, argument = line.partition(" ")
        if command in ("/quit", "/exit"):
            return 0
        if command == "/new":
            conversation = f"terminal-{secrets.token_hex(8)}"
        elif command == "/model" and len(argument.split()) == 1:
            fields["model"] = argument.strip()
        elif command.startswith("/") and command[1:].isalpha() and len(line.split()) == 1:
            click.echo(HELP, err=True)
        elif line:
            try:
                wait_for(ask(line))
            except RoostError as error:
                click.echo(f"roost: {error.message}", err=True)
            except KeyboardInterrupt:
                click.echo("", err=True)
