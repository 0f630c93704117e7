"""The account that the other tests of this folder rely on: whatever is wrong with an answer is found."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from schemas.message import Inbound, Sender
from schemas.turn import Turn
from tests.updates.talkers import Pieces, Reply, Talk, faults

GOOD = Reply(id="a", words="a b", model="talk", request="r", version="2+abc", text="a~2 b~2", asked=1)
INBOUND = Inbound(id="a", conversation="c", sender=Sender(id="s"), text="a b")
TURN = Turn(
    id="r", channel="nats", conversation="c", inbound=INBOUND, text="a~2 b~2", model="talk", version="2+abc",
    finished_at=1.0,
)  # fmt: skip


def found(reply: Reply, *turns: Turn) -> list[str]:
    talk = Talk(None, ["talk"], count=1, words=2, name="t", answer_s=1.0)
    talk.replies = [reply]
    return faults(talk, turns, ("1", "2"))


def test_a_good_answer_has_no_fault() -> None:
    assert found(GOOD, TURN) == []
    assert found(replace(GOOD, streamed="a~2 b~2"), TURN) == []


@pytest.mark.parametrize(
    ("reply", "turns"),
    [
        (replace(GOOD, text=None), ()),
        (GOOD, ()),
        (GOOD, (TURN, TURN)),
        (replace(GOOD, others=["a~1 b~1"]), (TURN,)),
        (replace(GOOD, text="a~1 b~2"), (replace(TURN, text="a~1 b~2"),)),
        (replace(GOOD, text="a~1 b~1"), (replace(TURN, text="a~1 b~1"),)),
        (replace(GOOD, version="3+abc", text="a~3 b~3"), (replace(TURN, version="3+abc", text="a~3 b~3"),)),
        (replace(GOOD, text="a~2"), (replace(TURN, text="a~2"),)),
        (GOOD, (replace(TURN, text="a~1 b~1"),)),
        (GOOD, (replace(TURN, version="1+abc"),)),
        (replace(GOOD, streamed="a~1 b~2"), (TURN,)),
    ],
)
def test_each_kind_of_fault_is_found(reply: Reply, turns: tuple[Turn, ...]) -> None:
    assert found(reply, *turns)


def test_pieces_of_an_attempt_that_was_given_up_are_forgotten() -> None:
    pieces = Pieces()
    for piece in ({"text": "a~1", "at": 0}, {"text": "a~2", "at": 0, "attempt": 2}, {"text": " b~1", "at": 3}):
        pieces.take(piece)
    assert pieces.text is None
    pieces = Pieces()
    for piece in (
        {"text": "a~1", "at": 0}, {"text": "a~2", "at": 0, "attempt": 2}, {"text": " b", "at": 3, "attempt": 2},
    ):  # fmt: skip
        pieces.take(piece)
    assert pieces.text == "a~2 b"
