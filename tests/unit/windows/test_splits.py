"""Splits by time: no window of an earlier split overlaps a later one, and an empty split is refused."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bars import bars_at

from moola_mlflow.core import SplitConfig
from moola_mlflow.core.errors import UserError
from moola_mlflow.windows.splits import split_by_time
from moola_mlflow.windows.windows import Windows, make_windows


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
    with pytest.raises(UserError, match=r"val split holds 0 windows \(1 start in it, and all of them overlap"):
        split_by_time(windows, SplitConfig(train=0.5, val=0.2, test=0.3))


@given(
    ends=st.lists(st.integers(0, 9), min_size=3, max_size=3, unique=True).map(sorted),
    length=st.integers(30, 200),
    stride=st.integers(20, 200),
)
def test_a_split_by_dates_holds_the_windows_that_start_and_end_inside_its_dates(
    ends: list[int], length: int, stride: int
) -> None:
    windows = make_windows(bars_at(np.arange(10 * 1440)), length, stride)
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in ends]
    config = SplitConfig(train_end=days[0], val_end=days[1], test_end=days[2])
    try:
        split = split_by_time(windows, config)
    except UserError:
        return
    day = (windows.start_ns - windows.start_ns[0]) // (1440 * 60_000_000_000)
    for name, first, last in zip(("train", "val", "test"), (-1, *ends[:2]), ends, strict=True):
        rows = getattr(split, name)
        assert ((day[rows] > first) & (day[rows] <= last)).all(), name
    assert windows.end_ns[split.train].max() < windows.start_ns[split.val].min()
    assert windows.end_ns[split.val].max() < windows.start_ns[split.test].min()
    assert len(split.train) + len(split.val) + len(split.test) + split.dropped == (day <= ends[2]).sum()


def test_windows_of_a_later_split_that_start_at_the_boundary_keep_those_that_end_before_it() -> None:
    windows = make_windows(bars_at(np.arange(100)), 10, 10)
    split = split_by_time(windows, SplitConfig(train=0.5, val=0.3, test=0.2))
    assert [split.train.tolist(), split.val.tolist(), split.test.tolist()] == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9]]
    assert split.dropped == 0


def test_a_train_split_without_windows_shows_shares_bars_and_windows() -> None:
    windows = make_windows(bars_at(np.arange(300)), 100, 100)
    with pytest.raises(UserError, match=r"train split holds 0 windows: 300 bars .* 3 windows.*shares 0\.1/0\.45/0\.45"):
        split_by_time(windows, SplitConfig(train=0.1, val=0.45, test=0.45))
