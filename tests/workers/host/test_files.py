"""Files through the loop: what a message is sent with reaches the backend, what it makes reaches the asker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from schemas.message import Attachment, Sampling
from schemas.picture import Drawing, Drawn, Progress
from tests.workers.host.test_loop import House, house  # noqa: F401  a fixture
from workers import Backend, Finished, Job, Picture

START = b"a picture to start from"


class Painter(Backend):
    """Each picture is made of the prompt, its seed and the file to start from."""

    kinds = frozenset({"image"})
    abilities = frozenset({"n", "files"})
    version = "painter-1"

    def generate(self, job: Job) -> Iterator[Progress | Finished]:
        yield Progress(step=1, steps=2, preview=b"jpeg")
        made = []
        for seed in range(job.sampling.seed or 0, (job.sampling.seed or 0) + job.sampling.n):
            drawn = Drawn(prompt=job.text, seed=seed, width=8, height=8, steps=job.drawing.steps or 0)
            data = b"|".join((job.text.encode(), str(seed).encode(), *job.files))
            made.append(Picture(data=data, media_type="image/png", drawn=drawn))
        yield Finished(pictures=tuple(made))


def attached(data: bytes) -> Attachment:
    return Attachment(sha256=hashlib.sha256(data).hexdigest(), media_type="image/png", size_bytes=len(data), name="a")


async def test_pictures_are_stored_and_named_by_the_answer_the_turn_and_the_conversation(house: House) -> None:  # noqa: F811
    await house.bus.blobs.put(START)
    async with house.worker("w1", backend=Painter(Painter.Settings())):
        await house.ask(
            "r1", "a boat", kind="image", sampling=Sampling(seed=7, n=2), drawing=Drawing(steps=4),
            attachments=(attached(START),),
        )  # fmt: skip
        (reply,) = await house.replies(1)
    assert reply.text == ""
    assert [await house.bus.blobs.get(a.sha256) for a in reply.attachments] == [
        b"a boat|7|" + START, b"a boat|8|" + START,
    ]  # fmt: skip
    assert [a.name for a in reply.attachments] == ["echo-7.png", "echo-8.png"]
    drawn = reply.attachments[0].drawn
    assert drawn == Drawn(prompt="a boat", seed=7, width=8, height=8, steps=4, model="echo", version="painter-1")
    (turn,) = await house.turns()
    assert turn.attachments == reply.attachments
    assert [e.attachments for e in await house.sessions.history("chat", "c1")][1] == reply.attachments


async def test_a_file_that_is_not_kept_any_more_is_said(house: House) -> None:  # noqa: F811
    async with house.worker("w1", backend=Painter(Painter.Settings())):
        await house.ask("r1", "a boat", kind="image", attachments=(attached(b"aged out"),))
        (reply,) = await house.replies(1)
        assert reply.error is not None
        assert (reply.error.code, "send it again" in reply.error.message) == ("gone", True)
        await house.ask("r2", "a boat", kind="image")
        assert (await house.replies(2))[1].attachments


async def test_a_model_that_takes_no_files_says_so(house: House) -> None:  # noqa: F811
    class Blind(Painter):
        abilities = frozenset({"n"})

    async with house.worker("w1", backend=Blind(Blind.Settings())):
        await house.ask("r1", "a boat", kind="image", attachments=(attached(START),))
        (reply,) = await house.replies(1)
        assert reply.error is not None
        assert reply.error.message.startswith("attachments: ")
