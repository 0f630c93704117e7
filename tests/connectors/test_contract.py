"""The contract suite over every registered connector and the example plug-in, and over ones that break one rule."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec import Struct

from bus.client import Bus
from bus.embedded import Embedded
from bus.endpoints import Endpoints
from bus.programs import free_port
from connectors import Capabilities, Connector, ConnectorSettings, Emit, Host, Outbound
from connectors.host.contract import RULES, Broken, ConnectorCase, Rule, broken
from connectors.host.quiet import QuietHost, quiet_host
from connectors.host.registry import GROUP
from connectors.nats import NatsConnector
from connectors.openai import OpenAIConnector
from connectors.web import WebConnector
from schemas.errors import Retryable, RoostError
from schemas.message import Inbound, Sender
from tests.bus.conftest import elsewhere
from tests.bus.real import config_of, soon
from tests.conftest import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "line_connector"


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    with elsewhere(Embedded(config_of(), tmp_path_factory.mktemp("contract"))) as opened:
        yield opened


def front_door(request: pytest.FixtureRequest) -> ConnectorCase:
    """The one connector that needs a bus: its platform is NATS."""
    servers: Endpoints = request.getfixturevalue("endpoints")

    @asynccontextmanager
    async def host() -> AsyncIterator[Host]:
        bus = await Bus.connect(servers, config_of(), name="contract")
        try:
            with pytest.raises(Retryable):  # the first request of a connection starts a task of its own
                await bus.request("roost.contract.nobody", b"", 5.0)
            async with quiet_host(bus) as opened:
                yield opened
        finally:
            await bus.close()

    async def up(host: Host) -> None:
        async def answers() -> bool:
            try:
                return bool(await host.bus.request("$SRV.PING.roost", b"", 1.0))
            except RoostError:
                return False

        await soon(answers, "the service answers")

    return ConnectorCase(NatsConnector, reply={"subject": "_INBOX.gone", "id": "17"}, host=host, up=up, stop_s=3.0)


def line(request: pytest.FixtureRequest) -> ConnectorCase:
    request.getfixturevalue("monkeypatch").syspath_prepend(str(EXAMPLE))
    port = free_port("127.0.0.1")

    async def up(host: Host) -> None:
        async def opens() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            await writer.wait_closed()
            return True

        await soon(opens, "the port is open")

    kind = importlib.import_module("roost_line").LineConnector
    return ConnectorCase(kind, settings={"port": port}, reply={"key": "contract", "id": "17"}, up=up)


CASES: dict[str, Callable[[pytest.FixtureRequest], ConnectorCase]] = {
    "nats": front_door,
    "openai": lambda _: ConnectorCase(OpenAIConnector),
    "web": lambda _: ConnectorCase(WebConnector),
    "line": line,
}
KNOWN: dict[tuple[str, str], str] = {}
"""Rules that a plug-in of ours breaks, and why; each is a strict xfail until it is mended."""


def case_of(name: str, rule: Rule) -> Any:
    reason = KNOWN.get((name, rule.name))
    marks = [pytest.mark.xfail(strict=True, raises=Broken, reason=reason)] if reason else []
    return pytest.param(name, rule, id=f"{name}-{rule}", marks=marks)


@pytest.mark.parametrize(("name", "rule"), [case_of(name, rule) for name in CASES for rule in RULES])
def test_every_connector_keeps_the_contract(name: str, rule: Rule, request: pytest.FixtureRequest) -> None:
    rule.check(CASES[name](request))


def test_every_registered_connector_has_a_case() -> None:
    assert {point.name for point in entry_points(group=GROUP)} - set(CASES) == set()


def test_every_rule_says_what_it_wants() -> None:
    assert [rule.name for rule in RULES if not rule.says.endswith(".")] == []


def test_the_lines_of_the_guide_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    guide = (ROOT / "docs" / "write-a-connector.md").read_text()
    names: dict[str, Any] = {}
    lines = guide.partition("```py\n")[2].partition("```\n")[0]
    exec(lines.replace("7001", str(free_port("127.0.0.1"))), names)
    assert broken(names["CASE"]) == []
    names["test_it_keeps_the_contract"](RULES[0])


async def test_the_connectors_share_one_web_server_without_a_clash(tmp_path: Path) -> None:
    router = web.Application().router
    for kind in (OpenAIConnector, WebConnector):
        for route in kind(kind.__name__, kind.Settings(), QuietHost(tmp_path)).routes():
            route.register(router)


async def test_the_quiet_host_stores_an_id_once(tmp_path: Path) -> None:
    host = QuietHost(tmp_path)
    inbound = Inbound(id="1", conversation="c", sender=Sender(id="s"), text="hello")
    first, again = await host.emit(inbound), await host.emit(inbound)
    assert (first.duplicate, again.duplicate, first.request) == (False, True, again.request)
    assert host.emitted == [inbound]
    exchange = await host.follow("1") or await host.ask(inbound)
    assert exchange.accepted.duplicate
    assert (await anext(aiter(exchange))) is not None
    assert (await host.state("1")) == (await host.state(first.request)) == (await host.pending("s"))[0]


# -- a good one, and what can go wrong with it ----------------------------------------------------------------


class Good(Connector):
    capabilities = Capabilities(text_bytes_max=4096)

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return (web.post("/hook", self._hook), web.get("/hook", self._hook))

    async def _hook(self, request: web.Request) -> web.StreamResponse:
        return web.Response()

    async def send(self, message: Outbound) -> None: ...


class Loose(Good):
    class Settings(Struct):  # type: ignore[assignment]
        pass


class Hidden(Good):
    class Settings(ConnectorSettings, frozen=True):
        model: str = ""


class Eager(Good):
    def __init__(self, name: str, settings: ConnectorSettings, host: Host) -> None:
        raise OSError("nobody listens")


class Short(Good):
    capabilities = Capabilities(text_bytes_max=10)


class Twice(Good):
    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return (web.get("/hook", self._hook), web.get("/hook", self._hook))


class NoSlash(Good):
    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return (web.get("", self._hook),)


class Changing(Good):
    asked = 0

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        self.asked += 1
        return (web.get(f"/hook/{self.asked}", self._hook),)


class Waits(Good):
    async def send(self, message: Outbound) -> None:
        await asyncio.Event().wait()


class OnlyOnce(Good):
    async def run(self, emit: Emit) -> None:
        self.sent: set[str] = set()
        await asyncio.Event().wait()

    async def send(self, message: Outbound) -> None:
        if message.id in self.sent:
            raise ValueError("sent before")
        self.sent.add(message.id)


class KnownErrors(Good):
    async def send(self, message: Outbound) -> None:
        if message.error is not None:
            {"unavailable": 1, "rejected": 2}[message.error.code]


class Swallows(Good):
    async def run(self, emit: Emit) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return


class Lingers(Good):
    async def run(self, emit: Emit) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()


class Forgets(Good):
    async def run(self, emit: Emit) -> None:
        self.task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
        await asyncio.Event().wait()


class Returns(Good):
    async def run(self, emit: Emit) -> None: ...


class Hasty(Good):
    async def run(self, emit: Emit) -> None:
        task = asyncio.create_task(asyncio.Event().wait(), name="half-made")
        for _ in range(10):
            await asyncio.sleep(0)
        try:
            await asyncio.Event().wait()
        finally:
            task.cancel()


class OneRun(Good):
    begun = False

    async def run(self, emit: Emit) -> None:
        if self.begun:
            raise OSError("address in use")
        self.begun = True
        await asyncio.Event().wait()


SETTINGS = "settings_refuse_what_they_do_not_know"
ROUTES = "routes_are_unique_and_stay_the_same"
IMPORTS = "it_imports_nothing_that_is_not_its_own"
BAD: list[tuple[type[Connector], str, str]] = [
    (Loose, SETTINGS, "do not derive from ConnectorSettings"),
    (Hidden, SETTINGS, "'model' never arrives"),
    (Eager, SETTINGS, "connect in run(), not in __init__()"),
    (Short, "capabilities_make_sense", "text_bytes_max is 10"),
    (Twice, ROUTES, "the web server refuses"),
    (NoSlash, ROUTES, "does not begin with /"),
    (Changing, ROUTES, "differs in"),
    (Waits, "an_answer_that_nobody_waits_for_is_sent", "took more than 0.2 s"),
    (OnlyOnce, "an_answer_that_nobody_waits_for_is_sent", "sent again, for nobody raised ValueError"),
    (KnownErrors, "an_error_is_sent_like_an_answer", "raised KeyError('a_code_of_next_year')"),
    (OnlyOnce, "an_answer_may_come_before_run", "raised AttributeError"),
    (Swallows, "run_ends_when_it_is_cancelled", "let CancelledError through"),
    (Lingers, "run_ends_when_it_is_cancelled", "goes on 0.2 s after"),
    (Forgets, "run_ends_when_it_is_cancelled", "the task 'forgotten'"),
    (Returns, "run_ends_when_it_is_cancelled", "returned by itself"),
    (Hasty, "run_ends_when_it_is_cancelled_at_its_start", "the task 'half-made'"),
    (OneRun, "run_can_be_run_again", "OSError('address in use')"),
]


def check(name: str, case: ConnectorCase) -> str:
    with pytest.raises(Broken) as caught:
        next(rule for rule in RULES if rule.name == name).check(case)
    assert str(caught.value).startswith(f"{case.kind.__name__}: {name}: ")
    return str(caught.value)


def test_a_small_good_connector_breaks_nothing() -> None:
    assert broken(ConnectorCase(Good)) == []


@pytest.mark.parametrize(("kind", "name", "sentence"), BAD, ids=[f"{b[0].__name__}-{b[1]}" for b in BAD])
def test_a_broken_connector_is_told_what_it_does_wrong(kind: type[Connector], name: str, sentence: str) -> None:
    assert sentence in check(name, ConnectorCase(kind, send_s=0.2, stop_s=0.2))


BODY = """
from connectors import Connector, Outbound
class Imports(Connector):
    async def send(self, message: Outbound) -> None: ...
"""


@pytest.mark.parametrize(
    ("number", "imports", "sentence"),
    [
        (0, "import nats.aio.client", "imports nats: NATS is spoken in bus/ alone"),
        (1, "def later():\n    from torch import nn", "imports torch: models live in workers"),
        (2, "import roost_contract_deep", "loads torch"),
        (3, "import roost_contract_absent", "roost_contract_absent"),
    ],
)
def test_a_connector_that_imports_what_is_not_its_own_is_told(
    number: int, imports: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # the real one comes back afterwards, not a second time
    name = f"roost_contract_{number}"
    (tmp_path / "roost_contract_deep.py").write_text("import torch")
    (tmp_path / "roost_contract_absent.py").write_text("")
    (tmp_path / "torch.py").write_text("")
    (tmp_path / f"{name}.py").write_text(imports + BODY)
    try:
        kind = importlib.import_module(name).Imports
        (tmp_path / "roost_contract_absent.py").unlink()
        assert sentence in check(IMPORTS, ConnectorCase(kind))
    finally:
        for module in (name, "torch", "roost_contract_deep", "roost_contract_absent"):
            sys.modules.pop(module, None)


def test_every_rule_has_a_connector_that_breaks_it() -> None:
    assert {rule.name for rule in RULES} == {name for _, name, _ in BAD} | {IMPORTS}
