"""What every connector must keep, as named rules that run it: for plug-in authors and our own tests.

    CASE = ConnectorCase(MyConnector, settings={"port": 7001}, reply={"key": "gone", "id": "1"})

    @pytest.mark.parametrize("rule", RULES, ids=str)
    def test_it_keeps_the_contract(rule):
        rule.check(CASE)

It does not know the platform: that messages arrive and answers are delivered is for the connector's own tests. It
needs no pytest. What always holds: each rule makes a connector of its own before a host of its own, leaves nothing
running, and waits for nothing longer than the case allows.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from msgspec import Struct

from connectors import Capabilities, Connector, ConnectorSettings, Host
from connectors.host.quiet import quiet_host
from schemas.config import ConnectorConfig, settings_of
from schemas.errors import ConfigError, Disconnected, Retryable
from schemas.message import Outbound, Problem

__all__ = ["RULES", "Broken", "ConnectorCase", "Rule", "broken"]

Check = Callable[["ConnectorCase"], Coroutine[Any, Any, None]]

TEXT_BYTES_MIN = 64
"""A platform message of fewer bytes could not hold a word and the mark that it goes on."""
NOT_YOURS = {
    "nats": "NATS is spoken in bus/ alone; use `host`",
    "redis": "Redis is spoken in bus/ alone; use `host`",
    "workers": "models are met on the bus",
    "torch": "models live in workers",
    "llama_cpp": "models live in workers",
}
HEAVY = ("torch", "llama_cpp", "diffusers", "transformers", "workers")
PROBE = """
import importlib, sys
sys.path[:0] = sys.argv[2:]
importlib.import_module(sys.argv[1])
print(*(name for name in {heavy} if name in sys.modules))
"""
IMPORT_S = 30.0
TURNS = (0, 1, 2, 3, 5, 8, 13)
"""Turns of the loop after which a starting connector is cancelled."""
SWEEPS = 3
SWEEP_S = 1.0


class Broken(AssertionError):
    """A rule is broken; the sentence says what the connector did wrong."""


async def _at_once(host: Host) -> None:
    """Give a starting connector the turns of the loop that it needs to come to its first wait."""
    await _turns(20, host)


class ConnectorCase(Struct, frozen=True):
    """One connector as it is to be tried.

    `host` opens the gateway it is given, and may start a stand-in of its platform for as long; `up` returns when `run`
    receives, where that takes more than a few turns of the loop.
    """

    kind: type[Connector]
    settings: dict[str, Any] = {}
    reply: dict[str, str] = {}
    """`Inbound.reply` as the connector writes it, for somebody who does not wait any more."""
    host: Callable[[], AbstractAsyncContextManager[Host]] = quiet_host
    up: Callable[[Host], Awaitable[None]] = _at_once
    send_s: float = 5.0
    stop_s: float = 5.0


class Rule(Struct, frozen=True):
    """One rule: `name`, the sentence that states it, and its check."""

    name: str
    says: str
    run: Check

    def __str__(self) -> str:
        return self.name

    def check(self, case: ConnectorCase) -> None:
        """Raises `Broken` with what the connector did wrong. Not from within an event loop; there, await `run`."""
        try:
            asyncio.run(self.run(case))
        except Broken as broken:
            raise Broken(f"{case.kind.__name__}: {self.name}: {broken}") from broken.__cause__


RULES: list[Rule] = []
"""All rules, cheap ones first."""


def broken(case: ConnectorCase) -> list[str]:
    """What is wrong with a connector, a sentence for each broken rule; empty when it keeps the contract."""
    found = []
    for each in RULES:
        try:
            each.check(case)
        except Broken as error:
            found.append(str(error))
    return found


def rule(check: Check) -> Check:
    """The function's name is the rule's name, its docstring what the rule says."""
    RULES.append(Rule(check.__name__, " ".join((check.__doc__ or "").split()), check))
    return check


def made(case: ConnectorCase, host: Host) -> Connector:
    """The connector with the case's settings, as the gateway makes it."""
    try:
        settings = settings_of(case.kind.Settings, case.settings, "the case")
    except ConfigError as error:
        raise Broken(f"its Settings do not take the case's settings: {error.message}") from None
    try:
        return case.kind(host.name, settings, host)
    except Exception as error:
        raise Broken(f"it cannot be made: {error!r}; connect in run(), not in __init__()") from error


# -- at rest --------------------------------------------------------------------------------------------------


@rule
async def settings_refuse_what_they_do_not_know(case: ConnectorCase) -> None:
    """Settings are a strict type of their own; an unknown field is a ConfigError that names it."""
    if not issubclass(case.kind.Settings, ConnectorSettings):
        raise Broken("its Settings do not derive from ConnectorSettings")
    taken = set(case.kind.Settings.__struct_fields__) & set(ConnectorConfig.__struct_fields__)
    if taken:
        raise Broken(f"its setting {min(taken)!r} never arrives: every connector has a field of that name; rename it")
    async with case.host() as host:
        made(case, host)
    try:
        settings_of(case.kind.Settings, {**case.settings, "no_such_field": 1}, "the case")
    except ConfigError as error:
        if "no_such_field" not in error.message:
            raise Broken(f"the refusal of an unknown setting does not name it: {error.message!r}") from None
        return
    raise Broken("its Settings take an unknown field; a misspelt setting would go unnoticed")


@rule
async def capabilities_make_sense(case: ConnectorCase) -> None:
    """`capabilities` is a `Capabilities`, and its `text_bytes_max` 0 (no limit) or large enough to say something."""
    capabilities = case.kind.capabilities
    if not isinstance(capabilities, Capabilities):
        raise Broken(f"its capabilities are a {type(capabilities).__name__}, not a Capabilities")
    if capabilities.text_bytes_max != 0 and capabilities.text_bytes_max < TEXT_BYTES_MIN:
        raise Broken(f"text_bytes_max is {capabilities.text_bytes_max}; 0 is no limit, and {TEXT_BYTES_MIN} the least")


@rule
async def routes_are_unique_and_stay_the_same(case: ConnectorCase) -> None:
    """`routes()` fits into the shared web server: each begins with /, none comes twice, asked again they are equal."""
    async with case.host() as host:
        connector = made(case, host)
        first, second = _registered(connector), _registered(connector)
    if first != second:
        raise Broken(f"routes() asked twice differs in {sorted(set(first) ^ set(second))}")
    for method, path in first:
        if not path.startswith("/"):
            raise Broken(f"the route {method} {path!r} does not begin with /")


def _registered(connector: Connector) -> list[tuple[str, str]]:
    router = web.Application().router
    found = []
    for route in connector.routes():
        try:
            for each in route.register(router):
                found.append((each.method, each.resource.canonical if each.resource is not None else ""))
        except (RuntimeError, ValueError) as error:
            raise Broken(f"the web server refuses {route!r:.80}: {error}") from None
    return found


@rule
async def it_imports_nothing_that_is_not_its_own(case: ConnectorCase) -> None:
    """A connector leaves NATS and Redis to the bus and models to workers; importing it loads no model library."""
    name = case.kind.__module__
    for path in await asyncio.to_thread(_sources, case.kind):
        source = await asyncio.to_thread(path.read_text)
        for imported in _imports(ast.parse(source)):
            if (reason := NOT_YOURS.get(imported)) is not None:
                raise Broken(f"{path.name} imports {imported}: {reason}")
    probe = PROBE.format(heavy=HEAVY)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", probe, name, *sys.path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(IMPORT_S):
            out, err = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise Broken(f"importing {name} took more than {IMPORT_S:g} s") from None
    if child.returncode != 0:
        last = err.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise Broken(f"{name} cannot be imported in a fresh process: {' '.join(last)}")
    if loaded := out.decode().split():
        raise Broken(f"importing {name} loads {', '.join(loaded)}; the connectors' process must stay small")


def _sources(kind: type[Connector]) -> list[Path]:
    """The files of the connector: its module, or its whole package."""
    path = Path(inspect.getfile(kind))
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def _imports(tree: ast.AST) -> Iterator[str]:
    """First parts of the names that are imported anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


# -- sending --------------------------------------------------------------------------------------------------


def _answers(case: ConnectorCase) -> Iterator[tuple[str, Outbound]]:
    """Answers that egress may hand over, by what they are."""
    size = case.kind.capabilities.text_bytes_max or 20_000
    for what, text in {
        "a short answer": "A perch. 🐔",
        "an empty answer": "",
        "the longest answer": "a" * size,
    }.items():
        yield what, _outbound(case, text=text)
    yield "a cancelled answer with a note", _outbound(case, text="A per", finish="cancelled", notes=("cut short",))


def _refusals(case: ConnectorCase) -> Iterator[tuple[str, Outbound]]:
    for code in ("unavailable", "rejected", "a_code_of_next_year"):
        problem = Problem(code, "the model is away; try again\nlater")
        yield f"an error ({code})", _outbound(case, finish="error", error=problem)


def _outbound(case: ConnectorCase, **fields: Any) -> Outbound:
    return Outbound(id="contract-gone", channel="contract", conversation="contract", reply=case.reply, **fields)


async def _send(case: ConnectorCase, connector: Connector, what: str, message: Outbound) -> None:
    """Two times, as after a crash."""
    for again in ("", ", sent again,"):
        try:
            async with asyncio.timeout(case.send_s):
                await connector.send(message)
        except TimeoutError:
            raise Broken(f"send() of {what}{again} for nobody took more than {case.send_s:g} s") from None
        except Exception as error:
            raise Broken(f"send() of {what}{again} for nobody raised {error!r}") from error


@rule
async def an_answer_that_nobody_waits_for_is_sent(case: ConnectorCase) -> None:
    """`send` returns soon when the one who asked has gone, and may be called again with the same answer."""
    async with running(case) as connector:
        for what, message in _answers(case):
            await _send(case, connector, what, message)


@rule
async def an_error_is_sent_like_an_answer(case: ConnectorCase) -> None:
    """`send` delivers the plain reason why there is no answer, also one with a code it does not know."""
    async with running(case) as connector:
        for what, message in _refusals(case):
            await _send(case, connector, what, message)


@rule
async def an_answer_may_come_before_run(case: ConnectorCase) -> None:
    """After a restart answers wait already: before `run` is up, `send` delivers or raises Disconnected or Retryable."""
    async with case.host() as host:
        connector = made(case, host)
        for what, message in (*_answers(case), *_refusals(case)):
            try:
                async with asyncio.timeout(case.send_s):
                    await connector.send(message)
            except (Disconnected, Retryable):
                return
            except TimeoutError:
                raise Broken(f"before run(), send() of {what} took more than {case.send_s:g} s") from None
            except Exception as error:
                raise Broken(f"before run(), send() of {what} raised {error!r}; raise Disconnected") from error


# -- running --------------------------------------------------------------------------------------------------


@rule
async def run_ends_when_it_is_cancelled(case: ConnectorCase) -> None:
    """`run` stops soon after it is cancelled, lets the cancel through and leaves no task."""
    async with case.host() as host:
        await _stopped(case, made(case, host), host, case.up)


@rule
async def run_ends_when_it_is_cancelled_at_its_start(case: ConnectorCase) -> None:
    """The same when the cancel comes while `run` still starts."""
    async with case.host() as host:
        for turns in TURNS:
            await _stopped(case, made(case, host), host, partial(_turns, turns))


@rule
async def run_can_be_run_again(case: ConnectorCase) -> None:
    """A connector whose link was lost is run again: nothing of the first run stands in its way."""
    async with case.host() as host:
        connector = made(case, host)
        for _ in range(2):
            await _stopped(case, connector, host, case.up)


async def _turns(turns: int, host: Host) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def _stopped(
    case: ConnectorCase, connector: Connector, host: Host, up: Callable[[Host], Awaitable[None]]
) -> None:
    """Run it until `up`, and then not any more."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(connector.run(host.emit), name="contract-run")
    try:
        await _up(case, task, host, up)
        task.cancel()
        await asyncio.wait((task,), timeout=case.stop_s)
        if not task.done():
            raise Broken(f"run() goes on {case.stop_s:g} s after it was cancelled")
        if not task.cancelled():
            how = f"raised {task.exception()!r}" if task.exception() is not None else "returned"
            raise Broken(f"run() {how} when it was cancelled; let CancelledError through")
        if left := asyncio.all_tasks() - before:
            _, left = await asyncio.wait(left, timeout=case.stop_s)
            if left:
                name = min(each.get_name() for each in left)
                raise Broken(f"run() left the task {name!r} behind; every task belongs to a TaskGroup")
    finally:
        await _swept(asyncio.all_tasks() - before)


async def _up(case: ConnectorCase, task: asyncio.Task[None], host: Host, up: Callable[[Host], Awaitable[None]]) -> None:
    """Wait until `run` receives; raises `Broken` when it ends instead."""
    ready = asyncio.ensure_future(up(host))
    try:
        await asyncio.wait((task, ready), timeout=case.stop_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not task.cancelled():
            how = f"raised {task.exception()!r}" if task.exception() is not None else "returned"
            raise Broken(f"run() {how} by itself; receive until cancelled (or give the case what it can connect to)")
        if not ready.done():
            raise Broken(f"run() was not up within {case.stop_s:g} s")
        await ready
    finally:
        await _swept({ready})


@asynccontextmanager
async def running(case: ConnectorCase) -> AsyncIterator[Connector]:
    """A connector that receives."""
    async with case.host() as host:
        connector = made(case, host)
        before = asyncio.all_tasks()
        task = asyncio.create_task(connector.run(host.emit), name="contract-run")
        try:
            await _up(case, task, host, case.up)
            yield connector
        finally:
            task.cancel()
            await asyncio.wait((task,), timeout=case.stop_s)
            await _swept(asyncio.all_tasks() - before)


async def _swept(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Nothing that a broken connector leaves behind shall disturb the next rule; a task may refuse once."""
    for _ in range(SWEEPS):
        if tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=SWEEP_S)
