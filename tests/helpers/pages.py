"""An HTML page as a browser reads it, and names that try to be markup."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import strategies as st

SIGNS = "#*_`~[](){}<>|\\!&;:/-+=.1a \n\t\"'$é"


class Page(HTMLParser):
    """The texts, classes and addresses of a page, by tag, and the tags that stand in its body."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.attributes: dict[str, list[dict[str, str | None]]] = {}
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.setdefault(tag, []).append(dict(attrs))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "every tag is closed in its place"

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data


def line(text: str) -> str:
    return " ".join(text.split())


names = st.one_of(st.text(st.sampled_from(SIGNS), max_size=30), st.text(max_size=30)).filter(
    lambda text: "\0" not in text and line(text) != ""
)
