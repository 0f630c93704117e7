"""What a benchmark that cannot be measured leaves behind."""

from __future__ import annotations

import sys

import pytest

from benchmarks.beside import beside
from benchmarks.result import Row, main


async def fails(quick: bool) -> list[Row]:
    async with beside():
        raise RuntimeError("the server is gone")


async def works(quick: bool) -> list[Row]:
    return [Row(benchmark="works", what="time", value=1.0, unit="s")]


def test_a_benchmark_that_fails_says_why_and_leaves_the_rows_of_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench"])
    main(fails, works)
    told = capsys.readouterr()
    assert "RuntimeError: the server is gone" in told.err
    assert "1.00 s" in told.out
