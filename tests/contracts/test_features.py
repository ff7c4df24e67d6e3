"""The contract of features: every row of the table and every file of one's own passes all of it."""

from __future__ import annotations

import numpy as np
import pytest

from moola_mlflow.core.errors import UserError
from moola_mlflow.features.relativity import (
    FEATURE_SETS,
    OWN,
    TABLE,
    Feature,
    compute_features,
    extend,
    feature_bounds,
    feature_names,
)

SETS = [max(FEATURE_SETS, key=lambda name: len(FEATURE_SETS[name])), *(f"relativity10+{file}" for file in OWN)]


@pytest.fixture(params=SETS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def prices(sample_prices: np.ndarray) -> np.ndarray:
    """Windows of the sample, one of them without any movement, one that jumps."""
    windows = sample_prices[:24].copy()
    windows[3] = windows[3, 0, 0]
    windows[5, 50:] += 40
    return windows


def test_every_value_is_finite_and_inside_its_bounds(name: str, prices: np.ndarray) -> None:
    found = compute_features(prices, name)
    lower, upper = feature_bounds(feature_names(name)).T
    assert found.shape == (*prices.shape[:2], len(feature_names(name)))
    assert np.isfinite(found).all()
    assert (found >= lower.astype(np.float32)).all()
    assert (found <= upper.astype(np.float32)).all()


def test_a_feature_tells_something_on_one_bar_in_twenty_at_least(name: str, sample_prices: np.ndarray) -> None:
    said = (compute_features(sample_prices, name)[:, 20:] != 0).mean((0, 1))
    assert [row for row, share in zip(feature_names(name), said, strict=True) if share < 0.05] == []


@pytest.mark.parametrize("cut", [1, 21, 60, 104])
def test_bars_after_t_change_nothing_at_or_before_t(name: str, prices: np.ndarray, cut: int) -> None:
    whole, changed = compute_features(prices, name), prices.copy()
    changed[:, cut:] = prices[::-1, cut:] * 1.01
    np.testing.assert_array_equal(compute_features(changed, name)[:, :cut], whole[:, :cut])
    np.testing.assert_array_equal(compute_features(prices[:, :cut], name), whole[:, :cut])


@pytest.mark.parametrize("factor", [1e-6, 0.25, 3.7e5])
def test_prices_times_a_factor_change_features_by_rounding_only(name: str, prices: np.ndarray, factor: float) -> None:
    whole = compute_features(prices, name)
    np.testing.assert_allclose(compute_features(prices * factor, name), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", [-5000, 0.25, 90_000])
def test_prices_plus_a_constant_change_features_by_rounding_only(name: str, prices: np.ndarray, shift: float) -> None:
    whole = compute_features(prices, name)
    np.testing.assert_allclose(compute_features(prices + shift, name), whole, rtol=0, atol=1e-5)


def test_a_window_does_not_see_the_windows_beside_it(name: str, prices: np.ndarray) -> None:
    together = compute_features(prices, name)
    np.testing.assert_array_equal(compute_features(prices[7:8], name), together[7:8])


def test_a_nan_price_is_not_hidden(name: str, prices: np.ndarray) -> None:
    broken = prices[:1].copy()
    broken[0, 40] = np.nan
    found = compute_features(broken, name)[0]
    assert np.isfinite(found[:40]).all()
    assert np.isnan(found[40]).any()


def test_a_set_names_files_of_ones_own_after_a_plus(monkeypatch: pytest.MonkeyPatch, prices: np.ndarray) -> None:
    from moola_mlflow.features import relativity

    monkeypatch.setattr(relativity, "_ROWS", dict(relativity._ROWS))
    monkeypatch.setattr(relativity, "OWN", dict(OWN))
    extend("half", (Feature("half", 0, 1, lambda s: 0.5 + 0 * s.c),))
    assert feature_names("relativity10+half") == (*feature_names("relativity10"), "half")
    found = compute_features(prices, "relativity10+half")
    np.testing.assert_array_equal(found[..., :10], compute_features(prices, "relativity10"))
    assert (found[..., 10] == 0.5).all()
    with pytest.raises(UserError, match="did you mean 'half'"):
        feature_names("relativity10+halv")
    with pytest.raises(UserError, match="each once"):
        feature_names("relativity10+half+half")
    with pytest.raises(ValueError, match=r"features/again\.py: a feature is already called 'range_z'"):
        extend("again", (TABLE[5],))
