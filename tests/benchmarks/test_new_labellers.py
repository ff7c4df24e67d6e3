"""The labellers that were written to test the preset rules: what they find, and that a seed decides their noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.science.trap_labeller import apply_trap_rule, trap_labels
from benchmarks.science.turn_labeller import apply_turn_rule, turn_labels
from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.labels import LabelledSet

Apply = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]


def flat() -> np.ndarray:
    """Return one window of bars that all go from 99 to 101 and close at 100. Shapes: [1, 105, 4]."""
    return np.tile(np.array([100.0, 101.0, 99.0, 100.0]), (1, 105, 1))


@pytest.mark.parametrize("side", [1, -1])
def test_a_breakout_that_fails_is_a_trap_and_prices_that_go_on_are_a_retracement(side: int) -> None:
    ohlc = flat()
    ohlc[0, 50:53] = [101.0, 104.0, 100.5, 103.0]
    ohlc[0, 53:56] = [100.0, 100.5, 95.0, 96.0]
    ohlc[0, 56:] = [90.0, 91.0, 84.0, 85.0]
    if side < 0:
        ohlc = 200 - ohlc[..., [0, 2, 1, 3]]
    found = [apply_trap_rule(ohlc, np.random.default_rng(seed)) for seed in range(40)]
    outcome, start, end = (np.array([one[k][0] for one in found]) for k in range(3))
    assert set(outcome.tolist()) <= {0, 1}
    assert (outcome == 1).mean() > 0.8
    assert (np.abs(start - 50) <= 2).all()
    assert (np.abs(end - 53) <= 3).all()


@pytest.mark.parametrize("side", [1, -1])
def test_a_run_that_turns_and_falls_on_is_a_retracement(side: int) -> None:
    ohlc = flat()
    for k, close in enumerate([101.0, 102.0, 103.0, 104.0, 105.0, 106.0]):
        ohlc[0, 50 + k] = [close - 1, close + 0.5, close - 1.5, close]
    ohlc[0, 56:] = [101.0, 102.0, 97.0, 98.0]
    ohlc[0, 56] = [105.0, 106.0, 102.0, 103.0]
    if side < 0:
        ohlc = 200 - ohlc[..., [0, 2, 1, 3]]
    found = [apply_turn_rule(ohlc, np.random.default_rng(seed)) for seed in range(40)]
    outcome, start, end = (np.array([one[k][0] for one in found]) for k in range(3))
    assert (outcome == 1).mean() > 0.8
    assert (np.abs(start - 50) <= 2).all()
    assert (np.abs(end - 56) <= 2).all()


@pytest.mark.parametrize("apply", [apply_trap_rule, apply_turn_rule])
def test_nothing_is_found_where_nothing_moves(apply: Apply) -> None:
    outcome, _, _ = apply(np.full((3, 105, 4), 7.0), np.random.default_rng(0))
    assert outcome.tolist() == [3, 3, 3]


@pytest.mark.parametrize("make", [trap_labels, turn_labels])
def test_a_seed_decides_the_noise_and_spans_lie_in_their_windows(make: Callable[[Bars, int, int], LabelledSet]) -> None:
    bars = read_bars(BarsConfig(sample_bars=30_000, sample_seed=5))
    one, again, other = make(bars, 40, 3), make(bars, 40, 3), make(bars, 40, 4)
    assert one.sha256 == again.sha256 != other.sha256
    assert set(one.counts()) == {"consolidation", "retracement"}
    assert ((one.start >= 1) & (one.start + 2 <= one.end) & (one.end <= 104)).all()
