"""Self-contained HTML pages made from Markdown: no script, no network, and no markup from names in the text."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from moola_mlflow.tracking import Artifacts

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = Artifacts.FIGURES
"""The folder beside the Markdown that its pictures lie in."""
MARKS = {"✔": "good", "✘": "bad", "⚠": "warn"}
"""Signs that Markdown begins a notice or a bold text with, and the class that they have in HTML."""
INTERVAL = re.compile(r"[-+]?\d+\.\d+ \[[-+]?\d+\.\d+, [-+]?\d+\.\d+\]")
"""A figure with its interval. In a narrow cell of a table it would break into three lines."""
MIN_LINKS = 4
"""Sections from which on a page has a line of links to them."""


@dataclass(frozen=True)
class PageSection:
    """One section of a page: its title as text, and what follows it as HTML that the template does not escape."""

    title: str
    anchor: str
    body: str

    @property
    def key(self) -> str:
        """The title as :func:`section_key` gives it."""
        return section_key(self.title)


def section_key(title: str) -> str:
    """Return by what charts find their section: a heading has one line, whatever the name in it.

    >>> section_key("Charts: two\\n lines")
    'Charts: two lines'
    """
    return " ".join(title.split())


def html_page(
    markdown: str, pictures: Mapping[str, bytes] | None = None, template: str = "page.html", **values: Any
) -> str:
    """Return one HTML page for a Markdown text that begins with its title.

    Pictures are PNG by file name; the page holds those that the Markdown names under ``figures/``, and no other link.
    ``values`` are what the template shows beside the text; Jinja2 escapes them.
    """
    parser = _parser()
    env = {"pictures": pictures or {}}
    tokens = parser.parse(markdown, env)
    _style(tokens)
    starts = [i for i, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]

    def render(start: int, end: int) -> str:
        return str(parser.renderer.render(tokens[start:end], parser.options, env))

    bounds = [3, *starts, len(tokens)]  # a heading is three tokens: opening, text, closing
    sections = [
        PageSection(text := _text(tokens[start + 1]), _anchor(text, number), render(start + 3, end))
        for number, (start, end) in enumerate(pairwise(bounds[1:]), 1)
    ]
    page = _templates().get_template(template)
    links = sections if len(sections) >= MIN_LINKS else []
    return page.render(title=_text(tokens[1]), intro=render(*bounds[:2]), sections=sections, links=links, **values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _parser() -> MarkdownIt:
    """Return a parser that makes no link and passes no HTML, so that an unescaped name could do no harm either."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink", "reference"])
    parser.add_render_rule("image", _image)
    return parser


def _image(renderer: RendererHTML, tokens: Sequence[Token], i: int, options: Any, env: Mapping[str, Any]) -> str:
    """Return a picture as a part of the page, with its caption; of a file that is not there the caption alone."""
    caption = html.escape(_text(tokens[i]))
    png = env["pictures"].get(str(tokens[i].attrs["src"]).removeprefix(FIGURES))
    if png is None:
        return caption
    data = base64.b64encode(png).decode()
    return f'<img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption>'


def _style(tokens: Sequence[Token]) -> None:
    """Give notices and bold texts the class of their sign, pictures a tag of their own, and intervals one line."""
    for i, token in enumerate(tokens):
        if token.type == "blockquote_open":
            token.attrJoin("class", MARKS.get(tokens[i + 2].content.lstrip("*")[:1], "plain"))
        children = token.children or []
        if [child.type for child in children] == ["image"]:
            tokens[i - 1].tag = tokens[i + 1].tag = "figure"
        for child in children:
            if child.type == "text":
                child.content = INTERVAL.sub(lambda m: m[0].replace(" ", "\xa0"), child.content)
        for opening, text in pairwise(children):
            if opening.type == "strong_open" and text.content[:1] in MARKS:
                opening.attrJoin("class", MARKS[text.content[:1]])


def _text(inline: Token) -> str:
    """Return the characters of a heading or a caption without its markup."""
    return "".join(child.content for child in inline.children or [])


def _anchor(title: str, number: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or f"section-{number}"
