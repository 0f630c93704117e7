"""`roost chat` against a running Roost: as a command of scripts, and at a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from tests.running import RunningRoost

PATIENCE_S = 30.0
CTRL_C, CTRL_D = "\x03", "\x04"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LAUNCH = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "ops.cli", "chat", *sys.argv[1:]])
"""
"""Takes the terminal as its own first, so that Ctrl-C arrives as a signal."""


class Terminal:
    """`roost chat` at a pseudo-terminal: what a person types and sees."""

    def __init__(self, roost: RunningRoost, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, 1_000))  # so wide that no line is wrapped or scrolled
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *arguments],
            env={**roost.environment, "TERM": "dumb"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""
        self._at = 0

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def say(self, text: str) -> None:
        """Type a line and skip its echo."""
        self.type(f"{text}\r")
        self.wait_for(f"{text}\n")

    def wait_for(self, text: str) -> str:
        """What came since the last call, up to and including `text`."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.seen.find(text, self._at)) < 0:
            self._read(deadline, text)
        begin, self._at = self._at, found + len(text)
        return self.seen[begin : self._at]

    def _read(self, deadline: float, wanted: str) -> None:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"waited {PATIENCE_S} s for {wanted!r}; seen: {self.seen!r}"
        try:
            chunk = os.read(self._master, 4096)
        except OSError:  # Linux says so when the other side has closed
            chunk = b""
        assert chunk, f"it ended before {wanted!r}; seen: {self.seen!r}"
        self.seen += ESCAPES.sub("", chunk.decode()).replace("\r\n", "\n")

    def end(self) -> int:
        """Wait until it has ended by itself."""
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(roost: RunningRoost) -> Iterator[Terminal]:
    opened = Terminal(roost, "--model", "slow")
    try:
        opened.wait_for("> ")
        yield opened
    finally:
        opened.close()


def test_one_question_prints_its_answer_and_nothing_else(roost: RunningRoost) -> None:
    done = roost.cli("chat", "hello there", input="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello there\n", "")


def test_one_question_as_json_has_the_whole_answer(roost: RunningRoost) -> None:
    done = roost.cli("chat", "--json", "--model", "slow", "--max-tokens", "2", "one two three", input="")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["text"], answer["finish"]) == (0, "one two", "length")
    assert answer["model"] == "slow"
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["request"]


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_a_question_is_read_from_a_pipe(roost: RunningRoost, arguments: list[str]) -> None:
    done = roost.cli("chat", *arguments, input="a question\nof two lines")
    assert (done.returncode, done.stdout) == (0, "a question\nof two lines\n")


def test_a_conversation_can_be_named_and_goes_on(roost: RunningRoost) -> None:
    def prompt_tokens(text: str) -> int:
        done = roost.cli("chat", "--json", "-c", "named in a terminal", text, input="")
        return int(json.loads(done.stdout)["usage"]["prompt_tokens"])

    assert prompt_tokens("one two") == 2
    assert prompt_tokens("three") == 5


def test_an_unknown_model_is_one_sentence_and_exit_code_1(roost: RunningRoost) -> None:
    done = roost.cli("chat", "--model", "gpt-9", "hello", input="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "roost: there is no model 'gpt-9'; there are: echo, slow, one\n"


def test_an_empty_question_is_refused(roost: RunningRoost) -> None:
    done = roost.cli("chat", input="")
    assert (done.returncode, done.stderr) == (1, "roost: the message is empty\n")


def test_at_a_terminal_answers_stream_and_ctrl_c_stops_one(terminal: Terminal) -> None:
    terminal.say(" ".join(f"w{i}" for i in range(100)))
    terminal.wait_for("w2 ")
    assert "w99" not in terminal.seen[terminal._at :], "pieces come before the end"
    terminal.type(CTRL_C)
    told = terminal.wait_for("> ")
    assert "(stopped)" in told
    assert "w99" not in told
    terminal.say("one two three")
    assert terminal.wait_for("> ") == "one two three\n> ", "it goes on after a stop"


def test_at_a_terminal_errors_are_told_and_commands_obeyed(terminal: Terminal) -> None:
    terminal.say("/model gpt-9")
    terminal.wait_for("> ")
    terminal.say("hello")
    assert "roost: there is no model 'gpt-9'" in terminal.wait_for("> ")
    terminal.say("/model echo")
    terminal.wait_for("> ")
    terminal.say("hello again")
    assert terminal.wait_for("> ") == "hello again\n> "
    terminal.say("/what")
    assert "/quit or Ctrl-D leaves" in terminal.wait_for("> ")
    terminal.say("/new")
    terminal.wait_for("> ")
    terminal.say("/quit")
    assert terminal.end() == 0


def test_at_a_terminal_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.type(CTRL_D)
    assert terminal.end() == 0
