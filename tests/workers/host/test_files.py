"""Files through the loop: what a message is sent with reaches the backend, what it makes reaches the asker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from schemas.message import Attachment, Kind, Sampling
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


def attached(data: bytes, name: str = "a", media_type: str = "image/png") -> Attachment:
    return Attachment(sha256=hashlib.sha256(data).hexdigest(), media_type=media_type, size_bytes=len(data), name=name)


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


class Reader(Backend):
    """Answers with all that it was told, a line each, and takes no files."""

    version = "reader-1"

    def generate(self, job: Job) -> Iterator[str]:
        yield "\n--\n".join(message.text for message in job.messages)


SOURCE = b"\xef\xbb\xbfprint('```')\n"
QUOTED = "x.py:\n````\nprint('```')\n\n````\n\nwhat is it?"


async def test_a_model_of_words_reads_text_files_also_when_the_conversation_goes_on(house: House) -> None:  # noqa: F811
    await house.bus.blobs.put(SOURCE)
    async with house.worker("w1", backend=Reader(Reader.Settings())):
        await house.ask("r1", "what is it?", attachments=(attached(SOURCE, "x.py", "text/x-python"),))
        (first,) = await house.replies(1)
        assert first.text == QUOTED
        await house.ask("r2", "and now?")
        second = (await house.replies(2))[1]
        assert second.text == f"{QUOTED}\n--\n{QUOTED}\n--\nand now?"


@pytest.mark.parametrize(
    ("data", "media_type", "kind"),
    [(START, "image/png", "chat"), (b"\x00\x01", "text/plain", "chat"), (b"\xff\xfe", "text/plain", "code"),
     (b"words", "text/plain", "completion")],
)  # fmt: skip
async def test_a_model_of_words_refuses_what_it_cannot_read(
    house: House, data: bytes, media_type: str, kind: Kind  # noqa: F811
) -> None:  # fmt: skip
    await house.bus.blobs.put(data)

    class Both(Reader):
        kinds = frozenset({"chat", "completion"})

    async with house.worker("w1", backend=Both(Both.Settings())):
        await house.ask("r1", "what is it?", kind=kind, attachments=(attached(data, "x", media_type),))
        (reply,) = await house.replies(1)
        assert reply.error is not None
        assert (reply.error.code, reply.error.message.startswith("attachments: ")) == ("unsupported", True)


async def test_text_files_are_no_way_around_the_limit_of_a_message(house: House) -> None:  # noqa: F811
    long = b"a" * (house.bus.config.limits.text_chars_max + 1)
    await house.bus.blobs.put(long)
    async with house.worker("w1", backend=Reader(Reader.Settings())):
        await house.ask("r1", "short", attachments=(attached(long, "x.txt", "text/plain"),))
        (reply,) = await house.replies(1)
        assert reply.error is not None
        assert (reply.error.code, "text_chars_max" in reply.error.message) == ("too_large", True)


async def test_a_text_file_that_is_gone_is_said_when_it_is_new_and_left_out_later(house: House) -> None:  # noqa: F811
    async with house.worker("w1", backend=Reader(Reader.Settings())):
        await house.ask("r1", "what is it?", attachments=(attached(SOURCE, "x.py", "text/x-python"),))
        (reply,) = await house.replies(1)
        assert reply.error is not None
        assert reply.error.code == "gone"
        await house.ask("r2", "never mind")
        assert (await house.replies(2))[1].text == "never mind"
