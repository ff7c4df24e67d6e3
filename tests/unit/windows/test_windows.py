"""Windows and time splits: nothing crosses a segment's end or a split's boundary."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow.bars.reader import Bars, segments
from moola_mlflow.core.config.presets import resolve
from moola_mlflow.core.config.tree import SplitConfig
from moola_mlflow.core.errors import UserError
from moola_mlflow.training import setup
from moola_mlflow.windows.splits import split_by_time
from moola_mlflow.windows.windows import MINUTE_NS, Windows, make_windows

START = int(np.datetime64("2024-01-01", "ns").astype(np.int64))


def bars_at(minutes: np.ndarray, instrument: np.ndarray | None = None) -> Bars:
    """Bars that start at the given minutes after 2024-01-01 UTC; each close is its row number."""
    n = len(minutes)
    keys = np.zeros(n, np.int64) if instrument is None else instrument
    ohlc = np.repeat(np.arange(n, dtype=np.float64)[:, None], 4, axis=1)
    time_ns = START + np.asarray(minutes, np.int64) * MINUTE_NS
    return Bars(time_ns, ohlc, np.ones(n), keys, {int(k): str(k) for k in set(keys)}, (), "", {})


@st.composite
def gappy_bars(draw: st.DrawFn) -> Bars:
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 1, 1, 2, 5, 6, 60]), min_size=1, max_size=300))
    keys = np.cumsum(draw(st.lists(st.sampled_from([0] * 30 + [1]), min_size=len(steps), max_size=len(steps))))
    return bars_at(np.cumsum(steps), keys.astype(np.int64))


@given(bars=gappy_bars(), length=st.integers(2, 30), stride=st.integers(1, 40), max_gap=st.integers(1, 7))
def test_no_window_crosses_a_gap_or_an_instrument_change(bars: Bars, length: int, stride: int, max_gap: int) -> None:
    try:
        windows = make_windows(bars, length, stride, max_gap)
    except UserError:
        runs = segments(bars, max_gap)
        assert (runs[:, 1] - runs[:, 0] < length).all()
        return
    rows = windows.starts[:, None] + np.arange(length)
    assert (np.diff(bars.time_ns[rows], axis=1) <= max_gap * MINUTE_NS).all()
    assert (bars.instrument[rows] == bars.instrument[rows][:, :1]).all()


@given(bars=gappy_bars(), max_gap=st.integers(1, 7))
def test_segments_cover_every_bar_once_and_are_as_long_as_they_can_be(bars: Bars, max_gap: int) -> None:
    runs = segments(bars, max_gap)
    assert runs[0, 0] == 0
    assert runs[-1, 1] == len(bars)
    assert (runs[1:, 0] == runs[:-1, 1]).all()
    for row in runs[1:, 0]:
        step = bars.time_ns[row] - bars.time_ns[row - 1]
        assert step > max_gap * MINUTE_NS or bars.instrument[row] != bars.instrument[row - 1]


def test_starts_run_from_each_segments_first_bar() -> None:
    minutes = np.concatenate([np.arange(25), 100 + np.arange(12)])
    assert make_windows(bars_at(minutes), length=10, stride=5).starts.tolist() == [0, 5, 10, 15, 25]


def test_a_gap_of_exactly_the_limit_does_not_end_a_segment() -> None:
    bars = bars_at(np.array([0, 1, 6, 7, 13]))
    assert segments(bars, 5).tolist() == [[0, 4], [4, 5]]


def test_windows_of_several_instruments_come_in_order_of_time() -> None:
    bars = bars_at(np.concatenate([np.arange(40), np.arange(40) + 3]), np.repeat([0, 1], 40))
    windows = make_windows(bars, 10, 7)
    assert (np.diff(windows.start_ns) >= 0).all()
    assert set(bars.instrument[windows.starts]) == {0, 1}


def test_gather_returns_the_prices_of_just_those_windows() -> None:
    windows = make_windows(bars_at(np.arange(50)), 10, 10)
    got = windows.gather(np.array([2, 0]))
    assert got.shape == (2, 10, 4)
    assert got[:, :, 3].tolist() == [list(range(20, 30)), list(range(10))]


def test_no_window_at_all_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(UserError, match=r"50 bars in 5 segments, the longest of 10 bars.*needs 105"):
        make_windows(bars_at(np.arange(50) + 100 * (np.arange(50) // 10)))


@settings(max_examples=200)
@given(
    num_bars=st.integers(60, 2000),
    length=st.integers(2, 30),
    stride=st.integers(1, 40),
    shares=st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33), (0.5, 0.1, 0.1)]),
)
def test_no_window_of_an_earlier_split_reaches_the_first_start_of_a_later_one(
    num_bars: int, length: int, stride: int, shares: tuple[float, float, float]
) -> None:
    windows = make_windows(bars_at(np.arange(num_bars)), length, stride)
    config = SplitConfig(train=shares[0], val=shares[1], test=shares[2])
    try:
        split = split_by_time(windows, config)
    except UserError:
        return
    assert windows.end_ns[split.train].max() < windows.start_ns[split.val].min()
    assert windows.end_ns[split.val].max() < windows.start_ns[split.test].min()
    taken = len(split.train) + len(split.val) + len(split.test)
    assert taken + split.dropped == int(sum(shares) * len(windows) + 1e-9)


def test_shares_of_ten_windows_are_eight_one_and_one_less_those_that_overlap() -> None:
    split = split_by_time(make_windows(bars_at(np.arange(100)), 10, 10), SplitConfig())
    assert [len(split.train), len(split.val), len(split.test), split.dropped] == [8, 1, 1, 0]
    overlapping = split_by_time(make_windows(bars_at(np.arange(1000)), 20, 10), SplitConfig())
    assert overlapping.dropped == 2


def three_days() -> Windows:
    return make_windows(bars_at(np.arange(3 * 1440)), 60, 60)


def test_dates_are_inclusive_and_in_utc() -> None:
    config = SplitConfig(train_end=dt.date(2024, 1, 1), val_end=dt.date(2024, 1, 2), test_end=dt.date(2024, 1, 3))
    windows = three_days()
    split = split_by_time(windows, config)
    assert [len(split.train), len(split.val), len(split.test)] == [24, 24, 24]
    assert str(windows.start_ns[split.val].min().astype("datetime64[ns]"))[:16] == "2024-01-02T00:00"


def test_windows_after_the_last_date_are_left_out() -> None:
    config = SplitConfig(train_end=dt.date(2023, 12, 31), val_end=dt.date(2024, 1, 1), test_end=dt.date(2024, 1, 2))
    with pytest.raises(
        UserError, match=r"train split holds 0 windows: 4,320 bars from 2024-01-01T00:00.*72 windows of 60"
    ):
        split_by_time(three_days(), config)


def test_a_split_whose_windows_all_reach_over_its_end_says_so() -> None:
    windows = make_windows(bars_at(np.arange(300)), 100, 50)
    with pytest.raises(UserError, match=r"val split holds 0 windows \(1 fell into it, and all reach over its end"):
        split_by_time(windows, SplitConfig(train=0.5, val=0.2, test=0.3))


def test_weights_that_leave_no_training_window_are_refused_before_features_are_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    minutes = np.arange(3 * 1440)
    bars = bars_at(minutes, (minutes >= 4000).astype(np.int64))  # the last bars, of the test split, are another's
    monkeypatch.setattr(setup, "read_bars", lambda config, min_bars: bars)
    config = resolve({}, {"windows.weights": "{0: 0, 1: 2}"})
    with pytest.raises(
        UserError, match=r"windows\.weights=\{'0': 0\.0, '1': 2\.0\}.*all 6\d of the train split.*above 0"
    ):
        setup.prepare(config, torch.device("cpu"))
    _, split = setup.cut_and_split(bars, resolve({}, {"windows.weights": "{0: 0.5, 1: 0}"}))
    assert len(split.test)
