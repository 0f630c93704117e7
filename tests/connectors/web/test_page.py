"""The page in a real browser, as a person uses it. Every test also ends with a clean console: see `context`."""

from __future__ import annotations

import base64
import re
import uuid

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.connectors.web.conftest import PageServer, enter

pytestmark = pytest.mark.asyncio(loop_scope="session")

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
MANY = " ".join(f"w{n}" for n in range(200))
"""Four seconds of the model `slow`: long enough to do something meanwhile, also on a busy machine."""


def unique(text: str) -> str:
    """A question that no other test asks."""
    return f"{text} {uuid.uuid4().hex[:8]}"


async def ask(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="Message").fill(text)
    await page.keyboard.press("Enter")


def answers(page: Page):
    return page.get_by_role("article", name="Answer")


def done(page: Page):
    return page.locator(".exchange[data-status=done]")


async def test_a_wrong_code_is_refused_and_the_right_one_enters_in_any_writing(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await context.new_page()
    await page.goto(page_server.url)
    code = page.get_by_label("Access code")
    await expect(code).to_be_focused()
    await code.fill("not the code")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("not the access code")
    await code.fill(page_server.code.lower().replace("-", " "))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    await page.get_by_role("button", name="Log out").click()
    await expect(code).to_be_visible()
    await page.reload()
    await expect(code).to_be_visible()


async def test_an_answer_streams_and_the_conversation_gets_a_title(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.slow)
    text = unique("stream") + " " + MANY
    await ask(page, text)
    await expect(answers(page)).to_contain_text("w3")
    await expect(page.locator(".exchange")).to_have_attribute("data-status", "open")
    await expect(page.get_by_role("button", name="Stop answering")).to_be_visible()
    await expect(done(page)).to_have_count(1)
    assert (await page.locator(".markdown").inner_text()).strip() == text
    await expect(page.get_by_role("navigation").get_by_role("link").first).to_contain_text("stream")


async def test_escape_stops_the_answer_and_keeps_what_came(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, page_server.slow)
    await ask(page, MANY)
    await expect(answers(page)).to_contain_text("w2")
    await page.keyboard.press("Escape")
    await expect(answers(page)).to_contain_text("You stopped this answer.")
    await expect(answers(page)).to_contain_text("w2")
    await expect(answers(page)).not_to_contain_text("w199")


async def test_a_reload_while_streaming_goes_on_with_the_same_answer(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.slow)
    text = unique("reload") + " " + MANY
    await ask(page, text)
    await expect(answers(page)).to_contain_text("w2")
    await page.reload()
    await expect(page.get_by_role("article", name="You")).to_contain_text(text)
    await expect(done(page)).to_have_count(1)
    await expect(page.locator(".exchange")).to_have_count(1)
    assert (await page.locator(".markdown").inner_text()).strip() == text


async def test_retry_replaces_the_last_answer(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, page_server.fast)
    await ask(page, "one")
    await expect(done(page)).to_have_count(1)
    await ask(page, "two")
    await expect(done(page)).to_have_count(2)
    await expect(page.get_by_role("button", name="Try again")).to_have_count(1)
    async with page.expect_response(re.compile(r"/retry$")) as answered:
        await page.get_by_role("button", name="Try again").click()
    assert (await answered.value).status == 202
    await expect(done(page)).to_have_count(2)
    await page.reload()
    await expect(done(page)).to_have_count(2)
    await expect(answers(page).last).to_contain_text("two")


async def test_messages_sent_without_waiting_are_answered_in_order(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.fast)
    for n in range(5):
        await ask(page, f"number {n}")
    await expect(done(page)).to_have_count(5)
    assert [t.strip() for t in await page.locator(".markdown").all_inner_texts()] == [f"number {n}" for n in range(5)]


async def test_who_waits_sees_the_place_and_may_leave_the_queue(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.slow)
    await ask(page, MANY)
    await expect(answers(page)).to_contain_text("w1")
    await page.keyboard.press("Control+k")
    await ask(page, "behind it")
    await expect(page.get_by_text("in the queue")).to_be_visible()
    await page.get_by_role("button", name="Cancel").click()
    await expect(done(page)).to_have_count(1)


async def test_two_pages_show_the_same_conversation_while_it_grows(
    context: BrowserContext, page_server: PageServer
) -> None:
    first = await enter(context, page_server, page_server.slow)
    second = await context.new_page()
    await second.goto(page_server.url)
    text = unique("both")
    await ask(first, text + " " + MANY)
    await second.get_by_role("link", name=text[:13]).click()
    await expect(answers(second)).to_contain_text("w3")
    await expect(second.locator(".exchange")).to_have_attribute("data-status", "open")
    await expect(done(second)).to_have_count(1)
    await expect(answers(second)).to_contain_text("w199")


async def test_the_language_changes_at_once_and_is_remembered(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, page_server.fast)
    await ask(page, "你好")
    await page.get_by_role("button", name="切换到中文").click()
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    await expect(page.get_by_role("textbox", name="消息")).to_have_attribute("placeholder", "输入消息")
    await expect(page.get_by_role("button", name="重试")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("button", name="新对话")).to_be_visible()


async def test_a_chinese_browser_is_greeted_in_chinese(page_server: PageServer, browser) -> None:
    page = await browser.new_page(locale="zh-CN")
    await page.goto(page_server.url)
    await expect(page.get_by_role("button", name="继续")).to_be_visible()
    await page.context.close()


async def test_dark_follows_the_system_until_the_reader_chooses(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server)
    root = page.locator("html")
    await expect(root).to_have_attribute("data-theme", "light")
    await page.emulate_media(color_scheme="dark")
    await expect(root).to_have_attribute("data-theme", "dark")
    await expect(page.locator("body")).to_have_css("background-color", "rgb(22, 26, 25)")
    await page.get_by_role("button", name="Switch between light and dark").click()
    await expect(root).to_have_attribute("data-theme", "light")
    await page.reload()
    await expect(root).to_have_attribute("data-theme", "light")


async def test_an_image_is_shown_before_sending_and_in_the_message(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.fast)
    await page.locator("input[type=file]").set_input_files({"name": "dot.png", "mimeType": "image/png", "buffer": PNG})
    await expect(page.locator(".thumb:not(.busy)")).to_have_count(1)
    await ask(page, unique("look"))
    await expect(page.locator(".thumb")).to_have_count(0)
    await expect(done(page)).to_have_count(1)
    picture = page.get_by_role("article", name="You").get_by_role("img", name="dot.png")
    await expect(picture).to_have_js_property("naturalWidth", 1)
    await page.reload()
    await expect(picture).to_have_js_property("naturalWidth", 1)


async def test_what_is_no_image_is_refused_with_the_reason(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server)
    await page.locator("input[type=file]").set_input_files(
        {"name": "a.html", "mimeType": "text/html", "buffer": b"<script>"}
    )
    await expect(page.get_by_role("alert").filter(has_text="a.html")).to_contain_text("PNG")


async def test_html_in_an_answer_stays_text(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, page_server.fast)
    await ask(
        page,
        "<img src=x onerror=document.title='owned'> <script>document.title='owned'</script> ![p](http://h.example/p)",
    )
    await expect(done(page)).to_have_count(1)
    await expect(page.locator(".markdown")).to_contain_text("<script>")
    await expect(page.locator(".markdown img, .markdown script")).to_have_count(0)
    await expect(page.locator(".bubble")).to_contain_text("<img src=x")
    assert "owned" not in (await page.title()).split(" – ")[-1]


async def test_a_deleted_conversation_is_gone_after_a_question(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.fast)
    text = unique("forget me")
    await ask(page, text)
    row = page.get_by_role("listitem").filter(has_text=text)
    await expect(done(page)).to_have_count(1)
    await row.hover()
    await row.get_by_role("button", name="Delete this conversation").click()
    await expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(row).to_have_count(0)
    await expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()


async def test_everything_works_from_the_keyboard(context: BrowserContext, page_server: PageServer) -> None:
    page = await context.new_page()
    await page.goto(page_server.url)
    await expect(page.get_by_label("Access code")).to_be_focused()
    await page.keyboard.type(page_server.code)
    await page.keyboard.press("Enter")
    box = page.get_by_role("textbox", name="Message")
    await expect(box).to_be_focused()
    await page.keyboard.type("first")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("second")
    await expect(box).to_have_value("first\nsecond")
    await page.keyboard.press("Enter")
    await expect(done(page)).to_have_count(1)
    await page.keyboard.press("Control+k")
    await expect(done(page)).to_have_count(0)
    await expect(box).to_be_focused()
    skip = page.get_by_role("link", name="Skip to the message box")
    await skip.focus()
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(box).to_be_focused()


async def test_enter_that_ends_a_composition_does_not_send(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server)
    box = page.get_by_role("textbox", name="Message")
    await box.fill("nihao")
    await box.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "cancelable": True})
    await expect(box).to_have_value("nihao")
    await expect(page.locator(".exchange")).to_have_count(0)


async def test_a_draft_survives_a_reload(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server)
    await page.get_by_role("textbox", name="Message").fill("not yet finished")
    await page.reload()
    await expect(page.get_by_role("textbox", name="Message")).to_have_value("not yet finished")


async def test_on_a_phone_the_list_is_a_drawer(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server)
    await page.set_viewport_size({"width": 390, "height": 844})
    drawer = page.get_by_role("navigation", name="Conversations")
    await expect(drawer).to_be_hidden()
    await page.get_by_role("button", name="Open the list").click()
    await expect(drawer).to_be_visible()
    await expect(page.get_by_role("button", name="Close the list")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(drawer).to_be_hidden()
    assert await page.evaluate("document.documentElement.scrollWidth") == 390


async def test_what_is_written_without_a_connection_is_sent_when_it_is_back(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.fast)
    await ask(page, "before")
    await expect(done(page)).to_have_count(1)
    await context.set_offline(True)
    await ask(page, "while away")
    await expect(page.get_by_text("Waiting for the connection")).to_be_visible()
    await context.set_offline(False)
    await expect(done(page)).to_have_count(2)
    await expect(answers(page).last).to_contain_text("while away")


async def test_the_reader_who_scrolls_up_is_left_in_peace(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, page_server.fast)
    for n in range(6):
        await ask(page, f"line {n} " + "word " * 150)
        await expect(done(page)).to_have_count(n + 1)
    jump = page.get_by_role("button", name="Jump to the newest message")
    await expect(jump).to_be_hidden()
    scroller = page.get_by_role("region", name="Messages")
    await scroller.hover()
    await page.mouse.wheel(0, -1500)
    await expect(jump).to_be_visible()
    await page.get_by_role("combobox", name="Model").select_option(page_server.slow)
    await jump.click()
    await expect(jump).to_be_hidden()


async def test_automatic_chooses_the_model_and_says_why(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server)
    picker = page.get_by_role("combobox", name="Model")
    await expect(picker).to_have_value("")
    await expect(page.locator(".model-name")).to_have_text("Automatic")
    await ask(page, unique("hello there"))
    await expect(done(page)).to_have_count(1)
    await expect(page.locator(".facts")).to_contain_text(f"{page_server.fast} ·")
    await ask(page, unique("Write a Python function that sorts"))
    await expect(done(page)).to_have_count(2)
    await expect(page.locator(".facts").last).to_contain_text(f"{page_server.coder} (about code)")
    await page.reload()
    await expect(page.locator(".facts").last).to_contain_text(f"{page_server.coder} (about code)")
    await page.get_by_role("button", name="切换到中文").click()
    await expect(page.locator(".facts").last).to_contain_text("代码问题")
    await expect(page.locator(".model-name")).to_have_text("自动")


async def test_a_model_that_was_chosen_answers_until_automatic_is_chosen_again(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.fast)
    await ask(page, unique("Write a Python function that sorts"))
    await expect(page.locator(".facts")).to_contain_text(f"{page_server.fast} ·")
    await page.reload()
    await expect(page.locator(".model-name")).to_have_text(page_server.fast)
    await page.get_by_role("combobox", name="Model").select_option("")
    await expect(page.locator(".model-name")).to_have_text("Automatic")


async def test_a_command_chooses_the_model_for_its_message_and_for_its_retry(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server)
    await ask(page, "/code " + unique("tell me something"))
    await expect(page.locator(".facts")).to_contain_text(f"{page_server.coder} (your command)")
    await expect(page.locator(".markdown")).not_to_contain_text("/code")
    await page.get_by_role("button", name="Try again").click()
    await expect(done(page)).to_have_count(1)
    await expect(page.locator(".facts")).to_contain_text(f"{page_server.coder} ·")
