"""A page with charts is one file below 6 MB that fetches nothing, and names in its data cannot run."""

from __future__ import annotations

import os
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from browser import find_browser
from touched import figures_of

from moola_mlflow.reports.document import Document, Heading
from moola_mlflow.reports.plots.interactive import WindowPicture, windows_chart
from moola_mlflow.reports.touchable import MAX_BYTES, Plot, touch_page, window_bytes

EVIL = "</script><script>document.title='run'</script><b>bold</b>"


def window(k: int) -> WindowPicture:
    times = np.datetime64("2024-07-01T09:30", "ns") + np.arange(105) * np.timedelta64(1, "m")
    close = 5000 + np.cumsum(np.random.default_rng(k).normal(size=105))
    ohlc = np.stack([close, close + 1, close - 1, close + 0.5], 1)
    return WindowPicture(f"window {k} {EVIL}", ohlc, times, "America/Chicago")


def page(num: int = 3) -> str:
    document = Document(f"Charts {EVIL}")
    document.add(Heading("Misses"), Heading("Curves"))
    plots = [Plot("Misses", windows_chart([window(k) for k in range(num)]), EVIL), Plot("Curves", windows_chart([]))]
    return touch_page(document, plots, [("3", "misses")])


def test_the_page_is_small_enough_and_its_data_are_read_back_whole() -> None:
    text = page(60)
    assert len(text.encode()) < MAX_BYTES
    figures = figures_of(text)
    assert len(figures["plot-0"]["layout"]["sliders"][0]["steps"]) == 60
    assert figures["plot-1"]["layout"]["annotations"][0]["text"] == "nothing to show"


def test_only_the_scripts_of_the_page_may_run() -> None:
    text = page()
    policy = unescape(text.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0])
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert EVIL not in text


def test_times_of_every_minute_are_stored_as_the_first_and_their_number_others_as_they_are() -> None:
    late = replace(window(1), times=window(1).times + np.where(np.arange(105) < 50, 0, 60) * np.timedelta64(1, "m"))
    bars = replace(window(2), times=np.arange(105), zone="")
    text = touch_page(Document("Charts"), [Plot("", windows_chart([window(0), late, bars]))])
    steps = figures_of(text)["plot-0"]["layout"]["sliders"][0]["steps"]
    first, gap, numbers = (step["args"][0]["x"][0] for step in steps)
    assert first == {"first": "2024-07-01T09:30:00", "num": 105}
    assert gap[49:51] == ["2024-07-01T10:19:00", "2024-07-01T11:20:00"]
    assert numbers == {"first": 0, "num": 105}


def test_the_size_of_a_window_is_what_the_page_grows_by() -> None:
    sizes = [len(page(num)) for num in (20, 21)]
    assert window_bytes(window(20)) == pytest.approx(sizes[1] - sizes[0], abs=30)


@pytest.mark.slow
def test_a_browser_draws_the_charts_without_a_network_and_steps_by_key_and_button(tmp_path: Path) -> None:
    browser = find_browser()
    if browser is None:
        assert "CI" not in os.environ, "CI has a browser"
        pytest.skip("needs Chromium")
    from playwright.sync_api import sync_playwright

    (tmp_path / "page.html").write_text(page(), encoding="utf-8")
    said: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        tab = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((tmp_path / "page.html").as_uri())
        tab.wait_for_selector("#plot-0 .plotly .xtick")

        def shown() -> str:
            return str(tab.evaluate("document.querySelector('#plot-0').layout.title.text"))

        assert shown().startswith("window 0")
        tab.keyboard.press("n")
        tab.wait_for_function("document.querySelector('#plot-0').layout.title.text.startsWith('window 1')")
        tab.click("button[data-step='1']")
        tab.wait_for_function("document.querySelector('#plot-0').layout.title.text.startsWith('window 2')")
        tab.keyboard.press("ArrowRight")  # the last one stays
        tab.keyboard.press("p")
        tab.wait_for_function("document.querySelector('#plot-0').layout.title.text.startsWith('window 1')")
        assert tab.title() != "run"
        close = tab.evaluate("document.querySelector('#plot-0').data[0].close[0]")
        assert close == pytest.approx(window(1).ohlc[0, 3])
        times = tab.evaluate("document.querySelector('#plot-0').data[0].x")
        assert (times[0], times[-1], len(times)) == ("2024-07-01T09:30:00", "2024-07-01T11:14:00", 105)
    assert said == []
    assert [url for url in asked if not url.startswith("file:")] == []
