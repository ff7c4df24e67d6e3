"""Makes docs/images/annotate*.png: the page of `annotate` in a session of a hundred windows, in headless Chromium.

python tools/annotate_pictures.py

The first hundred windows of sample bars are labelled over the page's own addresses by the rule surge-1, which stands in
for a person. So the detector is fitted, and the pictures show a real session.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from browser import find_browser
from pictures import record
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright
from screenshots import COLOURS, IMAGES, ROOT

from moola_mlflow.labels import surge_rule

WIDE, NARROW = ViewportSize(width=1280, height=720), ViewportSize(width=800, height=1100)
NUM_LABELLED = 100
SESSION = "--bars.sample_bars 60000 --labels my_labels.parquet --annotator anna --port 0"
MIDDLE = 52
PATIENCE_MS = 120_000
PRICES = ("open", "high", "low", "close")


@contextmanager
def session(folder: Path, words: str = SESSION) -> Iterator[str]:
    """Run `moola annotate` in a folder; yield its link."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    started = [sys.executable, "-m", "moola_mlflow", "annotate", *words.split()]
    with open(folder / "annotate.log", "a") as log:
        process = subprocess.Popen(started, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            link = next((found[0] for line in process.stdout if (found := re.search(r"http://\S+token=\S+", line))), "")
            if not link:
                raise SystemExit(f"annotate ended:\n{(folder / 'annotate.log').read_text()[-3000:]}")
            yield link
        finally:
            process.terminate()
            process.wait()


def ask(link: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask an address of the page as a script does, with the token of its link in a header."""
    base, _, token = link.partition("/?token=")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{base}{path}", data, {"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return dict(json.loads(answer.read()))


def by_rule(window: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the event that the rule surge-1 sees in a window, if there is one."""
    ohlc = np.stack([np.array(window["bars"][name], np.float64) for name in PRICES], axis=-1)[None]
    (outcome,), (start,), (end,) = surge_rule.apply_rule(ohlc)
    if outcome not in (surge_rule.CONSOLIDATION, surge_rule.RETRACEMENT):
        return []
    return [{"label": surge_rule.CLASSES[outcome], "start": int(start), "end": int(end)}]


def label(link: str, num: int, seconds: float = 6.0) -> None:
    """Label windows by the rule, each as if it had been looked at for some seconds."""
    window = ask(link, "/api/window")
    for _ in range(num):
        said = {"ticket": window["ticket"], "action": "label", "events": by_rule(window), "seconds": seconds}
        window = ask(link, "/api/decision", said)
        wait_for_fit(link)


def wait_for_fit(link: str) -> None:
    """Wait for the detector's fit: a person would label a few windows meanwhile."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while ask(link, "/api/progress")["refit"]["running"] and time.monotonic() < deadline:
        time.sleep(0.2)


def until_suggested(link: str, limit: int = 100) -> list[dict[str, Any]]:
    """Label on to a window with an event that the detector suggests too; return the event."""
    window = ask(link, "/api/window")
    for _ in range(limit):
        events, suggested = by_rule(window), window["suggestion"] or []
        if events and [one["label"] for one in suggested] == [events[0]["label"]] and _near(events[0], suggested[0]):
            return events
        window = ask(link, "/api/decision", {"ticket": window["ticket"], "action": "label", "events": events})
    raise SystemExit(f"in no window of {limit} the detector suggests the event of the rule")


def until_contradicted(link: str, limit: int = 50) -> None:
    """Accept labels up to one that the detector sees elsewhere, or as another class."""
    window = ask(link, "/api/window")
    for _ in range(limit):
        if window["review"]["given"] and len(window["review"]["predicted"]) == 1:
            return
        window = ask(link, "/api/decision", {"ticket": window["ticket"], "action": "accept"})
    raise SystemExit(f"none of {limit} labels is contradicted")


def _near(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return abs(one["start"] + one["end"] - other["start"] - other["end"]) <= 6


@contextmanager
def opened(browser: Browser, link: str, size: ViewportSize, scheme: Literal["light", "dark"]) -> Iterator[Page]:
    """Open the page in a size and a theme."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(link)
    expect(page.locator("#chart .plot-container, #done:not([hidden])").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("#work")).to_have_attribute("aria-busy", "false")
    yield page
    context.close()


def press(page: Page, keys: list[str]) -> None:
    for key in keys:
        page.keyboard.press(key)


def mark(page: Page, event: Mapping[str, Any]) -> None:
    """Mark an event by keys."""
    way = "ArrowRight" if event["start"] > MIDDLE else "ArrowLeft"
    press(page, [way] * abs(event["start"] - MIDDLE) + ["Space"] + ["ArrowRight"] * (event["end"] - event["start"]))
    press(page, [str(surge_rule.CLASSES.index(event["label"]) + 1)])


def save(page: Page, name: str) -> None:
    """Save what is seen, in few colours: a picture in a repository is small."""
    page.mouse.move(0, 0)
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)
    record(f"{name}.png")
    print(f"{name}.png: {(IMAGES / f'{name}.png').stat().st_size / 1000:.0f} kB", flush=True)


def take_all(browser: Browser, folder: Path) -> None:
    """Take every picture of the page."""
    with session(folder) as link:
        label(link, NUM_LABELLED)
        (event,) = until_suggested(link)
        with opened(browser, link, WIDE, "light") as page:
            mark(page, event)
            save(page, "annotate")
            press(page, ["?"])
            save(page, "annotate-keys")
        with opened(browser, link, NARROW, "dark") as page:
            mark(page, event)
            press(page, [","])
            expect(page.locator(".outside")).not_to_have_count(0)
            save(page, "annotate-tablet")
        print(json.dumps(ask(link, "/api/progress")), flush=True)
        ask(link, "/api/finish", {})
    with session(folder, f"{SESSION} --annotate.review true") as link:
        until_contradicted(link)
        with opened(browser, link, WIDE, "light") as page:
            save(page, "annotate-review")


def main() -> None:
    """Make every picture."""
    path = find_browser()
    if path is None:
        raise SystemExit("no browser is in the PATH (Debian: apt install chromium)")
    with tempfile.TemporaryDirectory(prefix="moola-annotate-") as scratch, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        take_all(browser, Path(scratch))
        browser.close()


if __name__ == "__main__":
    main()
