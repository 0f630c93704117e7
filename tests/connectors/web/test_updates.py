"""New versions of models, as the page tells of them: in a real browser, in both languages."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import BrowserContext, Page, expect

from schemas.update import Phase, UpdateStatus
from tests.connectors.web.conftest import PageServer, double_server, enter

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROW = UpdateStatus(
    name="slots", site="host-abcdef", phase="fetching", at=1.0, current="1.3.0", version="1.4.0", done=135_000_000,
    size=270_000_000, models=("fast",),
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page_server() -> AsyncIterator[PageServer]:
    async with double_server() as server:
        yield server


@pytest.fixture
def slots(page_server: PageServer) -> list[UpdateStatus]:
    """The rows of the table UPDATES; empty at the beginning of a test."""
    assert page_server.host is not None
    page_server.host.slots.clear()
    return page_server.host.slots


def told(page: Page) -> Any:
    return page.get_by_role("region", name="New versions of models")


async def test_nothing_is_shown_while_every_model_is_as_it_was(
    context: BrowserContext, page_server: PageServer, slots: list[UpdateStatus]
) -> None:
    slots.append(replace(ROW, phase="idle", version=""))
    page = await enter(context, page_server)
    async with page.expect_response("**/api/models"):
        await page.reload()
    await expect(page.get_by_role("combobox", name="Model")).to_be_visible()
    await expect(told(page)).to_be_hidden()


async def test_the_bar_grows_while_a_version_is_fetched_and_the_phases_follow(
    context: BrowserContext, page_server: PageServer, slots: list[UpdateStatus]
) -> None:
    slots.append(ROW)
    page = await enter(context, page_server)
    await expect(told(page)).to_contain_text("version 1.4.0 is being fetched")
    await expect(told(page)).to_contain_text("fast")
    await expect(told(page)).to_contain_text("50 % of 270 MB")
    bar = told(page).get_by_role("progressbar")
    await expect(bar).to_have_js_property("value", 135_000_000)
    slots[0] = replace(ROW, done=243_000_000)
    await expect(bar).to_have_js_property("value", 243_000_000)
    await expect(told(page)).to_contain_text("90 %")
    slots[0] = replace(ROW, phase="canary", done=ROW.size)
    await expect(told(page)).to_contain_text("answers some of the new conversations")
    await expect(bar).to_have_count(0)
    slots[0] = replace(ROW, phase="watching", current="1.4.0", until=time.time() + 600)
    await expect(told(page)).to_contain_text("version 1.4.0 answers, and is being watched until")
    slots[0] = replace(ROW, phase="idle", current="1.4.0", version="")
    await expect(told(page)).to_be_hidden()


async def test_an_open_list_of_models_stays_as_it_is_while_the_bar_grows(
    context: BrowserContext, page_server: PageServer, slots: list[UpdateStatus]
) -> None:
    slots.append(ROW)
    page = await enter(context, page_server)
    await expect(told(page)).to_contain_text("50 %")
    await page.evaluate("document.querySelector('.picker option').dataset.same = 'yes'")
    slots[0] = replace(ROW, done=243_000_000)
    await expect(told(page)).to_contain_text("90 %")
    await expect(page.locator(".picker option").first).to_have_attribute("data-same", "yes")


async def test_why_a_version_was_not_kept_is_told_until_it_is_hidden(
    context: BrowserContext, page_server: PageServer, slots: list[UpdateStatus]
) -> None:
    reason = "12 of 30 answers failed, 3 of 300 before"
    slots.append(replace(ROW, phase="idle", version="", reason=reason))
    page = await enter(context, page_server)
    await expect(told(page)).to_contain_text("the new version was not kept; version 1.3.0 answers")
    await expect(told(page)).to_contain_text(reason)
    await told(page).get_by_role("button", name="Hide this").click()
    await expect(told(page)).to_be_hidden()
    async with page.expect_response("**/api/models"):
        await page.reload()
    await expect(page.get_by_role("combobox", name="Model")).to_be_visible()
    await expect(told(page)).to_be_hidden()
    slots[0] = replace(ROW, phase="staged", reason="it takes 5.1 GB and 3.0 GB are free")
    await page.reload()
    await expect(told(page)).to_contain_text("is here and waits")
    await expect(told(page)).to_contain_text("3.0 GB are free")


async def test_in_chinese_every_word_but_the_reason_is_chinese(
    context: BrowserContext, page_server: PageServer, slots: list[UpdateStatus]
) -> None:
    slots.append(ROW)
    page = await enter(context, page_server)
    await expect(told(page)).to_contain_text("50 %")
    await page.get_by_role("button", name="切换到中文").click()
    chinese = page.get_by_role("region", name="模型的新版本")
    await expect(chinese).to_contain_text("正在下载 1.4.0 版")
    await expect(chinese).to_contain_text("50%")
    slots[0] = replace(ROW, phase="watching", until=time.time() + 600)
    await expect(chinese).to_contain_text("观察至")
    told_of = "(phases) => import('/static/i18n.js').then(({ t }) => phases.map((phase) => t(`update.${phase}`)))"
    said = await page.evaluate(told_of, list(get_args(Phase)))
    assert len(set(said)) == len(get_args(Phase))
    assert all(any("\u4e00" <= sign <= "\u9fff" for sign in words) for words in said), said


async def test_markup_in_a_reason_stays_text_and_a_long_one_does_not_widen_the_page(
    context: BrowserContext, page_server: PageServer, slots: list[UpdateStatus]
) -> None:
    slots.append(replace(ROW, phase="failed", reason="<img src=x onerror=document.title='owned'> " + "x" * 400))
    page = await enter(context, page_server)
    await page.set_viewport_size({"width": 390, "height": 844})
    await expect(told(page)).to_contain_text("<img src=x")
    assert await page.locator(".updates img").count() == 0
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
