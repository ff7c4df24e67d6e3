"""Candlesticks lie inside their chart, price ticks are round, and the overview marks every hit."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.reports.plots.candles import candles_svg, overview_figure, price_text, price_ticks
from moola_mlflow.windows.windows import MINUTE_NS

SCRIPT = "<script>alert(1)</script>"


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
