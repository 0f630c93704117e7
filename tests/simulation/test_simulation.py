"""Whatever is lost, doubled, delayed or killed: each accepted message has one end, in order, and history once.

ROOST_TEST_SEEDS says how many seeds run (a few by default), ROOST_TEST_SEED repeats one. Time is virtual.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator

import msgspec
import pytest

from schemas.event import DeadLetter
from schemas.message import Outbound
from schemas.turn import Turn
from tests.simulation.clock import run
from tests.simulation.world import CONVERSATIONS, MESSAGES, World

ONE = int(os.environ.get("ROOST_TEST_SEED", "0"))
COUNT = int(os.environ.get("ROOST_TEST_SEEDS", "25"))
SEEDS = [ONE] if ONE else [*range(1, COUNT - 4), *random.SystemRandom().sample(range(1_000, 2**31), 5)]


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """The house complains about everything that is done to it, and rightly so."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def stored(world: World, prefix: str) -> list[tuple[str, bytes]]:
    return [(subject, message.data) for subject, message in world.server.log if subject.startswith(prefix)]


def check(world: World) -> None:
    accepted = [request for requests in world.accepted.values() for request in requests]
    assert len(accepted) == len(set(accepted)) == CONVERSATIONS * MESSAGES
    replies = [msgspec.json.decode(data, type=Outbound) for _, data in stored(world, "roost.out.")]
    turns = [msgspec.json.decode(data, type=Turn) for _, data in stored(world, "roost.turn.")]
    letters = [msgspec.json.decode(data, type=DeadLetter) for _, data in stored(world, "roost.dead.")]
    dead = {letter.id for letter in letters}

    # one end for each accepted message
    assert Counter(reply.id for reply in replies) == Counter(accepted), "one reply each"
    assert len(letters) == len(dead), "one letter each"
    assert not dead & {turn.id for turn in turns}, "answered or dead, never both"
    assert Counter(turn.id for turn in turns) + Counter(dead) == Counter(accepted)
    assert {reply.id for reply in replies if reply.error is not None} == dead

    # the platform got each reply, and twice only where a gateway was killed in between
    by_request: defaultdict[str, list[Outbound]] = defaultdict(list)
    per_gateway = Counter((id(gateway), reply.id) for gateway, reply in world.sent)
    for _, reply in world.sent:
        by_request[reply.id].append(reply)
    assert set(by_request) == set(accepted)
    assert all(copy == copies[0] for copies in by_request.values() for copy in copies)
    assert set(per_gateway.values()) == {1}, "one gateway sends a reply once"

    # order, and history exactly once
    texts = {reply.id: reply.text for reply in replies}
    first_sent = {reply.id: i for i, (_, reply) in reversed(list(enumerate(world.sent)))}
    for conversation, requests in world.accepted.items():
        history = world.store.histories["sim", conversation]
        assert [e.request for e in history] == [r for r in requests for _ in range(2)], "asked and answered, in order"
        assert [e.role for e in history] == ["user", "assistant"] * len(requests)
        seen = 0
        for question, answer in zip(history[::2], history[1::2], strict=True):
            if answer.error is None:
                assert answer.text == texts[answer.request] == f"{question.text}|{seen + 1}", "all before, nothing else"
                seen += 2
        assert sorted(requests, key=first_sent.__getitem__) == requests, "delivered in order"
        done = [turn.id for turn in turns if turn.conversation == conversation]
        assert done == [r for r in requests if r not in dead], "finished in order"
    assert world.closed_under_users == 0
    if not world.troubles.split:
        assert world.most_at_once == 1, "one at a time in each conversation"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_accepted_message_has_one_end(seed: int) -> None:
    world = World(seed)
    try:
        run(world.run)
        check(world)
    except BaseException:
        print(f"ROOST_TEST_SEED={seed}: {world!r}")
        raise
