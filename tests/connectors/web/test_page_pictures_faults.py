"""Pictures in the page when something is wrong: files that are gone, altered or no pictures, hostile words, workers
that die, a small screen. The gateway is the double, whose model makes what the test says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import BrowserContext, Page, expect

from schemas.message import Attachment, Delta
from tests.connectors.web.conftest import PageServer, double_server, enter
from tests.connectors.web.double import DoubleHost, DoubleModel, Job
from tests.connectors.web.pictures import JPEG, made

COUNT_SPEECH = """() => {
  window.spoken = 0;
  const count = (records) => window.spoken += records.filter((r) => r.target.ariaLive === "polite").length;
  new MutationObserver(count).observe(document.body, { childList: true, subtree: true });
}"""

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page_server() -> AsyncIterator[PageServer]:
    async with double_server([DoubleModel("painter", slots=0, kind="diffusion")]) as server:
        yield server


@pytest.fixture
def host(page_server: PageServer) -> DoubleHost:
    assert page_server.host is not None
    return page_server.host


async def ask(page: Page, host: DoubleHost) -> Job:
    """Ask for a picture; it is made when the test says."""
    known = set(host.jobs)
    await page.get_by_role("textbox", name="Message").fill("/image a red boat")
    async with page.expect_response(re.compile("/messages$")):
        await page.keyboard.press("Enter")
    (new,) = set(host.jobs) - known
    return host.jobs[new]


async def shown(context: BrowserContext, server: PageServer, *files: Attachment) -> tuple[Page, Job]:
    """A page with an answer of these pictures."""
    assert server.host is not None
    page = await enter(context, server)
    await expect(page.get_by_role("combobox", name="Model")).to_be_visible()
    job = await ask(page, server.host)
    server.host.painted(job.accepted.request, files)
    await expect(page.locator(".exchange[data-status=done]")).to_have_count(1)
    return page, job


async def test_a_picture_that_has_aged_out_says_so_and_can_be_made_again(
    context: BrowserContext, page_server: PageServer, host: DoubleHost
) -> None:
    gone, there = await made(host, "a red boat", 7), await made(host, "a red boat", 8)
    del host.blobs[gone.sha256]
    page, _ = await shown(context, page_server, gone, there)
    figure = page.locator(".made-one").first
    await expect(figure).to_contain_text("This picture is no longer kept here.")
    await expect(figure.locator("img")).to_have_count(0)
    await expect(page.locator(".made-one img")).to_have_js_property("naturalWidth", 64)
    await expect(figure.get_by_role("link", name="Download")).to_be_hidden()
    await expect(figure.get_by_role("button", name="Use as start")).to_be_hidden()
    await expect(figure.get_by_role("button", name="Copy the seed")).to_be_visible()
    async with page.expect_request(re.compile("/messages$")) as asked:
        await figure.get_by_role("button", name="Draw the same again").click()
    sent = (await asked.value).post_data_json
    assert (sent["text"], sent["model"], sent["sampling"]) == ("a red boat", "painter", {"seed": 7})
    assert sent["drawing"] == {"size": "64x64", "steps": 4, "guidance": 0}
    await page.keyboard.press("Escape")


async def test_an_altered_file_and_one_that_is_no_picture_are_not_shown(
    context: BrowserContext, page_server: PageServer, host: DoubleHost
) -> None:
    altered = await made(host, "altered", 21)
    host.blobs[altered.sha256] += b"!"
    page_of_html = await host.store(b"<script>document.title = 'owned'</script>", "image/png", "x.png")
    wrong = replace(page_of_html, drawn=altered.drawn)
    page, _ = await shown(context, page_server, altered, wrong)
    figures = page.locator(".made-one")
    await expect(figures.nth(0)).to_contain_text("was altered, so it is not shown")
    await expect(figures.nth(1)).to_contain_text("cannot be shown")
    response = await page.request.get(f"{page_server.url}/api/attachments/{wrong.sha256}")
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith("attachment")
    await page.get_by_role("button", name="All pictures").click()
    await expect(page.get_by_role("dialog").locator(".made-gone")).to_have_count(2)


async def test_a_picture_that_did_not_load_can_be_loaded_again(
    context: BrowserContext, page_server: PageServer, host: DoubleHost
) -> None:
    away = "**/api/attachments/*"
    await context.route(away, lambda route: route.abort())
    page, _ = await shown(context, page_server, await made(host, "a red boat", 31))
    await expect(page.locator(".made-one")).to_contain_text("The picture could not be loaded.")
    await context.unroute(away)
    await page.get_by_role("button", name="Try again").first.click()
    await expect(page.locator(".made-one img")).to_have_js_property("naturalWidth", 64)
    await expect(page.get_by_role("link", name="Download")).to_be_visible()


async def test_hostile_words_are_words(context: BrowserContext, page_server: PageServer, host: DoubleHost) -> None:
    prompt = '<img src=x onerror="document.title=\'owned\'"> ‮evil\n& "quoted"'
    picture = await made(host, prompt, 41, model="../../<b>etc", negative="<script>alert(1)</script>")
    page, _ = await shown(context, page_server, picture)
    await expect(page.locator(".made-one img")).to_have_attribute("alt", prompt)
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Download").click()
    assert (await downloading.value).suggested_filename == "b-etc-seed-41.png"
    await page.locator(".made-open").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Left out: <script>alert(1)</script>")
    assert await page.locator("dialog b, dialog script").count() == 0
    assert "owned" not in await page.title()


async def test_a_flood_of_progress_ends_with_the_newest_and_a_preview_that_is_none_is_not_shown(
    context: BrowserContext, page_server: PageServer, host: DoubleHost
) -> None:
    page = await enter(context, page_server)
    await expect(page.get_by_role("combobox", name="Model")).to_be_visible()
    request = (await ask(page, host)).accepted.request
    await page.evaluate(COUNT_SPEECH)
    for step in range(1, 7):
        host.paint(request, step, 5_000)
        await expect(page.locator(".painting")).to_contain_text(f"Step {step} of 5000")
    for step in range(7, 5_001):
        host.paint(request, step, 5_000, b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    await expect(page.locator(".painting")).to_contain_text("Step 5000 of 5000")
    assert await page.evaluate("spoken") <= 2, "that it has begun, and how far it is"
    await expect(page.locator(".preview-image")).to_be_hidden()
    host.paint(request, 5_000, 5_000, JPEG)
    await expect(page.locator(".preview-image")).to_be_visible()
    host.jobs[request].tell(Delta(request=request, attempt=2))
    host.paint(request, 1, 4, attempt=2)
    await expect(page.locator(".painting")).to_contain_text("Step 1 of 4")
    await page.keyboard.press("Escape")


async def test_a_page_opened_anew_while_the_worker_is_silent_shows_how_far_it_was(
    context: BrowserContext, page_server: PageServer, host: DoubleHost
) -> None:
    page = await enter(context, page_server)
    await expect(page.get_by_role("combobox", name="Model")).to_be_visible()
    request = (await ask(page, host)).accepted.request
    host.paint(request, 3, 9, JPEG)
    await expect(page.locator(".painting")).to_contain_text("Step 3 of 9")
    await page.reload()
    await expect(page.locator(".painting")).to_contain_text("Step 3 of 9")
    await expect(page.locator(".preview-image")).to_have_js_property("naturalWidth", 8)
    host.painted(request, ())
    await expect(page.locator(".painting")).to_be_hidden()


async def test_on_a_phone_nothing_is_wider_than_the_screen(
    context: BrowserContext, page_server: PageServer, host: DoubleHost
) -> None:
    four = [await made(host, "a boat " * 40, seed, width=96, height=64) for seed in (51, 52, 53, 54)]
    page, _ = await shown(context, page_server, *four)
    await page.set_viewport_size({"width": 360, "height": 640})
    await page.get_by_role("textbox", name="Message").fill("/image more")
    await page.get_by_role("button", name="More").click()

    async def fits(box: str) -> None:
        wide = "(box) => [...box.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
        assert await page.locator(box).evaluate(f"(box) => ({wide})(box).map((e) => e.className)") == []

    await fits(".main")
    await page.locator(".made-open").first.click()
    await fits("dialog.large")
    await expect(page.get_by_role("dialog").get_by_role("button", name="Use as start")).to_be_in_viewport()
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="All pictures").click()
    await fits("dialog.gallery")
