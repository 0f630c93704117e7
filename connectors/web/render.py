"""Markdown to safe HTML, block by block. Pure: text in, HTML out; no page, no network.

Two walls: raw HTML in the text is never taken as HTML (markdown-it with `html` off), and what comes out passes an
allow-list (nh3). Images never load from anywhere: a model that could name an address could send the conversation
there, so they become links.

What always holds: after any sequence of growing texts, `Blocks.html` equals `whole(text)` of the last one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping, Sequence
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

ALIGN = ("align-left", "align-center", "align-right")
LANGUAGE = re.compile(r"language-[\w+#.-]{1,40}")
DOCUMENT = re.compile(r"^ {0,3}<!doctype html\b", re.IGNORECASE | re.MULTILINE)
DOCUMENT_END = re.compile(r"</html>[ \t]*", re.IGNORECASE)
FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
TAGS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "strong", "em", "s"}
TAGS |= {"a", "br", "hr", "table", "thead", "tbody", "tr", "th", "td"}


def _attribute(tag: str, name: str, value: str) -> str | None:
    """Filter of attribute values that depend on more than their name."""
    if tag == "code" and name == "class":
        return value if LANGUAGE.fullmatch(value) else None
    if tag in ("th", "td") and name == "class":
        return value if value in ALIGN else None
    return value


CLEANER = nh3.Cleaner(
    tags=TAGS,
    clean_content_tags={"script", "style"},
    attributes={"a": {"href", "title"}, "code": {"class"}, "ol": {"start"}, "th": {"class"}, "td": {"class"}},
    attribute_filter=_attribute,
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={"a": {"target": "_blank"}},
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
)


def _image(
    renderer: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: MutableMapping[str, Any]
) -> str:
    """An image as a link with its description."""
    token = tokens[at]
    source = str(token.attrs.get("src", ""))
    text = renderer.renderInlineAsText(token.children or [], options, env) or source
    return f'<a href="{escapeHtml(source)}">{escapeHtml(text)}</a>'


def _align(state: StateCore) -> None:
    """Table alignment as classes: the page's policy forbids style attributes."""
    for token in state.tokens:
        style = token.attrs.pop("style", None)
        if isinstance(style, str) and style.startswith("text-align:"):
            token.attrs["class"] = "align-" + style.removeprefix("text-align:")


def _parser() -> MarkdownIt:
    # `breaks`: small models end lines where they mean it. The limit on nesting keeps "> > > …" cheap.
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20})
    parser.enable(["table", "strikethrough"])
    parser.disable(["html_block", "html_inline"])
    parser.add_render_rule("image", _image)
    parser.core.ruler.push("align", _align)
    parser.parse("*", {})  # compiles the rule chains, so that other threads find them ready
    return parser


PARSER = _parser()


def _groups(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """Split a token stream into top-level blocks."""
    start = 0
    for at, token in enumerate(tokens):
        if token.level == 0 and token.nesting <= 0:
            yield tokens[start : at + 1]
            start = at + 1


def _html(group: Sequence[Token], env: MutableMapping[str, Any]) -> str:
    return CLEANER.clean(PARSER.renderer.render(group, PARSER.options, env))


def _normal(text: str) -> str:
    return _fenced(text.replace("\r\n", "\n").replace("\r", "\n"))


def _fenced(text: str) -> str:
    """A whole HTML document that was written without a fence as what it is: code."""
    begin = DOCUMENT.search(text)
    if begin is None or len(FENCE.findall(text, 0, begin.start())) % 2:
        return text
    end = DOCUMENT_END.search(text, begin.end())
    if end is None:
        return f"{text[: begin.start()]}`````html\n{text[begin.start() :]}"
    return f"{text[: begin.start()]}`````html\n{text[begin.start() : end.end()]}\n`````\n{text[end.end() :]}"


@lru_cache(maxsize=512)
def whole(text: str) -> tuple[str, ...]:
    """All blocks of a finished text."""
    env: dict[str, Any] = {}
    return tuple(_html(group, env) for group in _groups(PARSER.parse(_normal(text), env)))


class Blocks:
    """The blocks of a text that grows; only the last ones are rendered again.

    A block is settled once two more have begun behind it: a line that is still being written may turn from a
    block of its own into the continuation of the one before, but reaches no further back. Link reference
    definitions do reach back, so nothing is settled while there are any.
    """

    def __init__(self) -> None:
        self.html: list[str] = []
        self._prefix = ""
        self._settled = 0

    def update(self, text: str) -> int:
        """Take the whole text as it is now; returns the index of the first block that changed."""
        text = _normal(text)
        if not text.startswith(self._prefix):
            self._prefix, self._settled = "", 0
        tail = text[len(self._prefix) :]
        env: dict[str, Any] = {}
        groups = list(_groups(PARSER.parse(tail, env)))
        if env.get("references") and self._prefix:
            self._prefix, self._settled = "", 0
            return self.update(text)
        html = self.html[: self._settled] + [_html(group, env) for group in groups]
        if not env.get("references") and len(groups) > 2:
            first = groups[-2][0].map
            assert first is not None, "every top-level block of markdown-it has its lines"
            self._prefix += _lines(tail, first[0])
            self._settled += len(groups) - 2
        return self._replace(html)

    def _replace(self, html: list[str]) -> int:
        at = 0
        for old, new in zip(self.html, html, strict=False):
            if old != new:
                break
            at += 1
        self.html = html
        return at


def _lines(text: str, count: int) -> str:
    """The first `count` lines of `text`, as markdown-it counts lines."""
    end = 0
    for _ in range(count):
        end = text.index("\n", end) + 1
    return text[:end]
