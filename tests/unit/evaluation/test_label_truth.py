"""Windows looked at say what is true in bars, and only where somebody looked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_bars import bars_at

from moola_mlflow.bars import MINUTE_NS, Bars
from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.label_truth import rows_of_windows, truth_of_labels
from moola_mlflow.labels import EventLabels

CLASSES = ("fall", "rise")
LENGTH, MARGIN = 30, 5
BARS = bars_at(np.arange(400))


def looked_at(
    starts: list[int], events: list[tuple[int, int, int, int]], bars: Bars = BARS, **columns: object
) -> EventLabels:
    """Windows of 30 bars from these rows on, with events (window, class, first and last bar)."""
    first = np.array(starts)
    window, label, start, end = np.array(events, np.int64).reshape(-1, 4).T
    return EventLabels(
        np.array([f"w{i}" for i in range(len(starts))]), bars.ohlc[first[:, None] + np.arange(LENGTH)], CLASSES, window,
        label, start, end, bars.time_ns[first], bars.time_ns[first + LENGTH - 1], path="mine.parquet", **columns,
    )  # type: ignore[arg-type]  # fmt: skip


def test_events_lie_at_their_rows_and_only_the_middle_of_windows_is_judged() -> None:
    truth = truth_of_labels(BARS, looked_at([100, 200], [(0, 1, 10, 14), (1, 0, 12, 15)]), ("rise", "fall"), MARGIN)
    assert (truth.true.start.tolist(), truth.true.end.tolist()) == ([110, 212], [114, 215])
    assert truth.true.label.tolist() == [0, 1]
    assert truth.judged is not None
    rows = [*range(105, 125), *range(205, 225)]
    assert np.flatnonzero(truth.judged).tolist() == rows
    assert truth.notes == ()
    assert truth.source == "the labels mine.parquet, 2 windows looked at"


def test_an_event_at_the_edge_of_its_window_counts_neither_way() -> None:
    truth = truth_of_labels(BARS, looked_at([100], [(0, 1, 0, 3), (0, 1, 10, 14)]), CLASSES, MARGIN)
    assert (truth.true.start.tolist(), truth.unclear.start.tolist()) == ([110], [100])
    assert truth.notes == ("1 labelled events lie at the edge of their window and count neither way.",)
    whole = truth_of_labels(BARS, looked_at([100], [(0, 1, 0, 3), (0, 1, 10, 14)]), CLASSES, 0)
    assert whole.true.start.tolist() == [100, 110]


def test_an_event_of_windows_that_overlap_counts_once() -> None:
    labels = looked_at([100, 105], [(0, 1, 12, 15), (1, 1, 8, 12), (1, 0, 8, 12)])
    truth = truth_of_labels(BARS, labels, CLASSES, MARGIN)
    assert sorted(zip(truth.true.label.tolist(), truth.true.start.tolist(), strict=True)) == [(0, 113), (1, 112)]


def test_windows_that_a_query_chose_are_left_out_and_that_is_said() -> None:
    drawn = np.array(["random", "uncertain", ""])
    labels = looked_at([100, 200, 300], [(0, 1, 10, 14), (1, 1, 10, 14), (2, 0, 10, 14)], drawn=drawn)
    truth = truth_of_labels(BARS, labels, CLASSES, MARGIN)
    assert truth.true.start.tolist() == [110, 310]
    assert truth.judged is not None
    assert not truth.judged[200:230].any()
    assert truth.notes == ("1 of 3 windows were chosen by a query and are left out: no fair sample.",)
    with pytest.raises(UserError, match="a query chose all 3 windows"):
        truth_of_labels(BARS, replace(labels, drawn=np.array(["top"] * 3)), CLASSES, MARGIN)


def test_a_window_with_other_prices_or_times_does_not_lie_in_the_bars() -> None:
    labels = looked_at([100, 200, 300], [(0, 1, 10, 14), (1, 1, 10, 14)])
    ohlc, end_ns = labels.ohlc.copy(), labels.end_ns
    assert end_ns is not None
    ohlc[1, 7, 3] += 0.5
    other = replace(labels, ohlc=ohlc, end_ns=end_ns + np.array([0, 0, MINUTE_NS]))
    assert rows_of_windows(BARS, other).tolist() == [100, -1, -1]
    truth = truth_of_labels(BARS, other, CLASSES, MARGIN)
    assert truth.notes == ("2 windows do not lie in these bars or have other prices; they are left out.",)
    with pytest.raises(UserError, match="no window has the times and prices of these bars"):
        truth_of_labels(BARS, replace(labels, ohlc=labels.ohlc + 1), CLASSES, MARGIN)


def test_of_several_instruments_the_name_decides_and_of_one_it_need_not_fit() -> None:
    both = bars_at(np.r_[np.arange(200), np.arange(200)], np.repeat([7, 9], 200))
    both = replace(both, ohlc=np.concatenate([both.ohlc[:200]] * 2))
    labels = looked_at([20], [(0, 1, 10, 14)], both, instrument=np.array(["9"]))
    assert rows_of_windows(both, labels).tolist() == [220]
    alone = looked_at([20], [(0, 1, 10, 14)], BARS, instrument=np.array(["ES"]))
    assert rows_of_windows(BARS, alone).tolist() == [20]


def test_labels_that_cannot_be_placed_or_hold_nothing_are_refused() -> None:
    labels = looked_at([100], [(0, 1, 10, 14)])
    with pytest.raises(UserError, match="have no times"):
        truth_of_labels(BARS, replace(labels, start_ns=None), CLASSES, MARGIN)
    with pytest.raises(UserError, match="no event lies in these bars"):
        truth_of_labels(BARS, looked_at([100], []), CLASSES, MARGIN)
    with pytest.raises(UserError, match="margin=15 leaves nothing of windows of 30 bars"):
        truth_of_labels(BARS, labels, CLASSES, 15)
    with pytest.raises(UserError, match="class rise, and the detector knows fall, other"):
        truth_of_labels(BARS, labels, ("fall", "other"), MARGIN)
