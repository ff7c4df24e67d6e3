"""Windows: none crosses the end of a segment, and weights say how often each is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bars import bars_at

from moola_mlflow.bars.reader import Bars, segments
from moola_mlflow.core import PretrainKeys, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.training import setup
from moola_mlflow.windows.windows import MINUTE_NS, make_windows, with_weights


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


def test_weights_that_leave_no_training_window_are_refused_before_features_are_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    minutes = np.arange(3 * 1440)
    bars = bars_at(minutes, (minutes >= 4000).astype(np.int64))  # the last bars, of the test split, are another's
    monkeypatch.setattr(setup, "read_bars", lambda config, min_bars: bars)
    config = make_config(PretrainKeys, {}, {"windows.weights": "{0: 0, 1: 2}"})
    with pytest.raises(
        UserError, match=r"windows\.weights=\{'0': 0\.0, '1': 2\.0\}.*all 6\d of the train split.*above 0"
    ):
        setup.prepare(config, torch.device("cpu"))
    _, split = setup.cut_and_split(bars, make_config(PretrainKeys, {}, {"windows.weights": "{0: 0.5, 1: 0}"}))
    assert len(split.test)


def two_instruments() -> Bars:
    """ES and NQ, 6,000 bars each, with a pause in the middle."""
    minutes = np.arange(6000) + 90 * (np.arange(6000) >= 3000)
    return replace(bars_at(np.tile(minutes, 2), np.repeat([1, 2], 6000)), symbols={1: "ES", 2: "NQ"})


@settings(max_examples=30, deadline=None)
@given(es=st.floats(0, 20), nq=st.floats(0.1, 20), seed=st.integers(0, 2**32 - 1))
def test_windows_are_drawn_by_weight_the_same_number_and_the_same_for_a_seed(es: float, nq: float, seed: int) -> None:
    windows = with_weights(make_windows(two_instruments(), 50, 25), {"ES": es, "2": nq})
    index = np.arange(len(windows))
    drawn = windows.shuffled(index, np.random.default_rng([seed, 3]))
    assert np.array_equal(drawn, windows.shuffled(index, np.random.default_rng([seed, 3])))
    assert len(drawn) == len(index)
    expected = windows.weights / windows.weights.sum() * len(index)
    counts = np.bincount(drawn, minlength=len(index))
    assert (np.abs(counts - expected) < 1 + 1e-6).all()  # each comes as often as its weight says, rounded


def test_an_instrument_of_three_times_the_weight_is_drawn_three_times_as_often_and_one_of_none_never() -> None:
    windows = make_windows(two_instruments(), 50, 25)
    is_es = windows.bars.instrument[windows.starts] == 1
    assert is_es.mean() == 0.5
    drawn = with_weights(windows, {"ES": 3}).shuffled(np.arange(len(windows)), np.random.default_rng(0))
    assert is_es[drawn].mean() == pytest.approx(0.75, abs=0.03)
    drawn = with_weights(windows, {"ES": 0}).shuffled(np.arange(len(windows)), np.random.default_rng(0))
    assert not is_es[drawn].any()


def test_without_weights_the_order_is_the_plain_permutation() -> None:
    windows = make_windows(two_instruments(), 50, 25)
    plain = np.random.default_rng([17, 0, 3]).permutation(np.arange(40))
    assert np.array_equal(windows.shuffled(np.arange(40), np.random.default_rng([17, 0, 3])), plain)
    assert with_weights(windows, {}) is windows


def test_weights_of_nobody_or_of_nothing_are_refused() -> None:
    windows = make_windows(two_instruments(), 50, 25)
    with pytest.raises(UserError, match=r"no instrument 'NQH'; did you mean 'NQ'\?"):
        with_weights(windows, {"NQH": 2.0})
    with pytest.raises(UserError, match="leave no window"):
        with_weights(windows, {"NQ": 0.0, "ES": 0.0})
    assert make_config(PretrainKeys, {}, {"windows.weights": "{ES: 2, 7: 0.5}"}).windows.weights == {
        "ES": 2.0,
        "7": 0.5,
    }
    for text in ("{ES: -1}", "ES", "{ES: .nan}", "[", "{ES: 1e300}"):
        with pytest.raises(UserError, match=r"windows\.weights"):
            make_config(PretrainKeys, {}, {"windows.weights": text})
