"""An attempt that fails is told at once, with the version that failed, unless its sender is to blame."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bus import subjects
from schemas.errors import Rejected
from schemas.model import FailedAnswer
from tests.workers.host.test_loop import House, house  # noqa: F401  a fixture
from workers import Backend, BackendSettings, Finished, Job


class Broken(Backend):
    """Fails as the text says."""

    version = "2"

    def generate(self, job: Job) -> Iterator[str | Finished]:
        if job.text == "refuse":
            raise Rejected("not that", code="unsupported")
        if job.text == "fail":
            raise ValueError("a bug")
        yield "fine"


async def told(house: House) -> list[FailedAnswer]:  # noqa: F811
    found = house.bus.read("EVENTS", subjects.event("failure", "echo"))
    return [msgspec.json.decode(message.data, type=FailedAnswer) async for message in found]


async def test_each_attempt_that_fails_is_told_with_its_version(
    house: House,  # noqa: F811
) -> None:
    async with house.worker("w-0", backend=Broken(BackendSettings(), 1)):
        await house.ask("good", "fine", conversation="c1")
        await house.ask("bad", "fail", conversation="c2")
        replies = {reply.id: reply for reply in await house.replies(2)}
    assert replies["bad"].error is not None
    failures = await told(house)
    assert [(f.request, f.attempt, f.model, f.version, f.worker, f.code) for f in failures] == [
        ("bad", 1, "echo", "2", "w-0", "model_failed"),
        ("bad", 2, "echo", "2", "w-0", "model_failed"),
    ]


async def test_what_the_sender_asked_wrongly_is_not_told(
    house: House,  # noqa: F811
) -> None:
    async with house.worker("w-0", backend=Broken(BackendSettings(), 1)):
        await house.ask("r1", "refuse")
        (reply,) = await house.replies(1)
        assert reply.error is not None
        assert reply.error.code == "unsupported"
    assert await told(house) == []
