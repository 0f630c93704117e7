"""The page while processes behind it die: it says so, comes back by itself, and loses nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, expect

from tests.connectors.web.conftest import WAIT_MS, PageServer, enter
from tests.connectors.web.test_page import answers, ask, done
from tests.running import RunningRoost, running

pytestmark = pytest.mark.asyncio(loop_scope="session")
WORDS = [f"w{n}" for n in range(80)]


@pytest.fixture(scope="module")
def roost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRoost]:
    """One whose web server comes back on the same port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    slow = {"name": "slow", "type": "echo", "slots": 2, "delay_token_ms": 40}
    with running(tmp_path_factory.mktemp("killed"), {"models": [slow], "http": {"listen": listen}}) as started:
        yield started


async def test_killed_connectors_and_worker_cost_the_reader_nothing(browser: Browser, roost: RunningRoost) -> None:
    expect.set_options(timeout=2 * WAIT_MS)
    context = await browser.new_context(locale="en-GB")
    page = await enter(context, PageServer(url=roost.http, code=roost.code(), fast="slow", slow="slow"))
    await ask(page, " ".join(WORDS))
    await expect(answers(page)).to_contain_text("w5")
    roost.kill("connectors")
    await ask(page, "sent while away")
    await expect(page.get_by_text("Waiting for the connection")).to_be_visible()
    await expect(done(page)).to_have_count(2)
    assert (await page.locator(".markdown").first.inner_text()).strip() == " ".join(WORDS)
    await expect(page.locator(".banner")).to_be_hidden()

    await ask(page, " ".join(reversed(WORDS)))
    await expect(answers(page).last).to_contain_text("w75")
    roost.kill("worker")
    await expect(done(page)).to_have_count(3)
    assert (await page.locator(".markdown").last.inner_text()).strip() == " ".join(reversed(WORDS))
    await page.reload()
    await expect(done(page)).to_have_count(3)
    assert [t.strip() for t in await page.locator(".bubble").all_inner_texts()] == [
        " ".join(WORDS),
        "sent while away",
        " ".join(reversed(WORDS)),
    ]
    await context.close()
