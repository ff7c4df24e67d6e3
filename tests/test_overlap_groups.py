"""Which labelled windows overlap: by their times, or by equal runs of bars where there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.config import BarsConfig
from moola_mlflow.labelrule import CLASSES
from moola_mlflow.labels import LabelledSet, overlap_groups, weak_labels


@pytest.fixture(scope="module")
def bars() -> Bars:
    return read_bars(BarsConfig(sample_bars=12_000, sample_seed=5))


def cut(starts: list[int], times: bool, series: np.ndarray | None = None) -> LabelledSet:
    """Windows of one made-up series, from given bars on."""
    first = np.array(starts)
    if series is None:
        series = np.random.default_rng(0).normal(size=(5000, 4))
    num = len(starts)
    zeros = np.zeros(num, np.int64)
    return LabelledSet(
        np.arange(num).astype(str), series[first[:, None] + np.arange(105)], zeros, CLASSES, zeros, zeros + 5,
        first * 60 if times else None, (first + 104) * 60 if times else None,
    )  # fmt: skip


def brute_groups(starts: list[int], shared: int) -> list[int]:
    group = list(range(len(starts)))
    for _ in starts:
        for i, a in enumerate(starts):
            for j, b in enumerate(starts):
                if 105 - abs(a - b) >= shared:
                    group[i] = group[j] = min(group[i], group[j])
    return np.unique(group, return_inverse=True)[1].tolist()


@given(starts=st.lists(st.integers(0, 1500), min_size=1, max_size=14))
def test_groups_are_the_connected_overlaps_with_and_without_times(starts: list[int]) -> None:
    assert overlap_groups(cut(starts, times=True)).tolist() == brute_groups(starts, 1)
    assert overlap_groups(cut(starts, times=False)).tolist() == brute_groups(starts, 10)


def test_ten_shared_bars_are_found_without_times_and_nine_are_missed() -> None:
    assert overlap_groups(cut([0, 95], times=False)).tolist() == [0, 0]
    assert overlap_groups(cut([0, 96], times=False)).tolist() == [0, 1]
    assert overlap_groups(cut([0, 104], times=True)).tolist() == [0, 0]
    assert overlap_groups(cut([0, 105], times=True)).tolist() == [0, 1]


def test_runs_of_bars_must_be_equal_in_all_four_prices() -> None:
    labels = cut([0, 0], times=False)
    for k in range(4):
        ohlc = labels.ohlc.copy()
        ohlc[1, ::10, k] += 1e-9
        assert overlap_groups(replace(labels, ohlc=ohlc)).tolist() == [0, 1]
    shuffled = labels.ohlc.copy()
    shuffled[1] = shuffled[1, ::-1]
    assert overlap_groups(replace(labels, ohlc=shuffled)).tolist() == [0, 1]


def test_windows_of_two_instruments_at_one_time_do_not_overlap() -> None:
    labels = replace(cut([0, 50, 0, 50], times=True), instrument=np.array(["ESZ3", "ESZ3", "ESH4", "ESH4"]))
    assert overlap_groups(labels).tolist() == [0, 0, 1, 1]


def test_found_windows_group_alike_by_time_and_by_bars(bars: Bars) -> None:
    labels = weak_labels(bars, 10_000, 17, overlap=True)
    timeless = replace(labels, start_ns=None, end_ns=None)
    np.testing.assert_array_equal(overlap_groups(labels), overlap_groups(timeless))
