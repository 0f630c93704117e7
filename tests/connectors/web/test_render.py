"""The renderer: what a model writes can look like anything and do nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.web.render import Blocks, whole

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)></svg>",
    "<iframe src=https://evil.example></iframe>",
    "<style>body{display:none}</style>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](java&#10;script:alert(1))",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "[a](vbscript:x)",
    "[a](/api/logout)",
    "[a](//evil.example/x)",
    "![a](https://evil.example/x.png)",
    "![a](data:image/svg+xml;base64,PHN2Zz4=)",
    "<a href='https://ok.example' onclick='x()'>a</a>",
    '```"><script>alert(1)</script>\ncode\n```',
    "```py onload=x\ncode\n```",
    "| a |\n|:-:|\n| <b onmouseover=x>1</b> |",
    "<math><mtext><style><img src=x onerror=alert(1)></style>",
    "[a]: javascript:alert(1)\n\n[a]",
    "<form action=https://evil.example><input name=x></form>",
    "<base href=https://evil.example>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
]


def tags(html: str) -> set[str]:
    """Names of the elements that a browser would make of `html`."""
    from html.parser import HTMLParser

    found: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.add(tag)
            for name, value in attrs:
                found.add(f"{tag}@{name}")
                if name in ("href", "src"):
                    found.add(f"url:{(value or '').split(':')[0].lower()}")

    Reader().feed(html)
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_makes_no_element_or_address_that_acts(text: str) -> None:
    found = tags("".join(whole(text)))
    assert not found & {"script", "img", "svg", "iframe", "style", "math", "form", "input", "base", "meta", "b"}
    assert not {f for f in found if "@on" in f or "@style" in f or "@src" in f}
    assert {f for f in found if f.startswith("url:")} <= {"url:https", "url:http", "url:mailto"}


def test_links_open_elsewhere_and_tell_nothing() -> None:
    assert whole("[a](https://ok.example/?q=1)") == (
        '<p><a href="https://ok.example/?q=1" target="_blank" rel="noopener noreferrer nofollow">a</a></p>\n',
    )


def test_an_image_becomes_a_link_with_its_description() -> None:
    assert ">a <em>cat</em><" not in whole("![a *cat*](https://x.example/c.png)")[0]
    assert ">a cat</a>" in whole("![a *cat*](https://x.example/c.png)")[0]


def test_code_keeps_its_language_and_its_angle_brackets() -> None:
    assert whole("```c++\na<b>\n```") == ('<pre><code class="language-c++">a&lt;b&gt;\n</code></pre>\n',)


def test_table_alignment_is_a_class_not_a_style() -> None:
    (table,) = whole("| a | b |\n|--:|:-:|\n| 1 | 2 |")
    assert 'class="align-right"' in table
    assert "style=" not in table


def test_a_growing_text_sends_only_its_last_blocks() -> None:
    blocks = Blocks()
    blocks.update("# one\n\ntwo\n\nthree\n\nfo")
    assert blocks.update("# one\n\ntwo\n\nthree\n\nfour") == 3
    assert blocks.update("# one\n\ntwo\n\nthree\n\nfour\n\nfive") == 4
    assert blocks.update("other") == 0


BLOCKY = ["\n", "\n\n", "- ", "1. ", "7) ", "# ", "#", "> ", "```", "~~~", "    ", "\t", "|", "-|-", "---", "===", "+ "]
INLINE = ["a", "b c", "**", "_", "`", "[x]", "[x]: /u", "(http://e.example)", '"t', "'", "<b>", "</b>", "<!--", "~~"]
ODD = ["\r", "\r\n", "&amp;", "\\", "\u2028", "\x0b", "\x0c", "\x85", "\x00", "你好", "!", "***", "*", "  \n", "0"]
PIECES = st.sampled_from(BLOCKY + INLINE + ODD)


@given(st.lists(PIECES, max_size=40), st.data())
@settings(max_examples=400, deadline=None)
def test_rendering_piece_by_piece_equals_rendering_the_whole(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    blocks, shown = Blocks(), []
    for cut in [*cuts, len(text)]:
        start = blocks.update(text[:cut])
        shown[start:] = blocks.html[start:]
        assert tuple(shown) == whole(text[:cut])


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_renders_to_allowed_elements_only(text: str) -> None:
    found = tags("".join(whole(text)))
    assert not {f for f in found if "@on" in f or "@style" in f or "@src" in f}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<!doctype html>\n<p>a</p>\n\n<p>b</p>\n</html>", True),
        ("Here:\n<!DOCTYPE html>\n<html>\n\n# not a heading\n</html>\n*after*", True),
        ("<!doctype html>\n<p>still being writ", True),
        ("Write `<!doctype html>` first, then <html>.", False),
    ],
)
def test_a_whole_html_document_without_a_fence_is_code(text: str, code: bool) -> None:
    html = "".join(whole(text))
    assert ('class="language-html"' in html) is code
    assert "<h1>" not in html
    assert ("<em>after</em>" in html) is ("*after*" in text)


def test_a_document_within_a_fence_stays_as_it_is() -> None:
    text = "```html\n<!doctype html>\n<p>a</p>\n</html>\n```\nend"
    assert "".join(whole(text)).count("<pre>") == 1


def test_a_document_that_grows_shows_what_it_shows_when_it_is_whole() -> None:
    text = "Look:\n\n<!doctype html>\n<html>\n\n<p>a</p>\n</html>\n\nThat *is* it.\n\n- one\n- two\n"
    blocks = Blocks()
    for end in range(1, len(text) + 1):
        blocks.update(text[:end])
        assert tuple(blocks.html) == whole(text[:end])
