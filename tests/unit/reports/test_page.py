"""Pages made from Markdown: every text shows the characters it has, and nothing on a page leads out of it."""

from __future__ import annotations

import re

import jinja2
import pytest
from hypothesis import given
from pages import Page, line, names

from moola_mlflow.core.escape import markdown_code, markdown_text
from moola_mlflow.reports.page import html_page

PNG = b"\x89PNG"


@given(name=names)
def test_a_name_shows_its_characters_in_every_place(name: str) -> None:
    text, code, cell = markdown_text(name), markdown_code(name), markdown_code(name, in_table=True)
    page = Page(
        html_page(
            f"# {text} x\n\n{text}\n\n> {text}\n\n- {text}\n\n{code}\n\n| {text} |\n| --- |\n| {text} |\n| {cell} |\n\n"
            f"![{text}](figures/a.png)",
            {"a.png": PNG},
        )
    )
    assert page.open == []
    assert page.texts["h1"] == page.texts["title"] == [f"{line(name)} x"]
    assert page.texts["p"] == [line(name)] * 3
    assert page.texts["li"] == page.texts["th"] == page.texts["figcaption"] == [line(name)]
    assert page.texts["td"] == [line(name)] * 2
    assert page.texts["code"] == [line(name)] * 2
    assert page.attributes["img"][0]["alt"] == line(name)
    assert set(page.open) | set(page.attributes) == {
        *("html", "head", "meta", "link", "title", "style", "body", "h1", "p", "blockquote", "ul", "li", "code"),
        *("table", "thead", "tbody", "tr", "th", "td", "figure", "img", "figcaption"),
    }


@pytest.mark.parametrize(
    "markup",
    [
        "<script>alert(1)</script>",
        "<img src=http://e/x.png>",
        "[l](javascript:alert(1))",
        "[l](http://e)",
        "<http://e>",
        "[l]\n\n[l]: http://e",
        "![i](http://e/x.png)",
        "![i](javascript:alert(1))",
        "![i](figures/other.png)",
    ],
)
def test_markup_that_was_not_escaped_still_leads_nowhere(markup: str) -> None:
    html = html_page(f"# t\n\n{markup}", {"a.png": PNG})
    assert "<script" not in html
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    assert "<img" not in html


def test_a_page_has_a_policy_that_forbids_scripts_and_the_network() -> None:
    policies = [tag for tag in Page(html_page("# t")).attributes["meta"] if "http-equiv" in tag]
    assert policies == [
        {
            "http-equiv": "Content-Security-Policy",
            "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        }
    ]


def test_a_picture_is_part_of_the_page_with_its_caption() -> None:
    page = Page(html_page("# t\n\n![A *b* c.](figures/a.png)", {"a.png": PNG}))
    assert page.attributes["img"] == [{"alt": "A b c.", "src": "data:image/png;base64,iVBORw=="}]
    assert page.texts["figcaption"] == ["A b c."]


@pytest.mark.parametrize(("sign", "kind"), [("✔ ", "good"), ("✘ ", "bad"), ("⚠ ", "warn"), ("", "plain")])
def test_a_sign_gives_a_notice_and_a_bold_text_their_colour(sign: str, kind: str) -> None:
    page = Page(html_page(f"# t\n\n> {sign}**read this**\n\nIt is **{sign}so**."))
    assert page.attributes["blockquote"] == [{"class": kind}]
    assert page.attributes["strong"][1] == ({"class": kind} if sign else {})


def test_a_page_of_many_sections_has_a_link_to_each() -> None:
    titles = ["One", "Two & 2", "Phase 3: end", "…"]
    page = Page(html_page("# t\n\n" + "\n\n".join(f"## {title}\n\ntext" for title in titles)))
    assert page.texts["a"] == page.texts["h2"] == titles
    assert [tag["id"] for tag in page.attributes["h2"]] == ["one", "two-2", "phase-3-end", "section-4"]
    assert [tag["href"] for tag in page.attributes["a"]] == ["#one", "#two-2", "#phase-3-end", "#section-4"]
    assert "a" not in Page(html_page("# t\n\n## One\n\n## Two\n\n## Three")).attributes


def test_what_a_template_shows_beside_the_text_is_escaped_and_must_be_given() -> None:
    given = {"counts": [("<b>", "<i>")]}
    assert "<b>&lt;b&gt;</b><span>&lt;i&gt;</span>" in html_page("# t", None, "counts.html", **given)
    with pytest.raises(jinja2.UndefinedError):
        html_page("# t", None, "counts.html")
