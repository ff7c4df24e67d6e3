"""How long the page of `annotate` takes from a decision to the next chart on the screen, measured in the browser.

    python -m benchmarks.speed.annotate_page [--smoke] [--out benchmarks/results/annotate_page.json]

A real server on sample bars, Chromium without a window. A key decides; the clock stops after the paint that holds the
next chart. So the decision's way to the disk counts too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MEASURE = "moola:next-chart"
MARKED = ("Space", "Shift+ArrowRight", "1", "Enter")
"""Keys that mark an event and decide; every third window holds one."""


@contextmanager
def serving(folder: Path, num_bars: int) -> Iterator[str]:
    """Start `moola annotate` on sample bars; yield its link."""
    words = [sys.executable, "-m", "moola_mlflow", "annotate", "--bars.sample_bars", str(num_bars), "--port", "0"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if link := re.search(r"http://\S+/\?token=\S+", line):
                yield link[0]
                break
        else:
            raise SystemExit("annotate ended before it printed its link")
    finally:
        process.kill()
        process.wait()


def decide(page: Page, num: int) -> list[float]:
    """Decide windows by keys; return milliseconds from each decision to the next chart."""
    for i in range(num):
        for key in MARKED if i % 3 == 0 else ("n",):
            page.keyboard.press(key)
        expect(page.locator("#number")).to_have_text(f"window {i + 2}")
        expect(page.locator("#work")).to_have_attribute("aria-busy", "false")
    page.wait_for_timeout(500)  # the last chart's paint
    took: list[float] = page.evaluate(f"performance.getEntriesByName('{MEASURE}').map((one) => one.duration)")
    return took


def measure(browser: str, link: str, num: int) -> dict[str, Any]:
    """Open the page, decide windows, and return figures in milliseconds."""
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 720})
        page.goto(link)
        expect(page.locator("#chart .plot-container")).to_be_visible(timeout=60_000)
        expect(page.locator("#work")).to_have_attribute("aria-busy", "false")
        first = page.evaluate("performance.now()")
        took = decide(page, num)
        chromium.close()
    p50, p95 = (round(float(np.percentile(took, q)), 1) for q in (50, 95))
    return {"windows": num, "p50_ms": p50, "p95_ms": p95, "largest_ms": round(max(took), 1), "open_ms": round(first)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few windows, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "annotate_page.json")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("no browser is in the PATH (Debian: apt install chromium)")
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch), 60_000) as link:
        row = measure(browser, link, 9 if arguments.smoke else 200)
    print("| windows | p50 ms | p95 ms | largest ms | page open ms |\n|---|---|---|---|---|")
    print("| " + " | ".join(str(value) for value in row.values()) + " |")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "smoke": arguments.smoke, "row": row}, indent=1) + "\n")


if __name__ == "__main__":
    main()
