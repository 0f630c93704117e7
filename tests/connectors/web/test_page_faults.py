"""The page when things go wrong behind it, and with answers that only a prepared model gives."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from schemas.message import token
from schemas.model import ModelStatus
from tests.connectors.web.conftest import PageServer, double_server, enter
from tests.connectors.web.test_page import MANY, answers, ask, done

pytestmark = pytest.mark.asyncio(loop_scope="session")
CODE = "Look:\n\n```python\nprint('hello')\n```\n\nDone."


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page_server() -> AsyncIterator[PageServer]:
    async with double_server() as server:
        yield server


async def test_code_has_its_language_and_is_copied_as_it_is(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, "fast")
    await page.get_by_role("textbox", name="Message").fill(CODE)
    await page.get_by_role("button", name="Send").click()
    await expect(done(page)).to_have_count(1)
    await expect(page.locator(".code-language")).to_have_text("python")
    await page.get_by_role("button", name="Copy", exact=True).click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == "print('hello')\n"
    await page.get_by_role("button", name="Copy the answer").click()
    await expect(page.locator(".tools .done")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == CODE


async def test_a_full_queue_says_so_and_the_question_can_be_sent_again(
    context: BrowserContext, page_server: PageServer
) -> None:
    assert page_server.host is not None
    page = await enter(context, page_server, "fast")
    page_server.host.full = True
    await ask(page, "is there room?")
    await expect(page.get_by_role("alert").filter(has_text="queue is full")).to_be_visible()
    page_server.host.full = False
    await page.get_by_role("button", name="Send again").click()
    await expect(answers(page)).to_contain_text("is there room?")


async def test_a_failed_answer_says_why_and_can_be_tried_again(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, "fast")
    await ask(page, "FAIL please")
    await expect(answers(page).get_by_role("alert")).to_contain_text("ran out of memory")
    await expect(page.get_by_role("button", name="Try again")).to_be_visible()


async def test_a_worker_that_begins_anew_replaces_what_was_shown(
    context: BrowserContext, page_server: PageServer
) -> None:
    assert page_server.host is not None
    page = await enter(context, page_server, "slow")
    async with page.expect_response("**/messages") as sent:
        await ask(page, MANY)
    await expect(answers(page)).to_contain_text("w40")
    page_server.host.restart((await (await sent.value).json())["request"])
    await expect(answers(page)).not_to_contain_text("w40 ")
    await page.keyboard.press("Escape")
    await expect(done(page)).to_have_count(1)


async def test_a_model_nobody_serves_cannot_be_chosen_and_says_why(
    context: BrowserContext, page_server: PageServer
) -> None:
    assert page_server.host is not None
    page_server.host.extra = [ModelStatus(name="big", type="llama", worker="", state="absent", reason="file missing")]
    page = await enter(context, page_server)
    option = page.get_by_role("option", name="big")
    await expect(option).to_be_disabled()
    await expect(option).to_have_text("big (not available: file missing)")
    page_server.host.extra = []


async def test_a_session_that_ended_leads_back_to_the_door(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, "fast")
    await page.get_by_role("textbox", name="Message").fill("hello")
    await context.clear_cookies()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Access code")).to_be_visible()


async def test_a_conversation_named_in_the_address_is_opened(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, "fast")
    await ask(page, "remember this")
    await expect(done(page)).to_have_count(1)
    address = page.url
    assert len(address.rpartition("/")[2]) == len(token("x"))
    other = await context.new_page()
    await other.goto(address)
    await expect(answers(other)).to_contain_text("remember this")
