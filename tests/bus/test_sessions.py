"""Sessions: one suite over Valkey, a Redis Cluster and the double in memory."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.cluster import RedisCluster

from bus.endpoints import Endpoints
from bus.memory_sessions import MemorySessions, MemoryStore
from bus.sessions import Sessions, trim
from schemas.config import SessionConfig
from schemas.errors import AuthFailed, ConfigError, Retryable
from schemas.message import Outbound, RequestState, token
from schemas.session import Entry
from tests.bus.cluster import PASSWORD
from tests.bus.real import Real

Connect = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["memory", "valkey", "cluster"])
async def connect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    """Opens connections to one store; names are new in each test, so none disturbs another."""
    if request.param == "memory":
        store = MemoryStore()

        async def memory(**_: Any) -> MemorySessions:
            return MemorySessions(store)

        yield memory
        return
    endpoints, data = request.getfixturevalue("servers")
    if request.param == "cluster":
        monkeypatch.setenv("ROOST_TEST_PASSWORD", PASSWORD)
        endpoints = Endpoints(
            nats=(), redis=request.getfixturevalue("redis_cluster"), redis_password="${ROOST_TEST_PASSWORD}"
        )
    real = Real(endpoints, data)
    yield real.sessions
    await real.close()


@pytest.fixture
async def sessions(connect: Connect) -> Any:
    return await connect()


@pytest.fixture
def conversation() -> str:
    return token(secrets.token_hex(8))


def state_of(conversation: str, request: str = "", state: Any = "queued", **fields: Any) -> RequestState:
    request = request or token(conversation, "request")
    return RequestState(
        id=request,
        state=state,
        channel="test",
        conversation=conversation,
        **{"sender": "ann", "asked": "what?", **fields},
    )


def answered(state: RequestState, text: str = "answer", what: Any = "answered") -> RequestState:
    reply = Outbound(id=state.id, channel="test", conversation=state.conversation, text=text)
    return state_of(state.conversation, state.id, what, reply=reply, updated_at=2.0)


def exchange(state: RequestState, text: str = "answer", at: float = 1.0) -> list[Entry]:
    return [
        Entry(role="user", text=f"q {text}", request=state.id, at=at),
        Entry(role="assistant", text=text, request=state.id, at=at),
    ]


async def test_an_accepted_request_is_found_by_its_id(sessions: Any, conversation: str) -> None:
    state = state_of(conversation, model="echo", seq=7)
    assert await sessions.find("test", state.id) is None
    await sessions.accept(state)
    assert await sessions.find("test", state.id) == state
    assert await sessions.find("other", state.id) is None
    assert state.id in {s.id for s in await sessions.open_requests("test", "ann")}


async def test_a_request_is_begun_answered_and_stays_so(sessions: Any, conversation: str) -> None:
    state = state_of(conversation)
    await sessions.accept(state)
    begun = await sessions.begin(state, "w1", stateful=True)
    assert (begun.reply, begun.owner, begun.cancelled, begun.history) == (None, "", False, ())
    assert (await sessions.find("test", state.id)).state == "running"
    first = await sessions.finish(answered(state, "one"), exchange(state, "one"))
    assert first.reply.text == "one"
    second = await sessions.finish(answered(state, "two"), exchange(state, "two"))
    assert second.reply.text == "one", "the first answer stays"
    assert [e.text for e in await sessions.history("test", conversation)] == ["q one", "one"]
    found = await sessions.find("test", state.id)
    assert (found.state, found.reply.text) == ("answered", "one")
    assert (await sessions.begin(state, "w2", stateful=True)).reply.text == "one"
    await sessions.accept(state)
    assert (await sessions.find("test", state.id)).state == "answered", "a late note does not reopen it"


async def test_of_two_that_finish_at_once_one_is_recorded(connect: Connect, conversation: str) -> None:
    one, two = await connect(), await connect()
    state = state_of(conversation)
    texts = await asyncio.gather(
        *(s.finish(answered(state, t), exchange(state, t)) for s, t in ((one, "one"), (two, "two")))
    )
    assert len({recorded.reply.text for recorded in texts}) == 1
    assert len(await one.history("test", conversation)) == 2


async def test_a_conversation_belongs_to_the_worker_that_began_in_it(sessions: Any, conversation: str) -> None:
    first, second = state_of(conversation, "r1"), state_of(conversation, "r2")
    await sessions.begin(first, "w1", stateful=True)
    assert (await sessions.begin(first, "w2", stateful=True)).owner == "w1"
    assert (await sessions.begin(second, "w2", stateful=True)).owner == "w1"
    assert (await sessions.begin(second, "w1", stateful=True)).owner == ""
    assert (await sessions.begin(second, "w2", stateful=True, force=True)).owner == ""
    assert (await sessions.begin(state_of(conversation, "r3"), "w1", stateful=True)).owner == "w2"
    alone = state_of(conversation, "r4")
    assert (await sessions.begin(alone, "w3", stateful=False)).owner == "", "its own history: anybody may begin it"
    assert (await sessions.begin(alone, "w1", stateful=False)).owner == "w3"


async def test_a_cancelled_request_says_so_when_it_is_begun(sessions: Any, conversation: str) -> None:
    state = state_of(conversation)
    await sessions.accept(state)
    await sessions.cancel("test", state.id)
    assert (await sessions.find("test", state.id)).state == "queued"
    assert (await sessions.begin(state, "w1", stateful=True)).cancelled


async def test_history_is_given_to_whoever_begins_and_loses_its_oldest(sessions: Any, conversation: str) -> None:
    for i in range(4):
        state = state_of(conversation, f"r{i}")
        begun = await sessions.begin(state, "w1", stateful=True)
        drop = trim(begun.history, 2, 4, SessionConfig(turns_max=4))
        await sessions.finish(answered(state, f"a{i}"), exchange(state, f"a{i}"), drop=drop)
    assert [e.text for e in await sessions.history("test", conversation)] == ["q a2", "a2", "q a3", "a3"]
    begun = await sessions.begin(state_of(conversation, "r9"), "w1", stateful=True)
    assert [e.text for e in begun.history] == ["q a2", "a2", "q a3", "a3"]


async def test_a_requeued_request_is_open_again_once_for_each_time(sessions: Any, conversation: str) -> None:
    state = state_of(conversation)
    await sessions.accept(state)
    await sessions.finish(answered(state, "", "dead"), [])
    await sessions.reopen(state, "7")
    found = await sessions.find("test", state.id)
    assert (found.state, found.reply) == ("queued", None)
    assert (await sessions.begin(state, "w1", stateful=True)).reply is None
    await sessions.finish(answered(state, "at last"), [])
    await sessions.reopen(state, "7")
    assert (await sessions.begin(state, "w1", stateful=True)).reply.text == "at last", "the same mark opens it once"


async def test_a_senders_lists_follow_what_happens(sessions: Any, conversation: str) -> None:
    sender = f"ann-{conversation}"
    other = token(conversation, "other")

    def mine(conversation: str, request: str, state: Any = "queued", at: float = 1.0) -> RequestState:
        return RequestState(
            id=request, state=state, channel="test", conversation=conversation, sender=sender, updated_at=at
        )

    await sessions.accept(mine(conversation, "r1", at=1.0))
    await sessions.accept(mine(other, "r2", at=2.0))
    assert [s.id for s in await sessions.open_requests("test", sender)] == ["r1", "r2"]
    for place, request, at in ((conversation, "r1", 3.0), (other, "r2", 4.0)):
        recorded = await sessions.finish(mine(place, request, "answered", at), exchange(state_of(place, request)))
        await sessions.settle(recorded, title=f"Title of {request} " + "x" * 200)
    assert await sessions.open_requests("test", sender) == []
    listed = await sessions.conversations("test", sender)
    assert [line.conversation for line in listed] == [other, conversation]
    assert listed[0].title.startswith("Title of r2 xx")
    assert len(listed[0].title) == 80
    await sessions.settle(mine(conversation, "r3", "answered", 5.0), title="Another title")
    listed = await sessions.conversations("test", sender)
    assert listed[0].title.startswith("Title of r1"), "the first question names the conversation"
    await sessions.forget("test", other, sender)
    assert [line.conversation for line in await sessions.conversations("test", sender)] == [conversation]
    assert await sessions.history("test", other) == ()
    assert await sessions.conversations("test", "stranger") == []


async def test_an_answer_under_way_does_not_bring_a_forgotten_conversation_back(
    sessions: Any, conversation: str
) -> None:
    state = state_of(conversation)
    await sessions.begin(state, "w1", stateful=True)
    await sessions.forget("test", conversation, "ann")
    recorded = await sessions.finish(answered(state), exchange(state, at=1.0))
    await sessions.settle(recorded, title="gone")
    assert recorded.reply.text == "answer"
    assert await sessions.history("test", conversation) == ()
    later = state_of(conversation, "later")
    await sessions.finish(answered(later), exchange(later, at=4_000_000_000.0))
    assert len(await sessions.history("test", conversation)) == 2, "a later question begins it anew"


async def test_a_conversation_is_cut_back_to_before_an_exchange(sessions: Any, conversation: str) -> None:
    for i in range(3):
        state = state_of(conversation, f"r{i}")
        await sessions.finish(answered(state), exchange(state, str(i)))
    await sessions.truncate("test", conversation, "unknown")
    assert len(await sessions.history("test", conversation)) == 6
    await sessions.truncate("test", conversation, "r1")
    assert [e.request for e in await sessions.history("test", conversation)] == ["r0", "r0"]
    await sessions.truncate("test", conversation, "r0")
    assert await sessions.history("test", conversation) == ()


async def test_what_was_sent_is_remembered(sessions: Any, conversation: str) -> None:
    assert not await sessions.was_sent(conversation)
    await sessions.mark_sent([conversation, conversation + "2"])
    assert await sessions.was_sent(conversation)
    assert await sessions.was_sent(conversation + "2")
    await sessions.mark_sent([])


# -- what only a server can show ------------------------------------------------------------------------------


async def test_the_cluster_is_checked_as_one_server(
    redis_cluster: str, real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_TEST_PASSWORD", PASSWORD)
    endpoints = Endpoints(nats=(), redis=redis_cluster, redis_password="${ROOST_TEST_PASSWORD}")
    sessions = await Real(endpoints, real.data).sessions()
    await sessions.check()
    assert await sessions.ping()
    for i in range(40):  # over all nodes
        state = state_of(token("slot", str(i)))
        await sessions.begin(state, "w1", stateful=True)
        await sessions.finish(answered(state), exchange(state))
    client = RedisCluster.from_url(redis_cluster.replace("redis+cluster", "redis"), password=PASSWORD)
    await client.initialize()
    sizes = [await client.dbsize(target_nodes=node) for node in client.get_primaries()]
    assert len(sizes) == 3
    assert all(size > 0 for size in sizes)
    await client.aclose()
    await sessions.close()


def plain_client(real: Real) -> redis.asyncio.Redis:
    password = Path(str(real.endpoints.redis_password).removeprefix("file:")).read_text().strip()
    return redis.asyncio.from_url(real.endpoints.redis, password=password)


async def test_no_word_of_a_conversation_stands_in_the_server(real: Real, conversation: str) -> None:
    sessions = await real.sessions()
    state = state_of(conversation, asked="the owl sleeps by day")
    await sessions.accept(state)
    recorded = await sessions.finish(answered(state, "indeed the owl does"), exchange(state, "indeed the owl does"))
    await sessions.settle(recorded, title="the owl sleeps by day")
    client = plain_client(real)
    seen = 0
    async for key in client.scan_iter(match=f"*{conversation}*"):
        raw = await client.dump(key)
        seen += 1
        assert b"owl" not in raw
        assert await client.ttl(key) > 0, f"{key!r} has no age"
    async for key in client.scan_iter(match="*titles"):
        assert b"owl" not in await client.dump(key)
    assert seen >= 2
    await client.aclose()


async def test_a_value_of_another_key_is_as_good_as_absent(real: Real, conversation: str, tmp_path: Path) -> None:
    ours, theirs = await real.sessions(), await real.sessions(tmp_path)
    state = state_of(conversation)
    await ours.accept(state)
    await ours.finish(answered(state), exchange(state))
    await ours.settle(answered(state), title="ours")
    assert await theirs.find("test", state.id) is None
    assert await theirs.history("test", conversation) == ()
    assert (await theirs.begin(state, "w1", stateful=True)).reply is None
    assert {line.title for line in await theirs.conversations("test", "ann") if line.conversation == conversation} == {
        ""
    }


async def test_an_exchanged_value_is_left_out(real: Real, conversation: str) -> None:
    sessions = await real.sessions()
    other = token(conversation, "other")
    for place in (conversation, other):
        state = state_of(place)
        await sessions.finish(answered(state), exchange(state, place))
    client = plain_client(real)
    mine, theirs = (f"roost:{{test.{place}}}:history" for place in (conversation, other))
    await client.lset(mine, 0, await client.lindex(theirs, 0))
    await client.aclose()
    assert [e.text for e in await sessions.history("test", conversation)] == [conversation]


async def test_what_is_not_touched_ages(real: Real, conversation: str) -> None:
    sessions = await real.sessions(age_s_max=1, request_age_s=1)
    state = state_of(conversation)
    await sessions.accept(state)
    await sessions.begin(state, "w1", stateful=True)
    await sessions.finish(answered(state), exchange(state))
    client = plain_client(real)
    keys = [key async for key in client.scan_iter(match=f"*{conversation}*")]
    assert keys
    ages = [await client.pttl(key) for key in keys]
    assert all(0 < age <= 1000 for age in ages), dict(zip(keys, ages, strict=True))
    await client.aclose()


async def test_wrong_credentials_are_told_apart_from_a_server_that_is_away(real: Real, monkeypatch: Any) -> None:
    monkeypatch.setenv("ROOST_TEST_PASSWORD", "wrong")
    wrong = Endpoints(nats=(), redis=real.endpoints.redis, redis_password="${ROOST_TEST_PASSWORD}")
    sessions = Sessions.connect(wrong, SessionConfig(), real.data)
    with pytest.raises(AuthFailed, match="refuses our password"):
        await sessions.check()
    await sessions.close()
    away = Endpoints(nats=(), redis="redis://127.0.0.1:1/0")
    sessions = Sessions.connect(away, SessionConfig(timeout_s=0.5), real.data)
    with pytest.raises(Retryable, match="does not answer") as error:
        await sessions.check()
    assert error.value.code == "sessions_unavailable"
    await sessions.close()


@pytest.mark.parametrize(
    ("version", "hello", "told"),
    [
        (b"5.0.14", b"-ERR unknown command 'HELLO'\r\n", r"too old \(.*HELLO"),
        (
            b"6.0.20",
            b"%2\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n",
            r"server 6\.0 ?.*is too old; Roost needs Redis 6\.2",
        ),
    ],
)
async def test_a_too_old_server_is_refused(real: Real, version: bytes, hello: bytes, told: str) -> None:
    info = b"# Server\r\nredis_version:%s\r\n" % version

    async def old_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speaks just enough of the protocol to tell its version."""
        while line := await reader.readline():
            words = [(await reader.readline(), await reader.readline())[1].strip() for _ in range(int(line[1:]))]
            answers = {b"HELLO": hello, b"INFO": b"$%d\r\n%s\r\n" % (len(info), info)}
            writer.write(answers.get(words[0].upper(), b"+OK\r\n"))
        writer.close()

    server = await asyncio.start_server(old_redis, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sessions = Sessions.connect(Endpoints(nats=(), redis=f"redis://127.0.0.1:{port}/0"), SessionConfig(), real.data)
    with pytest.raises(ConfigError, match=told):
        await sessions.check()
    await sessions.close()
    server.close()
    await server.wait_closed()


# -- trim -----------------------------------------------------------------------------------------------------


def lines(*texts: str) -> list[Entry]:
    return [Entry(role="user", text=text, request="r", at=0.0) for text in texts]


@pytest.mark.parametrize(
    ("texts", "added", "chars", "turns_max", "chars_max", "drop"),
    [
        ((), 2, 10, 4, 100, 0),
        (("a", "b"), 2, 2, 4, 100, 0),
        (("a", "b", "c"), 2, 2, 4, 100, 1),
        (("aaaa", "bbbb"), 2, 4, 64, 8, 1),
        (("aaaa", "bbbb"), 2, 9, 64, 8, 2),
        (("aaaa", "bbbb", "cc"), 2, 2, 4, 6, 2),
    ],
)
def test_the_oldest_go_until_the_limits_hold(
    texts: Any, added: int, chars: int, turns_max: int, chars_max: int, drop: int
) -> None:
    assert trim(lines(*texts), added, chars, SessionConfig(turns_max=turns_max, chars_max=chars_max)) == drop
