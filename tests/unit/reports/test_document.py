"""A report is written as Markdown and as the page made from it; text of others is text in both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from pages import Page, line, names

from moola_mlflow.core.errors import UserError
from moola_mlflow.reports.document import (
    Code,
    Document,
    Heading,
    Items,
    Mono,
    Notice,
    Para,
    Picture,
    Strong,
    Table,
    output_folder,
)
from moola_mlflow.reports.page import html_page

HOSTILE = "<script>alert(1)</script> | `x` **b** [l](javascript:1) ![i](http://e/x.png) _u_ &amp; \n# h"


def hostile_document() -> Document:
    return Document(HOSTILE, [
        Heading(HOSTILE), Para((HOSTILE, Mono(HOSTILE), Strong(HOSTILE, True))), Notice(HOSTILE, "warn"),
        Items([HOSTILE]),
        Table([HOSTILE, "b"], [(HOSTILE, Mono(HOSTILE))]), Code("```\n" + HOSTILE),
        Picture("a.png", b"png", HOSTILE),
    ])  # fmt: skip


def test_text_of_others_is_text_in_html_wherever_it_stands() -> None:
    html = hostile_document().html()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 10
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)


def test_text_of_others_is_text_in_markdown_wherever_it_stands() -> None:
    markdown = hostile_document().markdown()
    fenced = re.sub(r"(?ms)^````\n.*?^````$", "", markdown)  # longer than the fence in the text
    prose = re.sub(r"(``+) .*? \1", "", fenced)  # code spans, longer than the tick in the text
    assert not re.search(r"(?<!\\)<", prose)
    assert not re.search(r"(?<!\\)\]\((?!figures/)", prose)
    assert not re.search(r"(?<!\\)\*\*b", prose)
    table = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [3, 3, 3]
    assert not re.search(r"^# h", prose, re.MULTILINE)


def test_the_page_is_made_from_the_markdown() -> None:
    document = hostile_document()
    assert document.html() == html_page(document.markdown(), {"a.png": b"png"})


@given(name=names)
@example(name="a ##")
def test_names_show_their_characters_in_every_block(name: str) -> None:
    cells = (name, Mono(name), Strong(name), (Mono("x"), f" {name}"))
    page = Page(Document(name, [
        Heading(name), Heading(name, 3), Para(cells[3]), Notice(name), Items([name]), Table([name] * 4, [cells]),
        Code(name), Picture("a.png", b"png", name),
    ]).html())  # fmt: skip
    shown = line(name)
    assert page.texts["h1"] == page.texts["title"] == page.texts["h2"] == page.texts["h3"] == [shown]
    assert page.texts["p"] == [f"x {shown}", shown]
    assert page.texts["li"] == page.texts["figcaption"] == [shown]
    assert page.texts["th"] == [shown] * 4
    assert page.texts["td"] == [*[shown] * 3, f"x {shown}"]
    assert page.texts["pre"] == [re.sub("\r\n?", "\n", name.rstrip()) + "\n"]


def test_news_have_a_sign_and_a_warning_too() -> None:
    blocks = [Para((Strong("met", True), " ", Strong("missed", False), " ", Strong("run"))), Notice("look", "warn"),
              Notice("bad", "bad"), Notice("plain"), Items([(Strong("", True), " done")])]  # fmt: skip
    assert Document("t", blocks).markdown().split("\n\n")[1:] == [
        "**✔ met** **✘ missed** **run**", "> ⚠ look", "> ✘ bad", "> plain", "- **✔** done\n",
    ]  # fmt: skip


def test_a_document_is_written_whole_and_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    document = hostile_document()
    assert document.write(tmp_path / "new", "report") == ["report.md", "report.html"]
    assert (tmp_path / "new" / "figures" / "a.png").read_bytes() == b"png"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"out='.*file' cannot be a folder"):
        output_folder(str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        document.write(tmp_path / "file", "report")
    assert (tmp_path / "file").read_text() == "mine"
    assert output_folder("") is None
