"""Prices that cannot be are found; moves that markets have made are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow.bars.spikes import find_spikes


def walk(num: int = 400, level: float = 4_000.0, seed: int = 0) -> np.ndarray:
    """Return prices [4, N] of a random walk in ticks of a quarter."""
    close = level + 0.25 * np.random.default_rng(seed).integers(-4, 5, num).cumsum()
    first = np.concatenate([close[:1], close[:-1]])
    return np.stack([first, np.maximum(first, close) + 0.25, np.minimum(first, close) - 0.25, close])


def found(prices: np.ndarray) -> list[int]:
    return np.flatnonzero(find_spikes(prices, np.zeros(prices.shape[1], np.int64))).tolist()


@settings(deadline=None, max_examples=60)
@given(row=st.integers(0, 399), factor=st.sampled_from([0.0, 0.01, 0.1, 10.0, 100.0]), sign=st.sampled_from([1, -1]))
def test_a_row_of_another_size_is_found_wherever_it_stands(row: int, factor: float, sign: int) -> None:
    prices = walk() * sign
    prices = prices[[0, 2, 1, 3]] if sign < 0 else prices
    prices[:, row] *= factor
    assert found(prices) == [row]


@pytest.mark.parametrize("num", [1, 2, 9, 50, 200])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_placeholders_are_found_in_runs_of_any_length(num: int, value: float) -> None:
    prices = walk()
    prices[:, 100 : 100 + num] = value
    assert found(prices) == list(range(100, 100 + num))


@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_one_price_of_a_bar_is_enough(column: int) -> None:
    prices = walk()
    prices[[column, 1 if column == 1 else 2], 40] = 40_000.0 if column == 1 else 0.0
    assert found(prices) == [40]


@pytest.mark.parametrize("factor", [0.01, 0.1, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("num", [3, 30, 150])
def test_a_stretch_in_other_units_is_found_whole(num: int, factor: float) -> None:
    prices = walk()
    prices[:, 60 : 60 + num] *= factor
    assert found(prices) == list(range(60, 60 + num))


def test_a_price_that_stays_at_its_new_level_is_no_spike() -> None:
    assert found(np.concatenate([walk(200), walk(200) / 10], axis=1)) == []


def test_a_market_around_zero_may_rest_at_zero_and_move_by_a_tick() -> None:
    prices = np.zeros((4, 300))
    prices[:, ::7] = 0.05
    assert found(prices) == []
    prices[:] = 0.05
    prices[:, 100:130] = 0.5
    assert found(prices) == []
    assert found(walk(2_000, 0.0)) == []


def test_oil_of_april_2020_is_legal() -> None:
    fall = np.concatenate([np.linspace(18, 0.5, 300), np.linspace(0.5, -37, 100), np.linspace(-37, 10, 300)])
    assert found(np.stack([fall, fall + 0.3, fall - 0.3, fall])) == []


def test_the_next_instrument_is_another_price() -> None:
    prices = np.concatenate([walk(20), walk(20, 60.0), walk(20)], axis=1)
    codes = np.repeat([0, 1, 2], 20)
    assert not find_spikes(prices, codes).any()
