"""What a scan leaves for people: candlesticks that can be read, a page that needs nothing else, an honest note."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_detector

from moola_mlflow.bars.reader import Bars, read_bars
from moola_mlflow.core import BarsConfig, resolve
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.scanning import scan
from moola_mlflow.reports.detections import NO_EMPTY_CLASS, WEAK, DetectionsReport
from moola_mlflow.reports.plots.candles import candles_svg, overview_figure, price_text, price_ticks
from moola_mlflow.windows.windows import MINUTE_NS

SCRIPT = "<script>alert(1)</script>"
EVERYTHING = {"detect.min_probability": 0.0, "detect.min_span_score": 0.0, "detect.margin": 0}


def report_of(bars: Bars | None = None, detector: PatternDetector | None = None, **options: Any) -> DetectionsReport:
    config = resolve({}, {**EVERYTHING, **options})
    bars = read_bars(BarsConfig(sample_bars=3000)) if bars is None else bars
    detector = small_detector("price_path") if detector is None else detector
    found = scan(bars, detector, config.detect)
    return DetectionsReport(found, found.table(), detector, "models:/moola-detector/3", config)


def svg_of(html: str) -> list[str]:
    return re.findall(r"<svg .*?</svg>", html, re.DOTALL)


def test_the_page_has_a_chart_of_each_of_the_best_and_says_what_it_may_not_hide() -> None:
    found = report_of(**{"detect.top": 7})
    html = found.html()
    assert len(found.table) > 7
    assert len(svg_of(html)) == html.count('<article class="hit"') == 7
    shown = [float(text) for text in re.findall(r"<strong>([\d.]+)%</strong>", html)]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == round(100 * found.table["probability"].max(), 1)
    for text in (NO_EMPTY_CLASS, "models:/moola-detector/3", "joint_success_at_3", "the 7 most probable of"):
        assert text in html
    assert f"{found.share_above:.0%}" in html
    assert WEAK not in html


def test_weak_labels_are_called_weak_on_the_page_and_in_the_note() -> None:
    detector = small_detector("price_path")
    weak = replace(detector, card={**detector.card, "labels": {"weak": True, "num": 174, "counts": {"a": 174}}})
    found = report_of(detector=weak)
    assert WEAK in found.html().replace("&#x27;", "'")
    assert "are WEAK" in found.note(1.0)


def test_names_that_look_like_html_stay_text() -> None:
    bars = read_bars(BarsConfig(sample_bars=1500))
    named = replace(bars, symbols=dict.fromkeys(bars.symbols, SCRIPT))
    detector = small_detector("price_path")
    classes = replace(detector, classes=(SCRIPT, '" onload="alert(1)'))
    html = report_of(named, classes).html()
    assert "<script" not in html
    assert 'onload="' not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 50
    assert re.search(r"(?<!\\)<script", report_of(named, classes).note(1.0)) is None


def test_the_page_refers_to_nothing_outside_and_is_the_same_every_time() -> None:
    html = report_of().html()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)
    assert not re.search(r"https?://|@import|url\(", html)
    assert html == report_of().html()


def test_fifty_charts_stay_light() -> None:
    found = report_of(read_bars(BarsConfig(sample_bars=20_000)))
    html = found.html()
    assert len(svg_of(html)) == 50
    assert len(html.encode()) < 1_000_000


def test_where_nothing_is_found_the_page_and_the_note_say_so() -> None:
    found = report_of(**{"detect.min_probability": 1.0})
    assert len(found.table) == 0
    assert "No hit passes the thresholds" in found.html()
    assert found.note(1.0).startswith("**0 hits (0 consolidation, 0 retracement) in 3,000 bars.**")


def test_the_figures_count_hits_by_class_and_windows_above() -> None:
    found = report_of(**{"detect.min_probability": 0.52})
    figures = found.metrics(2.0)
    assert figures["hits/consolidation"] + figures["hits/retracement"] == figures["detect/hits"] == len(found.table)
    assert figures["detect/windows_per_second"] == figures["detect/windows"] / 2
    assert 0 < figures["detect/share_above"] == figures["detect/windows_above"] / figures["detect/windows"] < 1
    odd = replace(found.detector, classes=("a+b", "c"))
    assert "hits/a_b" in replace(found, detector=odd).metrics(1.0)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-4, 0.25, 1.0, 1e4]), st.sampled_from([0.0, -50.0, 5e4]))
def test_every_candle_stands_inside_of_its_chart(seed: int, tick: float, level: float) -> None:
    rng = np.random.default_rng(seed)
    close = level + tick * np.cumsum(rng.integers(-3, 4, 105))
    open_ = close - tick * rng.integers(-2, 3, 105)
    wick = tick * rng.integers(0, 3, (2, 105))
    ohlc = np.stack([open_, np.maximum(open_, close) + wick[0], np.minimum(open_, close) - wick[1], close], 1)
    svg = candles_svg(ohlc, np.arange(105) * MINUTE_NS, (40, 48), "#123456", SCRIPT)
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == SCRIPT
    shade = root.find("rect")
    assert shade is not None
    bar = (560 - 8 - 58) / 105
    assert float(shade.attrib["x"]) == pytest.approx(8 + 40 * bar, abs=0.1)
    assert float(shade.attrib["width"]) == pytest.approx(9 * bar, abs=0.1)
    candles = [path.attrib["d"] for path in root.findall("path") if "class" not in path.attrib]
    assert sum(path.count("z") for path in candles) == 105
    heights = [
        float(y) for path in candles for pair in re.findall(r"M[\d.]+ (-?[\d.]+)V(-?[\d.]+)", path) for y in pair
    ]
    assert len(heights) == 210
    assert 10 <= min(heights) <= max(heights) <= 226


def test_bars_that_never_move_are_drawn() -> None:
    for price in (0.0, 100.0, -3.5):
        svg = candles_svg(np.full((105, 4), price), np.arange(105) * MINUTE_NS, (0, 4), "#123456", "flat")
        assert "nan" not in svg
        assert svg.count("z") >= 105


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_price_ticks_are_round_few_and_inside(low: float, spread: float) -> None:
    ticks = price_ticks(low, low + spread)
    assert 1 <= len(ticks) <= 6
    assert all(low - 1e-6 * spread <= tick <= low + spread * (1 + 1e-6) for tick in ticks)


@pytest.mark.parametrize(
    ("price", "spread", "text"),
    [(4002.5, 12.0, "4,002.5"), (4000.0, 12.0, "4,000"), (1.07125, 0.004, "1.07125"), (-2.5, 1.0, "-2.5")],
)
def test_prices_have_the_decimals_that_tell_them_apart(price: float, spread: float, text: str) -> None:
    assert price_text(price, spread) == text


def test_the_overview_marks_every_hit_also_of_classes_with_odd_names() -> None:
    close, times = np.linspace(1, 2, 5000), np.arange(5000) * MINUTE_NS
    first = np.array([10, 2000, 4000])
    figure = overview_figure(close, times, first, first + 5, ["$a$", "b", "b"], np.array([0.5, 0.9]), 0.8, ["$a$", "b"])
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["\\$a\\$ (1)", "b (2)"]
    figure.canvas.draw()
