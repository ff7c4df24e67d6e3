"""Charts that one can touch show what they are given: values, times of the exchange, spans, window by window."""

from __future__ import annotations

import numpy as np
import pytest
from small_evaluations import found, truth

from moola_mlflow.core import Metrics
from moola_mlflow.evaluation import Interval, collect_bars_evidence
from moola_mlflow.reports.plots.interactive import (
    MAX_POINTS,
    ShownSpan,
    WindowPicture,
    _thinned,
    curves_chart,
    local_times,
    precision_recall_chart,
    scores_chart,
    windows_chart,
)

START = int(np.datetime64("2024-07-01T14:30", "ns").astype(np.int64))


def window(k: int, spans: tuple[ShownSpan, ...] = ()) -> WindowPicture:
    close = 5000.1 + k + np.arange(6.0)
    ohlc = np.stack([close, close + 1, close - 1, close], 1)
    times = local_times(START + 60_000_000_000 * np.arange(6), "America/Chicago")
    return WindowPicture(f"window {k}", ohlc, times, "America/Chicago", spans)


def test_times_are_those_of_the_clock_on_the_wall() -> None:
    assert str(window(0).times[0])[:16] == "2024-07-01T09:30"


def test_every_window_is_a_step_of_the_slider_and_the_first_is_shown() -> None:
    figure = windows_chart([window(0), window(1, (ShownSpan(1, 3, "surge", "#3f6fd8"),))])
    (trace,) = figure.data
    steps = figure.layout.sliders[0].steps
    assert trace.close[0] == 5000.1
    assert len(steps) == 2
    prices, around = steps[1].args
    assert prices["close"][0][0] == 5001.1
    assert prices["x"][0][0] == "2024-07-01T09:30:00"
    assert around["shapes"][0]["x0"] == "2024-07-01T09:30:30"
    assert around["annotations"][0]["text"] == "surge"
    assert "America/Chicago" in around["xaxis.title.text"]


def test_one_window_needs_no_slider_and_none_says_so() -> None:
    assert not windows_chart([window(0)]).layout.sliders
    assert windows_chart([]).layout.annotations[0].text == "nothing to show"


def test_curves_have_a_value_for_each_epoch() -> None:
    names = (Metrics.TRAIN_LOSS, Metrics.VAL_LOSS, Metrics.VAL_LOSS_PROFILED, Metrics.VAL_HUBER, Metrics.VAL_SKILL)
    history = [{name: float(epoch) for name in (*names, Metrics.LR)} for epoch in range(3)]
    figure = curves_chart(history, 2)
    assert [trace.name for trace in figure.data] == [*names, Metrics.LR]
    assert all(list(trace.y) == [0.0, 1.0, 2.0] for trace in figure.data)


def test_intervals_are_drawn_from_the_score_outwards_and_an_undefined_end_is_left_out() -> None:
    figure = scores_chart({"detector": Interval(0.5, 0.4, 0.7), "rule": Interval(0.2, np.nan, np.nan)}, "t", "mAP")
    (bars,) = figure.data
    assert list(bars.y) == ["rule", "detector"]
    assert bars.error_x.array == pytest.approx((0.0, 0.2))
    assert bars.error_x.arrayminus == pytest.approx((0.0, 0.1))


def test_a_long_curve_is_thinned_and_keeps_both_ends() -> None:
    values = np.arange(100_000.0)
    thin = _thinned(values)
    assert len(thin) == MAX_POINTS
    assert (thin[0], thin[-1]) == (0.0, 99_999.0)


def test_precision_is_drawn_against_recall_with_the_threshold() -> None:
    rows = [(0, 300, 305, 0.9), (1, 900, 908, 0.7), (0, 2000, 2004, 0.2)]
    evidence = collect_bars_evidence(found(rows), truth(rows[:2]), 300, False)
    figure = precision_recall_chart({"detector": evidence.scored}, evidence.found.threshold, "events")
    precision, recall, _ = evidence.scored.curve()
    assert list(figure.data[0].y) == pytest.approx(precision.tolist())
    assert list(figure.data[0].x) == pytest.approx(recall.tolist())
