"""A page to try in a real browser, before a whole Roost or before the gateway in memory."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from msgspec import Struct
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from connectors.host.http import HttpServer
from connectors.web import WebConnector
from schemas.config import Config, ConnectorConfig, HttpConfig, ModelConfig
from schemas.message import Kind
from tests.conftest import missing
from tests.connectors.web.double import DoubleHost, DoubleModel
from tests.running import running

CHROMIUM = "/usr/bin/chromium"
WAIT_MS = 15_000
"""Longer than anything takes on a busy machine; only a failing test waits for it."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROUTES: dict[str, tuple[Kind, ...]] = {"coder": ("code",)}
WATCH = """
addEventListener("securitypolicyviolation", (e) => console.error("CSP:", e.violatedDirective, e.blockedURI, e.sample));
"""


class PageServer(Struct):
    """A running page. Its model `fast` answers at once with the words of the text; `slow` has one slot and time."""

    url: str
    code: str
    fast: str
    slow: str
    coder: str = "coder"
    """For code, where no model is chosen."""
    host: DoubleHost | None = None
    """The gateway behind it, where that is the double."""


@asynccontextmanager
async def double_server(more: Sequence[DoubleModel] = ()) -> AsyncIterator[PageServer]:
    """The connector on a port of its own over the double, with these models beside the usual ones."""
    models = [DoubleModel("fast"), DoubleModel("slow", slots=1, delay_s=0.02), DoubleModel("coder"), *more]
    config = Config(
        models=tuple(
            ModelConfig(name=m.status.name, type=m.status.type, routes=ROUTES.get(m.status.name, ())) for m in models
        ),
        connectors=(ConnectorConfig(type="web", name="web"),),
    )
    async with DoubleHost(models, config) as host:
        connector = WebConnector("web", WebConnector.Settings(), host)
        server = HttpServer(HttpConfig(listen="127.0.0.1:0"), connector.routes())
        await server.start()
        running = asyncio.create_task(connector.run(host.emit))
        try:
            yield PageServer(url=server.url, code=host.secrets["web-access-code"], fast="fast", slow="slow", host=host)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def page_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PageServer]:
    """What the browser tests talk to: a whole Roost, or the double where `ROOST_TEST_PAGE` is `double`."""
    if os.environ.get("ROOST_TEST_PAGE") == "double":
        async with double_server() as server:
            yield server
        return
    slow = {"name": "slow", "type": "echo", "slots": 1, "delay_token_ms": 20}
    coder = {"name": "coder", "type": "echo", "routes": list(ROUTES["coder"])}
    models = [{"name": "fast", "type": "echo"}, slow, coder]
    with running(tmp_path_factory.mktemp("page"), {"models": models}) as roost:
        yield PageServer(url=roost.http, code=roost.code(), fast="fast", slow="slow")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    if not shutil.which(CHROMIUM):
        missing(f"{CHROMIUM} does not exist; install it with `apt-get install chromium`")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser, page_server: PageServer) -> AsyncIterator[BrowserContext]:
    """A browser of its own; afterwards no script error, no breach of the policy and no other host were seen."""
    wrong: list[str] = []
    context = await browser.new_context(locale="en-GB", viewport={"width": 1200, "height": 800})
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    await context.add_init_script(WATCH)

    def said(kind: str, text: str) -> None:
        if kind == "error" and not text.startswith("Failed to load resource"):
            wrong.append(text)

    def asked(url: str) -> None:
        if not url.startswith((page_server.url, "data:", "blob:")):
            wrong.append(f"request to {url}")

    context.on("console", lambda message: said(message.type, message.text))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("request", lambda request: asked(request.url))
    yield context
    await context.close()
    assert wrong == []


async def enter(context: BrowserContext, server: PageServer, model: str = "") -> Page:
    """A page behind the door, with `model` chosen."""
    page = await context.new_page()
    await page.goto(server.url)
    await page.get_by_label("Access code").fill(server.code)
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("textbox", name="Message").wait_for()
    if model:
        await page.get_by_role("combobox", name="Model").select_option(model)
    return page
