"""Load beside a measurement: it ends with it, and a fault of it is never measured past."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.beside import beside


async def test_load_runs_meanwhile_and_ends_with_the_measurement() -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    async def load() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asyncio.timeout(5):
        async with beside(load()):
            await running.wait()
            assert not ended.is_set()
    assert ended.is_set()


async def test_a_fault_of_the_load_ends_the_measurement() -> None:
    async def load() -> None:
        raise RuntimeError("the server is gone")

    async with asyncio.timeout(5):
        with pytest.raises(ExceptionGroup) as raised:
            async with beside(load()):
                await asyncio.Event().wait()
    assert raised.group_contains(RuntimeError, match="the server is gone")


async def test_a_fault_of_the_measurement_ends_the_load() -> None:
    ended = asyncio.Event()

    async def load() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def measure() -> None:
        async with beside(load()):
            await asyncio.sleep(0)
            raise ValueError("no such figure")

    with pytest.raises(ExceptionGroup) as raised:
        await measure()
    assert raised.group_contains(ValueError)
    assert ended.is_set()
