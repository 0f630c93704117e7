"""Golden prompts: asked of a version before it may serve. What the answers are worth is for the updater to say."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

from schemas.errors import RoostError
from schemas.message import Message, Sampling
from schemas.model import GoldenAnswer
from schemas.release import Golden
from workers import Finished, Job
from workers.host.able import check_able
from workers.host.palette import palette
from workers.host.resident import Gone, Resident

FLOAT_BYTES = 4


async def ask(resident: Resident, goldens: Sequence[Golden]) -> tuple[GoldenAnswer, ...]:
    """The answers in the order of the prompts; as many at once as the model has slots.

    Raises `Gone` when its lane was taken away meanwhile.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(_one(resident, i, golden)) for i, golden in enumerate(goldens)]
    except* Gone as gone:
        raise gone.exceptions[0] from None
    return tuple(task.result() for task in asked)


async def _one(resident: Resident, number: int, golden: Golden) -> GoldenAnswer:
    job = job_of(golden, f"golden-{number}")
    text, finished = "", Finished()
    try:
        async with resident.use(job.request) as lane:
            begun = time.monotonic()
            check_able(job, lane.name, lane.backend.kinds, lane.backend.abilities)
            async for piece in lane.run(job):
                text += piece.text if piece.choice == 0 else ""
                finished = piece.finished or finished
    except Gone:
        raise
    except RoostError as error:
        return GoldenAnswer(error=error.message)
    if finished.error is not None:
        return GoldenAnswer(text=text, error=finished.error.message)
    return GoldenAnswer(
        text=text,
        finish=finished.finish,
        dimensions=len(finished.embeddings[0]) // FLOAT_BYTES if finished.embeddings else 0,
        palette=await asyncio.to_thread(palette, finished.pictures[0].data) if finished.pictures else (),
        seconds=round(time.monotonic() - begun, 4),
    )


def job_of(golden: Golden, request: str) -> Job:
    """At temperature 0 and with a fixed seed; nobody's conversation."""
    system = (Message("system", golden.system),) if golden.system and golden.kind == "chat" else ()
    return Job(
        request=request,
        messages=(*system, Message("user", golden.prompt)),
        kind=golden.kind,
        inputs=(golden.prompt,) if golden.kind == "embedding" else (),
        tenant="golden",
        sampling=Sampling(temperature=0, seed=0, max_tokens=golden.max_tokens),
        cancelled=threading.Event(),
    )
