"""Pictures in the page: a real browser before a whole Roost, whose model `painter` makes them of one colour each.

What only a broken store or a hostile name can show is in test_page_pictures_faults.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.connectors.web.conftest import PageServer, enter
from tests.running import running
from tests.tools import painter

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = {**painter.MODEL, "resolution": "128x128", "steps": 4, "delay_step_ms": 50}
LONG = "150"
"""Steps of a picture that is not done before the test is."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PageServer]:
    models = [{"name": "fast", "type": "echo"}, MODEL]
    folder = tmp_path_factory.mktemp("pictures")
    with running(folder, {"models": models}, environment=painter.environment()) as roost:
        yield PageServer(url=roost.http, code=roost.code(), fast="fast", slow="painter")


async def open_page(context: BrowserContext, server: PageServer) -> Page:
    """Behind the door, with the models known."""
    page = await enter(context, server)
    await expect(page.get_by_role("combobox", name="Model")).to_be_visible()
    return page


async def ask(page: Page, text: str, **options: str) -> None:
    """Write, fill in options by their labels (`more` for those behind the button), and send."""
    box = page.get_by_role("textbox", name="Message")
    await box.fill(text)
    for label, value in options.items():
        field = page.get_by_label(label, exact=True)
        if not await field.is_visible():
            await page.get_by_role("button", name="More").click()
        await (field.select_option(value) if label in ("Size", "Number") else field.fill(value))
    await box.press("Enter")


def images(page: Page) -> Locator:
    return page.get_by_role("article", name="Answer").locator(".made-one img")


async def bytes_of(page: Page, image: Locator) -> bytes:
    response = await page.request.get(page.url.split("#")[0].rstrip("/") + str(await image.get_attribute("src")))
    assert response.ok
    return await response.body()


async def test_text_chat_shows_nothing_of_pictures(context: BrowserContext, page_server: PageServer) -> None:
    page = await open_page(context, page_server)
    await ask(page, "hello")
    await expect(page.locator(".exchange[data-status=done]")).to_have_count(1)
    await expect(page.get_by_role("group", name="Options of the picture")).to_be_hidden()
    await expect(page.get_by_role("button", name="All pictures")).to_be_hidden()
    await page.get_by_role("textbox", name="Message").fill("/imagine a boat")
    await expect(page.get_by_role("group", name="Options of the picture")).to_be_hidden()


async def test_progress_comes_with_a_preview_then_the_picture_in_the_same_place(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await open_page(context, page_server)
    await ask(page, "/image a red boat", Seed="7", Steps="12")
    bar = page.get_by_role("progressbar", name="Picture in the making")
    await expect(bar).to_have_attribute("aria-valuemax", "12")
    await expect(page.locator(".preview-image")).to_have_js_property("naturalWidth", 8)
    await expect(page.locator(".painting")).to_contain_text(re.compile(r"Step \d+ of 12 · about \d+ s left"))
    box = await page.locator(".canvas").bounding_box()
    await expect(images(page)).to_have_js_property("naturalWidth", 128)
    await expect(bar).to_be_hidden()
    there = await page.locator(".made-open").bounding_box()
    assert box is not None
    assert there is not None
    assert [box[side] for side in ("x", "width", "height")] == [there[side] for side in ("x", "width", "height")]
    await expect(images(page)).to_have_attribute("alt", "a red boat")
    await expect(page.locator(".made-how")).to_contain_text("painter painter-1 · 128 × 128 · 12 steps · brush · seed 7")
    await expect(page.locator(".after")).not_to_contain_text("answered with nothing")


async def test_a_reload_in_the_middle_shows_the_newest_progress_and_stop_stops(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await open_page(context, page_server)
    await ask(page, "/image a long boat", Steps=LONG)
    bar = page.get_by_role("progressbar", name="Picture in the making")
    await expect(bar).to_have_attribute("aria-valuetext", re.compile(r"Step \d+ of 150"))
    before = int(await bar.get_attribute("aria-valuenow") or "")
    await page.reload()
    await expect(bar).to_have_attribute("aria-valuetext", re.compile(r"Step \d+ of 150"))
    assert int(await bar.get_attribute("aria-valuenow") or "") >= before > 0
    await expect(page.locator(".preview-image")).to_have_js_property("naturalWidth", 8)
    await expect(page.locator(".exchange")).to_have_count(1)
    await page.get_by_role("button", name="Stop drawing").click()
    await expect(page.locator(".exchange")).to_have_attribute("data-status", "done")
    await expect(page.get_by_role("article", name="Answer")).to_contain_text("You stopped this answer.")
    await expect(page.locator(".painting")).to_be_hidden()
    await expect(images(page)).to_have_count(0)


async def test_again_with_another_seed_gives_another_picture_in_the_same_conversation(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await open_page(context, page_server)
    await ask(page, "/image a red boat", Seed="7", **{"Leave out": "sea"})
    await expect(images(page)).to_have_count(1)
    await page.get_by_role("button", name="Again with another seed").click()
    await expect(images(page)).to_have_count(2)
    await expect(page.get_by_role("article", name="You").last).to_have_text("a red boat")
    first, second = [painter.seen(await bytes_of(page, image)) for image in await images(page).all()]
    assert first[:2] == second[:2] == (128, 128)
    assert first[2] != second[2]
    hows = await page.locator(".made-how").all_inner_texts()
    assert [how.partition(" · seed ")[0] for how in hows] == ["painter painter-1 · 128 × 128 · 4 steps · brush"] * 2
    await page.reload()
    await expect(images(page)).to_have_count(2)


async def test_trying_again_draws_again_though_the_stored_question_has_no_command(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await open_page(context, page_server)
    await ask(page, "/image two boats", Number="2", Seed="3")
    await expect(images(page)).to_have_count(2)
    await page.reload()
    await expect(images(page)).to_have_count(2)
    async with page.expect_response(re.compile(r"/retry$")) as answered:
        await page.get_by_role("button", name="Try again").click()
    assert (await answered.value).status == 202
    await expect(page.locator(".exchange[data-status=done]")).to_have_count(1)
    await expect(images(page)).to_have_count(2)


async def test_a_download_is_the_png_under_a_name_with_model_and_seed(
    context: BrowserContext, page_server: PageServer, tmp_path: Path
) -> None:
    page = await open_page(context, page_server)
    await ask(page, "/image a red boat", Seed="7")
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Download").click()
    download = await downloading.value
    assert download.suggested_filename == "painter-seed-7.png"
    await download.save_as(tmp_path / "picture.png")
    data = (tmp_path / "picture.png").read_bytes()
    assert data == await bytes_of(page, images(page))
    assert painter.seen(data)[:2] == (128, 128)
    for name, copied in (("Copy the prompt", "a red boat"), ("Copy the seed", "7")):
        await page.get_by_role("button", name=name).click()
        await page.wait_for_function("text => navigator.clipboard.readText().then((now) => now === text)", arg=copied)


async def test_the_gallery_has_all_pictures_newest_first_and_shows_them_large(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await open_page(context, page_server)
    await ask(page, "/image first", Number="3", Seed="1", Size="Portrait 112 × 144")
    await expect(images(page)).to_have_count(3)
    await ask(page, "/image second", Number="1", Seed="9", Size="")
    await expect(images(page)).to_have_count(4)
    await page.get_by_role("button", name="All pictures").click()
    gallery = page.get_by_role("dialog", name="Pictures", exact=True)
    await expect(gallery.get_by_role("img")).to_have_count(4)
    await expect(gallery).to_contain_text("4 pictures")
    assert [await image.get_attribute("alt") for image in await gallery.get_by_role("img").all()] == [
        "second", "first", "first", "first",
    ]  # fmt: skip
    assert await gallery.locator("img:not([loading=lazy])").count() == 0
    await gallery.get_by_role("button", name="second").click()
    large = page.get_by_role("dialog", name="Picture", exact=True)
    await expect(large.get_by_role("status")).to_have_text("1 of 4")
    await page.keyboard.press("ArrowRight")
    await expect(large.get_by_role("status")).to_have_text("2 of 4")
    await expect(large.get_by_role("img")).to_have_attribute("alt", "first")
    await expect(large).to_contain_text("112 × 144")
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("ArrowLeft")
    await expect(large.get_by_role("status")).to_have_text("1 of 4")
    await page.keyboard.press("Escape")
    await expect(large).to_have_count(0)
    await expect(gallery).to_be_visible()
    await expect(gallery.get_by_role("button", name="second")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(gallery).to_have_count(0)
    await expect(page.get_by_role("button", name="All pictures")).to_be_focused()


async def test_a_picture_can_be_the_start_of_another(context: BrowserContext, page_server: PageServer) -> None:
    page = await open_page(context, page_server)
    await ask(page, "/image a red boat", Seed="7")
    await expect(images(page)).to_have_count(1)
    await images(page).click()
    await page.get_by_role("dialog").get_by_role("button", name="Use as start").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.locator(".thumb img")).to_have_js_property("naturalWidth", 128)
    box = page.get_by_role("textbox", name="Message")
    await expect(box).to_be_focused()
    await expect(box).to_have_value("/image ")
    await page.keyboard.type("the same at night")
    await page.get_by_label("How much may change").fill("0.4")
    await page.keyboard.press("Tab")
    await box.press("Enter")
    await expect(images(page)).to_have_count(2)
    await expect(page.locator(".made-how").last).to_contain_text("change 0.4")
    await page.get_by_role("button", name="Again with another seed").last.click()
    await expect(images(page)).to_have_count(3)
    await expect(page.locator(".made-how").last).to_contain_text("change 0.4")
    await expect(page.get_by_role("article", name="You").last.get_by_role("img")).to_have_count(1)


async def test_a_refused_option_brings_the_message_back_with_the_reason_beside_it(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await open_page(context, page_server)
    await ask(page, "/image a red boat", Steps="9999")
    box, steps = page.get_by_role("textbox", name="Message"), page.get_by_label("Steps", exact=True)
    await expect(steps).to_be_focused()
    await expect(steps).to_have_attribute("aria-invalid", "true")
    await expect(page.locator("#option-problem")).to_contain_text("steps: expected 1 to 150")
    await expect(box).to_have_value("/image a red boat")
    await expect(page.locator(".exchange")).to_have_count(0)
    await steps.fill("many")
    await box.press("Enter")
    await expect(page.locator("#option-problem")).to_have_text("Digits only, or nothing.")
    await steps.fill("2")
    await expect(page.locator("#option-problem")).to_be_hidden()
    await box.press("Enter")
    await expect(images(page)).to_have_count(1)


async def test_options_are_remembered_and_forgotten_on_logout(context: BrowserContext, page_server: PageServer) -> None:
    page = await open_page(context, page_server)
    await ask(page, "/image a", Size="Landscape 144 × 112", Seed="5", **{"Leave out": "rain"})
    await expect(images(page)).to_have_js_property("naturalWidth", 144)
    await page.reload()
    await expect(page.get_by_role("combobox", name="Model")).to_be_visible()
    await page.get_by_role("combobox", name="Model").select_option("painter")
    await expect(page.get_by_role("group", name="Options of the picture")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Message")).to_have_attribute("placeholder", "Describe a picture")
    await expect(page.get_by_label("Size", exact=True)).to_have_value("144x112")
    await expect(page.get_by_label("Leave out", exact=True)).to_have_value("rain")
    await page.get_by_role("textbox", name="Message").fill("without a command")
    await page.get_by_role("textbox", name="Message").press("Enter")
    await expect(images(page)).to_have_count(2)
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_label("Access code")).to_be_visible()
    assert await page.evaluate("localStorage.getItem('roost.drawing')") is None


async def test_a_command_counts_though_a_model_for_text_is_chosen(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.fast)
    await ask(page, "/image a red boat")
    await expect(images(page)).to_have_count(1)


async def test_everything_is_said_in_chinese(context: BrowserContext, page_server: PageServer) -> None:
    page = await open_page(context, page_server)
    await page.get_by_role("button", name="切换到中文").click()
    box = page.get_by_role("textbox", name="消息")
    await box.fill("/image 一艘红色的船")
    for label in ("尺寸", "数量", "种子"):
        await expect(page.get_by_label(label, exact=True)).to_be_visible()
    await page.get_by_role("button", name="更多").click()
    await page.get_by_label("步数", exact=True).fill("9")
    await box.press("Enter")
    await expect(page.locator(".painting")).to_contain_text(re.compile("第 \\d+ 步，共 9 步"))
    await expect(page.locator(".made-how")).to_contain_text("9 步")
    await page.get_by_role("button", name="换一个种子再画").wait_for()
    await page.get_by_role("button", name="此对话的全部图片").click()
    await expect(page.get_by_role("dialog", name="图片", exact=True)).to_contain_text("1 张图片")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Switch to English").click()
    await expect(page.get_by_role("button", name="Again with another seed")).to_be_visible()
