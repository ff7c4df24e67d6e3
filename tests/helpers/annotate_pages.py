"""The page of `annotate` in headless Chromium, and what a person types and draws on it."""

from __future__ import annotations

import importlib.resources
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
from harness import browser_path
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

CLASSES = ("consolidation", "retracement")
MIDDLE = 52
"""Bar on which the cursor of a new window is."""
LEFT, RIGHT = 12, 62
"""Pixels of the chart beside its bars: chart.js."""
PATIENCE_MS = 30_000
WIDE, NARROW = ViewportSize(width=1280, height=720), ViewportSize(width=800, height=1100)


@dataclass(frozen=True)
class Said:
    """What a person says of a window: events as (class, first bar, last bar), or a skip."""

    events: tuple[tuple[str, int, int], ...] = ()
    grade: str | None = None
    notes: str | None = None
    skipped: bool = False


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
        expect.set_options(timeout=PATIENCE_MS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A tab with the page, and what went wrong in it."""

    page: Page
    wrong: list[str] = field(default_factory=list)

    def go(self, link: str) -> None:
        self.page.goto(link)
        self.settled()

    def settled(self, number: int | None = None) -> None:
        """Wait for a chart, of the window with this number if one is given."""
        if number is not None:
            expect(self.page.locator("#number")).to_have_text(f"window {number}")
        expect(self.page.locator("#chart .plot-container, #done:not([hidden])").first).to_be_visible()
        expect(self.page.locator("#work")).to_have_attribute("aria-busy", "false")

    @property
    def number(self) -> int:
        return int(re.sub(r"\D", "", self.page.locator("#number").inner_text()))

    def press(self, keys: list[str]) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def decide(self, keys: list[str]) -> None:
        """Type keys, the last one of which decides, and wait for the next window."""
        number = self.number
        self.press(keys)
        self.settled(number + 1)

    def events(self) -> list[str]:
        """What the list of events says: class and times."""
        return [" ".join(text.split()) for text in self.page.locator("#events .choose").all_inner_texts()]

    def x(self, bar: int) -> float:
        box = self.page.locator("#overlay").bounding_box()
        assert box is not None
        return box["x"] + LEFT + (bar + 0.5) / 105 * (box["width"] - LEFT - RIGHT)

    def y(self) -> float:
        box = self.page.locator("#overlay").bounding_box()
        assert box is not None
        return box["y"] + box["height"] / 2

    def drag(self, first: int, last: int) -> None:
        mouse = self.page.mouse
        mouse.move(self.x(first), self.y())
        mouse.down()
        mouse.move(self.x((first + last) // 2), self.y())
        mouse.move(self.x(last), self.y())
        mouse.up()

    def click(self, bar: int) -> None:
        self.page.mouse.click(self.x(bar), self.y())


def watched(page: Page) -> Opened:
    """A tab that notes errors of the console, dialogs, and requests that leave this machine."""
    tab = Opened(page)
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda said: tab.wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: tab.wrong.append(str(error)))
    page.on("dialog", lambda dialog: (tab.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda asked: tab.wrong.append(asked.url) if _leaves(asked.url) else None)
    return tab


def _leaves(url: str) -> bool:
    return not re.match(r"(http://127\.0\.0\.1:|data:|blob:)", url) or url.endswith("/x")


@contextmanager
def opened(
    browser: Browser, link: str, size: ViewportSize = WIDE, scheme: Literal["light", "dark"] = "light"
) -> Iterator[Opened]:
    """The page in a browser profile of its own; nothing may have gone wrong at the end."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    try:
        tab = watched(context.new_page())
        tab.go(link)
        yield tab
        assert tab.wrong == []
    finally:
        context.close()


def faults_by_axe(tab: Opened) -> list[tuple[str, list[str]]]:
    """What axe-core, which the package axe-playwright-python carries, finds on the page: rules and elements."""
    if not tab.page.evaluate("'axe' in window"):
        tab.page.evaluate((importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text())
    result: dict[str, Any] = tab.page.evaluate("axe.run()")
    assert {"button-name", "color-contrast"} <= {one["id"] for one in [*result["passes"], *result["incomplete"]]}
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in result["violations"]]


def steps(start: int, end: int) -> list[str]:
    """Arrows from a bar to another, five bars at once where that is shorter."""
    way = "ArrowRight" if end > start else "ArrowLeft"
    fives, ones = divmod(abs(end - start), 5)
    return [f"Shift+{way}"] * fives + [way] * ones


def typed(said: Said) -> list[str]:
    """The keys that say this of a window, from the state in which it is shown."""
    keys, cursor = [], MIDDLE
    for i, (label, first, last) in enumerate(said.events):
        keys += ["Space"] if i else []  # leaves the event before; the cursor is behind it
        keys += [*steps(cursor, first), "Space", *steps(first, last), str(CLASSES.index(label) + 1)]
        cursor = last + 1
    if said.grade:
        keys.append(f"Shift+{said.grade}")
    if said.notes:
        keys += ["t", *(" ".join(said.notes).replace("   ", " Space ").split()), "Enter"]
    return [*keys, "s" if said.skipped else "Enter" if said.events else "n"]


def made_up(num: int, seed: int) -> list[Said]:
    """Things to say of some windows: one event, two, none, skips, grades, notes."""
    rng, found = random.Random(seed), []
    for i in range(num):
        first = rng.randrange(5, 40)
        one = (rng.choice(CLASSES), first, first + rng.randrange(1, 14))
        second = rng.randrange(58, 85)
        two = (rng.choice(CLASSES), second, second + rng.randrange(2, 15))
        events = [(one,), (), (one, two), (two,)][i % 4]
        grade = rng.choice([None, None, *"ABCD"])
        notes = rng.choice([None, None, "two legs"])
        found.append(Said(skipped=True) if i % 10 == 5 else Said(events, grade, notes))
    return found


def in_file(path: Path) -> dict[str, Said]:
    """What a labels file says, by window."""
    found: dict[str, Said] = {}
    for row in pq.read_table(path).to_pylist():
        before = found.get(row["window_id"], Said(grade=row["grade"], notes=row["notes"]))
        events = before.events if row["label"] == "none" else (*before.events, _event(row))
        found[row["window_id"]] = Said(tuple(sorted(events, key=lambda event: event[1])), before.grade, before.notes)
    return found


def in_journal(path: Path) -> list[dict[str, Any]]:
    """The decisions of a journal, the oldest first."""
    lines = [json.loads(text)["line"] for text in path.read_text().splitlines()]
    return [line["decision"] for line in lines if line["kind"] == "decision"]


def _event(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["label"], int(row["expansion_start"]), int(row["expansion_end"])
