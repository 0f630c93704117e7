"""The parts' logs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ops.logs import LogFile, Pump


async def pump(path: Path, *chunks: bytes) -> list[str]:
    told: list[str] = []
    log = LogFile(path)
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    await Pump("worker", log, told.append).run(stream)
    log.close()
    return told


async def test_every_line_is_kept_and_warnings_are_told(tmp_path: Path) -> None:
    lines = (
        b"2026-01-01 10:00:00,000 INFO roost: fine\nnoise from C\n"
        b"2026-01-01 10:00:00,000 ERROR roost: broken\nTraceback (most recent call last):\n"
        b"2026-01-01 10:00:00,000 INFO roost: fine again\nmore noise"
    )
    told = await pump(tmp_path / "log", lines[:30], lines[30:])
    assert (tmp_path / "log").read_bytes() == lines + b"\n"
    assert told == ["worker: error: roost: broken", "worker:   Traceback (most recent call last):"]


async def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    assert await pump(tmp_path / "log", *[b"x" * 50_000] * 10) == []
    assert (tmp_path / "log").stat().st_size >= 500_000


def test_a_grown_log_is_moved_aside_and_the_oldest_dropped(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", bytes_max=100)
    for number in range(20):
        log.write(b"%038d\n" % number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2", "log.3"]
    assert (tmp_path / "log").read_bytes().splitlines()[-1].endswith(b"19")
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
