"""The main job on the real model: three starts in a row, each answering on the page, NATS, HTTP and in the terminal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from playwright.async_api import async_playwright, expect

from tests.conftest import missing
from tests.connectors.web.conftest import CHROMIUM, FLAGS
from tests.running import RunningRoost

NAME = "text-generation"
QUESTION = "What is the capital of France? Answer in one short sentence."
PROMPT_TOKENS_MAX = 150


@pytest.mark.timeout(300)
async def test_three_starts_in_a_row_answer_everywhere(tmp_path: Path, starter_model: Path) -> None:
    if shutil.which(CHROMIUM) is None:
        missing(f"{CHROMIUM} is not installed (Debian package chromium)")
    model = {"name": NAME, "type": "llama", "path": str(starter_model), "max_tokens": 48}
    roost = RunningRoost(tmp_path, {"models": [model]})
    try:
        key = ""
        for run in range(3):
            roost.start()
            key = key or roost.key()
            await ask_on_nats(roost, run)
            await ask_over_http(roost, key)
            ask_in_the_terminal(roost)
            await ask_on_the_page(roost, run)
            roost.stop()
    finally:
        roost.stop()


async def ask_on_nats(roost: RunningRoost, run: int) -> None:
    client = await roost.client()
    hello = await roost.ask(client, {"text": "hello", "temperature": 0}, timeout_s=60)
    assert hello["text"].strip()
    assert hello["usage"]["prompt_tokens"] < PROMPT_TOKENS_MAX
    # a conversation goes on over restarts: what the model read before is part of what it reads now
    answer = await roost.ask(
        client, {"text": QUESTION, "conversation": "over-restarts", "temperature": 0}, timeout_s=60
    )
    assert answer["text"].strip()
    assert answer["version"] == "b179c9523d0e"
    if run:
        assert answer["usage"]["prompt_tokens"] > 60
    await client.close()


async def ask_over_http(roost: RunningRoost, key: str) -> None:
    async with AsyncOpenAI(base_url=f"{roost.http}/v1", api_key=key, max_retries=0, timeout=60) as client:
        reply = await client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=24
        )
        assert "Paris" in (reply.choices[0].message.content or "")
        stream = await client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=24, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert "Paris" in text


def ask_in_the_terminal(roost: RunningRoost) -> None:
    result = roost.cli("chat", "--json", QUESTION, timeout_s=60)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["text"].strip()


async def ask_on_the_page(roost: RunningRoost, run: int) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await (await browser.new_context(locale="en-GB")).new_page()
        await page.goto(roost.http)
        await page.get_by_label("Access code").fill(roost.code())
        await page.get_by_role("button", name="Continue").click()
        conversations = page.get_by_role("navigation").get_by_role("link")
        await expect(conversations).to_have_count(run, timeout=30_000)
        box = page.get_by_role("textbox", name="Message")
        await box.fill(f"{QUESTION} ({run})")
        await box.press("Enter")
        await expect(page.get_by_role("button", name="Try again")).to_be_visible(timeout=60_000)
        answer = await page.get_by_role("article", name="Answer").inner_text()
        assert answer.strip()
        await expect(conversations).to_have_count(run + 1)
        await browser.close()
