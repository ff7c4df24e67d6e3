"""Which labelled windows overlap: by their times, and by equal runs of bars, which is all there is without times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_labels import small_labels

from moola_mlflow.bars.reader import Bars, read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.labels.event_labels import EventLabels
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.overlap import overlap_groups
from moola_mlflow.labels.surge_rule import CLASSES
from moola_mlflow.labels.weak import weak_labels


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
    labels = replace(labels, ohlc=labels.ohlc + np.array([0, 0, 9, 9])[:, None, None])
    assert overlap_groups(labels).tolist() == [0, 0, 1, 1]
    assert overlap_groups(labels, across_instruments=True).tolist() == [0, 0, 0, 0]


@given(starts=st.lists(st.integers(0, 1500), min_size=1, max_size=14), across=st.booleans())
def test_times_and_instruments_that_are_wrong_hide_no_shared_run_of_bars(starts: list[int], across: bool) -> None:
    """Every window a week from the next, and under a name of its own."""
    labels, week = cut(starts, times=True), np.arange(len(starts)) * 7 * 24 * 3600
    named = replace(labels, start_ns=week, end_ns=week + 104 * 60, instrument=labels.window_id)
    assert overlap_groups(named, across).tolist() == brute_groups(starts, 10)


def test_spans_that_meet_and_shared_runs_join_one_group() -> None:
    """The second window meets the first by the clock; the third holds bars of the second and a time far away."""
    labels = cut([0, 104, 150], times=True)
    assert labels.start_ns is not None
    assert labels.end_ns is not None
    late = np.array([0, 0, 10**6])
    assert (
        overlap_groups(replace(labels, start_ns=labels.start_ns + late, end_ns=labels.end_ns + late)).tolist()
        == [0] * 3
    )


@pytest.mark.parametrize(("distinct", "same"), [(1, False), (2, False), (7, False), (8, True), (10, True)])
def test_bars_that_stand_still_join_no_windows_whose_times_are_far_apart(distinct: int, same: bool) -> None:
    """Twelve bars of the first window come again in the second, any ten of them with so many different ones."""
    labels = cut([0, 1000], times=True)
    ohlc = labels.ohlc.copy()
    ohlc[0, 50:62] = ohlc[1, 20:32] = labels.ohlc[0, np.arange(12) % distinct]
    labels = replace(labels, ohlc=ohlc)
    assert overlap_groups(labels).tolist() == [0, 0 if same else 1]
    assert overlap_groups(replace(labels, start_ns=None, end_ns=None)).tolist() == [0, 0]


def test_a_market_that_hardly_moves_keeps_its_windows_apart() -> None:
    rng = np.random.default_rng(3)
    close = np.cumsum(rng.choice([-1.0, 0.0, 1.0], size=400 * 105, p=[0.05, 0.9, 0.05]))
    open_ = np.concatenate([[0.0], close[:-1]])
    series = np.stack([open_, np.maximum(open_, close), np.minimum(open_, close), close], 1)
    labels = cut(list(range(0, len(series), 105)), times=True, series=series)
    assert overlap_groups(labels).tolist() == list(range(400))
    assert len(set(overlap_groups(replace(labels, start_ns=None, end_ns=None)).tolist())) < 200


def test_found_windows_group_alike_by_time_and_by_bars(bars: Bars) -> None:
    labels = weak_labels(bars, 10_000, 17, overlap=True)
    timeless = replace(labels, start_ns=None, end_ns=None)
    np.testing.assert_array_equal(overlap_groups(labels), overlap_groups(timeless))


def test_windows_without_an_event_are_grouped_as_those_with_one_are() -> None:
    labels = small_labels(num=8, times="none")
    looked_at = replace(
        EventLabels.of(labels), window=np.arange(3), label=labels.label[:3], start=labels.start[:3], end=labels.end[:3]
    )
    assert looked_at.counts()["none"] == 5
    assert overlap_groups(looked_at).tolist() == overlap_groups(labels).tolist()
