"""A page to try: served by the in-memory gateway, or by a running Roost where `ROOST_TEST_URL` names one."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from msgspec import Struct
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from connectors.host.http import HttpServer
from connectors.web import WebConnector
from schemas.config import HttpConfig
from tests.connectors.web.double import DoubleHost, DoubleModel

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WATCH = """
addEventListener("securitypolicyviolation", (e) => console.error("CSP:", e.violatedDirective, e.blockedURI, e.sample));
"""


class PageServer(Struct):
    """A running page. Its model `fast` answers at once with the words of the text, `slow` takes its time with one slot."""

    url: str
    code: str
    fast: str
    slow: str
    host: DoubleHost | None = None
    """The gateway behind it, where that is the double."""


@asynccontextmanager
async def double_server() -> AsyncIterator[PageServer]:
    """The connector on a port of its own over the double."""
    models = [DoubleModel("fast"), DoubleModel("slow", slots=1, delay_s=0.04)]
    async with DoubleHost(models) as host:
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
async def page_server() -> AsyncIterator[PageServer]:
    """What the browser tests talk to."""
    if url := os.environ.get("ROOST_TEST_URL"):
        yield PageServer(
            url=url,
            code=os.environ["ROOST_TEST_CODE"],
            fast=os.environ.get("ROOST_TEST_FAST", "fast"),
            slow=os.environ.get("ROOST_TEST_SLOW", "slow"),
        )
        return
    async with double_server() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    if not shutil.which(CHROMIUM):
        if os.environ.get("ROOST_TEST_NO_SKIP") == "1":
            pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium")
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser, page_server: PageServer) -> AsyncIterator[BrowserContext]:
    """A browser of its own; afterwards no script error, no breach of the policy and no other host were seen."""
    wrong: list[str] = []
    context = await browser.new_context(locale="en-GB", viewport={"width": 1200, "height": 800})
    context.set_default_timeout(8_000)
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
