"""Trying again: what, how often, how long, and how many at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from schemas.errors import AuthFailed, Disconnected, Retryable, RoostError, Untrusted
from updater.source.contract import Missing, Unready
from updater.source.patient import ATTEMPTS, PAUSE_S_MAX, Patient, pause_s


class Hasty(random.Random):
    """Draws the shortest pause."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Failing:
    """A source that fails so often."""

    where = "a test"

    def __init__(self, *errors: RoostError) -> None:
        self.errors = list(errors)
        self.reads = 0

    async def read(self, path: str, limit: int) -> bytes:
        self.reads += 1
        if self.errors:
            raise self.errors.pop(0)
        return b"there"

    async def close(self) -> None:
        return


def patient(source: Failing, timeout_s: float = 5.0) -> Patient:
    return Patient(source, connections=2, timeout_s=timeout_s, rng=Hasty())


@pytest.mark.parametrize("failures", range(ATTEMPTS))
async def test_a_link_that_comes_back_in_time_is_not_noticed(failures: int) -> None:
    source = Failing(*[Disconnected("cut") for _ in range(failures)])
    assert await patient(source).read("x", 10) == b"there"
    assert source.reads == failures + 1


async def test_attempts_have_an_end_and_the_last_error_is_told() -> None:
    source = Failing(*[Retryable(f"busy {i}", after_s=0.0, code="busy") for i in range(99)])
    with pytest.raises(Disconnected, match=rf"busy 3 \({ATTEMPTS} attempts\)") as raised:
        await patient(source).read("x", 10)
    assert raised.value.code == "busy"
    assert source.reads == ATTEMPTS


@pytest.mark.parametrize("error", [Missing("no"), Unready("no"), Untrusted("no"), AuthFailed("no")])
async def test_what_another_attempt_cannot_heal_is_said_at_once(error: RoostError) -> None:
    source = Failing(error)
    with pytest.raises(type(error)):
        await patient(source).read("x", 10)
    assert source.reads == 1


async def test_a_source_that_never_answers_is_given_up() -> None:
    class Silent(Failing):
        async def read(self, path: str, limit: int) -> bytes:
            self.reads += 1
            await asyncio.Event().wait()
            return b""

    source = Silent()
    with pytest.raises(Disconnected, match="did not come within") as raised:
        await patient(source, timeout_s=0.02).read("x", 10)
    assert raised.value.code == "slow"
    assert source.reads == ATTEMPTS


async def test_no_more_reads_run_at_once_than_connections_are_allowed() -> None:
    class Counting(Failing):
        running = most = 0

        async def read(self, path: str, limit: int) -> bytes:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.running -= 1
            return b""

    source = Counting()
    waiting = patient(source)
    await asyncio.gather(*(waiting.read("x", 10) for _ in range(20)))
    assert source.most == 2


def test_pauses_double_up_to_a_limit_spread_and_respect_what_the_source_asks() -> None:
    rng = random.Random(3)
    for attempt in range(1, 40):
        drawn = [pause_s(attempt, 0.0, rng) for _ in range(50)]
        assert 0 <= min(drawn) < max(drawn) <= min(PAUSE_S_MAX, 0.25 * 2**attempt)
    assert pause_s(1, 3.0, rng) == 3.0
    assert pause_s(1, 1e9, rng) == PAUSE_S_MAX
    assert pause_s(1, float("inf"), rng) == PAUSE_S_MAX
