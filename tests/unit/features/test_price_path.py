"""Path features: against a plain definition bar by bar, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow.core.errors import UserError
from moola_mlflow.features import price_path
from moola_mlflow.features.price_path import PRICE_PATH_FEATURE_NAMES, price_path_features


def random_window(seed: int, num_steps: int = 105, tick: float = 0.25, flat: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    close = 400 + np.cumsum(rng.integers(-3, 4, num_steps))
    open_ = np.concatenate([close[:1], close[:-1]]) + rng.integers(-1, 2, num_steps)
    high = np.maximum(open_, close) + rng.integers(0, 3, num_steps)
    low = np.minimum(open_, close) - rng.integers(0, 3, num_steps)
    window = np.stack([open_, high, low, close], axis=1)
    window[:flat] = window[0, 3]
    return window * tick


def plain_feature(name: str, window: np.ndarray, t: int, r: float) -> float:
    """One feature at one step, straight from its definition."""
    open_, high, low, close = window.T
    num_steps = len(window)
    *kind, last = name.split("_")
    if not last.isdigit():
        if last == "level":
            return ({"high": high, "low": low, "close": close}[kind[0]][t] - np.mean(close)) / r
        if last == "range":
            return (high[t] - low[t]) / r
        other = close if last == "return" else open_
        return (other[t] - close[t - 1]) / r if t >= 1 else 0.0
    k = int(last)
    past, following = slice(t - k + 1, t + 1), slice(t + 1, t + 1 + k)
    has_past, has_next = t - k + 1 >= 0, t + k < num_steps
    if kind[0] == "breakout":
        if not (has_past and has_next):
            return 0.0
        if kind[1] == "up":
            return (max(high[following]) - max(high[past])) / r
        return (min(low[past]) - min(low[following])) / r
    if kind[0] in ("net", "size"):
        if not (t >= k if kind[1] == "past" else has_next):
            return 0.0
        move = close[t] - close[t - k] if kind[1] == "past" else close[t + k] - close[t]
        return (abs(move) if kind[0] == "size" else move) / r
    part, there = (past, has_past) if kind[-1] == "past" else (following, has_next)
    if not there:
        return 0.0
    values = list(high[part] if "high" in kind else low[part])
    extreme = max(values) if "high" in kind else min(values)
    return values.index(extreme) / (k - 1) if kind[0] == "place" else (extreme - close[t]) / r


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), num_steps=st.sampled_from([1, 2, 20, 41, 105]), flat=st.sampled_from([0, 15]))
def test_features_equal_their_plain_definition(seed: int, num_steps: int, flat: int) -> None:
    window = random_window(seed, num_steps, flat=flat)
    range_ = window[:, 1] - window[:, 2]
    r = float(np.median(range_)) or float(np.mean(range_))
    found = price_path_features(window[None])[0]
    if r == 0:
        assert not found.any()
        return
    expected = [[plain_feature(name, window, t, r) for name in PRICE_PATH_FEATURE_NAMES] for t in range(num_steps)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_there_are_56_features_each_with_a_name_of_its_own() -> None:
    assert len(set(PRICE_PATH_FEATURE_NAMES)) == len(PRICE_PATH_FEATURE_NAMES) == 56
    found = price_path_features(random_window(0)[None])
    assert found.shape == (1, 105, 56)
    assert found.dtype == np.float32
    assert (np.abs(found).max(axis=(0, 1)) > 0).all()


@given(
    seed=st.integers(0, 10_000),
    factor=st.sampled_from([1e-7, 1e-3, 0.1, 3.0, 1e7]),
    shift=st.integers(-10_000, 10_000),
    flat=st.sampled_from([0, 12, 70]),
)
def test_features_do_not_depend_on_the_price_scale_or_level(seed: int, factor: float, shift: int, flat: int) -> None:
    window = random_window(seed, flat=flat)[None]
    np.testing.assert_allclose(
        price_path_features((window + 0.25 * shift) * factor), price_path_features(window), rtol=1e-5, atol=1e-5
    )


@given(seed=st.integers(0, 10_000))
def test_mirrored_prices_swap_highs_with_lows_and_turn_the_sign_of_moves(seed: int) -> None:
    window = random_window(seed)
    plain, mirrored = (price_path_features(w[None])[0] for w in (window, -window[:, [0, 2, 1, 3]]))
    swaps = {"high": "low", "low": "high", "up": "down", "down": "up"}
    unsigned = ("breakout", "size", "place", "range")
    for p, name in enumerate(PRICE_PATH_FEATURE_NAMES):
        partner = PRICE_PATH_FEATURE_NAMES.index("_".join(swaps.get(word, word) for word in name.split("_")))
        sign = 1 if name.startswith(unsigned) else -1
        np.testing.assert_allclose(mirrored[:, partner], sign * plain[:, p], rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_window_without_any_range_is_all_zero_and_a_median_of_zero_falls_back_on_the_mean() -> None:
    flat = np.full((60, 4), 7.0)
    assert not price_path_features(flat[None]).any()
    flat[3, 1] = 9.0  # one bar with a range: the median is 0, the mean is 2 / 60
    found = price_path_features(np.stack([np.full((60, 4), 7.0), flat]))
    assert not found[0].any()
    assert found[1, 3, PRICE_PATH_FEATURE_NAMES.index("range")] == pytest.approx(60)


def test_a_window_s_features_do_not_depend_on_its_neighbours_nor_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = np.stack([random_window(seed, flat=100 * (seed == 2)) for seed in range(7)])
    together = price_path_features(windows)
    monkeypatch.setattr(price_path, "CHUNK", 3)
    assert np.array_equal(price_path_features(windows), together)
    assert np.array_equal(price_path_features(windows[4:5])[0], together[4])


def test_no_windows_give_no_features_and_another_shape_is_refused() -> None:
    assert price_path_features(np.zeros((0, 105, 4))).shape == (0, 105, 56)
    with pytest.raises(UserError, match=r"shape \[N, T, 4\].*got shape \(105, 4\)"):
        price_path_features(np.zeros((105, 4)))
