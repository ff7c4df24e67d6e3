"""The page of `annotate` at two widths in two themes: nothing is cut off, everything can be read, names stay text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from annotate_pages import NARROW, WIDE, Opened, chromium, faults_by_axe, opened
from harness import Store
from playwright.sync_api import Browser, expect
from small_sessions import Served, serving

import moola_mlflow
from moola_mlflow.bars.sample import generate_bars

pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=alert(1)>"
SYMBOL = "<b>ES</b>"
PAGE = Path(moola_mlflow.__file__).parent / "annotate" / "page"
LOOKS = list(itertools.product((WIDE, NARROW), ("light", "dark")))
TEXT_ON = {
    "text": ("ground", "surface", "raised"),
    "muted": ("ground", "surface", "raised"),
    "error": ("error-ground", "ground"),
    "on-accent": ("accent",),
    **{f"tone-{i}": ("surface",) for i in range(9)},
}
"""Colours of text, and the colours that they are seen on."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A session on bars, with a class and an instrument, whose names are HTML."""
    store = Store(tmp_path_factory.mktemp("looks"))
    bars = generate_bars(3_000, 5)
    bars["symbol"] = SYMBOL
    bars.to_parquet(store.folder / f"{HOSTILE}.parquet")
    with serving(store, bars=f"{HOSTILE}.parquet", annotate__classes=f"consolidation,retracement,{HOSTILE}") as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(params=LOOKS, ids=[f"{size['width']}-{scheme}" for size, scheme in LOOKS])
def tab(request: pytest.FixtureRequest, browser: Browser, served: Served) -> Iterator[Opened]:
    """The page in one size and theme, with two events of two classes and bars around the window."""
    size, scheme = request.param
    with opened(browser, served.client.link, size, scheme) as tab:
        tab.press(
            ["Space", "Shift+ArrowRight", "1", "Space", "Shift+ArrowRight", "Space", "Shift+ArrowRight", "3", ","]
        )
        expect(tab.page.locator(".outside")).not_to_have_count(0)
        yield tab


def test_axe_finds_nothing(tab: Opened) -> None:
    for keys in ([], ["?"], ["Escape", "q"]):
        tab.press(keys)
        assert faults_by_axe(tab) == []


def test_nothing_is_cut_off_or_scrolls_sideways(tab: Opened) -> None:
    wide, seen = tab.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= seen
    for button in tab.page.locator("#work button:visible, header button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= seen
    if seen > 1000:
        assert tab.page.evaluate("document.documentElement.scrollHeight <= innerHeight")


def test_every_button_and_field_has_a_name(tab: Opened) -> None:
    nameless = tab.page.evaluate("""() => [...document.querySelectorAll("button, textarea")]
        .filter((one) => !(one.getAttribute("aria-label") || one.labels?.[0]?.innerText || one.textContent).trim())
        .map((one) => one.outerHTML)""")
    assert nameless == []


def test_names_that_are_html_stay_text(tab: Opened) -> None:
    expect(tab.page.locator("#classes")).to_contain_text(HOSTILE)
    expect(tab.page.locator("#events")).to_contain_text(HOSTILE)
    expect(tab.page.locator("#overlay")).to_contain_text(HOSTILE)
    expect(tab.page.locator("#instrument")).to_have_text(SYMBOL)
    expect(tab.page.locator("#bars")).to_contain_text(HOSTILE)
    expect(tab.page.locator("body img, body script, #instrument b")).to_have_count(0)


def test_the_wheel_moves_nothing_on_the_chart(tab: Opened) -> None:
    before = tab.page.locator("#chart").get_attribute("aria-label"), tab.events()
    tab.page.mouse.move(tab.x(30), tab.y())
    tab.page.mouse.wheel(0, 300)
    assert (tab.page.locator("#chart").get_attribute("aria-label"), tab.events()) == before


def test_the_theme_is_switched_by_a_key_and_kept(browser: Browser, served: Served) -> None:
    with opened(browser, served.client.link) as tab:
        tab.press(["d"])
        expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")
        tab.page.reload()
        tab.settled()
        expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")


def colours(theme: Literal["light", "dark"]) -> dict[str, str]:
    """The colours of a theme by name, as the style sheet has them."""
    css = (PAGE / "annotate.css").read_text()
    light, dark = (
        re.search(pattern, css, re.DOTALL) for pattern in (r":root \{(.*?)\}", r'\[data-theme="dark"\] \{(.*?)\}')
    )
    assert light is not None
    assert dark is not None
    found = dict(re.findall(r"--([\w-]+): (#\w{6})", light[1]))
    return found if theme == "light" else found | dict(re.findall(r"--([\w-]+): (#\w{6})", dark[1]))


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa_and_candles_can_be_seen(theme: Literal["light", "dark"]) -> None:
    known = colours(theme)
    pairs = [*((text, ground) for text, grounds in TEXT_ON.items() for ground in grounds)]
    pairs += [("on-tone", f"tone-{i}") for i in range(9)]
    assert [pair for pair in pairs if contrast(known[pair[0]], known[pair[1]]) < 4.5] == []
    shapes = itertools.product(("up", "down", "tone-none"), ["surface"])
    assert [pair for pair in shapes if contrast(known[pair[0]], known[pair[1]]) < 3] == []


def test_the_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
