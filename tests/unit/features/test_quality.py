"""The quality report's figures, its refusals and warnings, its picture, and the real bars that must pass it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from market_windows import REAL_BARS, WHY_SKIPPED, in_prices, random_ticks, real_windows

from moola_mlflow.core.errors import UserError
from moola_mlflow.features import relativity
from moola_mlflow.features.quality import check_quality, psi, quality_metrics, quality_report, quality_table
from moola_mlflow.features.relativity import compute_features, feature_names, flip_rate
from moola_mlflow.features.zigzag import Hybrid
from moola_mlflow.reports.plots.quality import quality_figure

NAMES = feature_names("relativity11")
needs_real_bars = pytest.mark.skipif(not REAL_BARS.exists(), reason=WHY_SKIPPED)


@pytest.fixture
def features_NTF():
    return compute_features(in_prices(random_ticks(5, 105, 0, 0, 5, num_windows=60), 0.25, 900))


def report_of(features_NTF, **more):
    return quality_report(features_NTF, NAMES, warmup=20, swing_flip_rate=0.2, **more)


def test_the_report_holds_the_figures_of_the_valid_steps(features_NTF):
    features_NTF[:, :20] = np.nan  # the warm-up is not looked at
    report = json.loads(json.dumps(report_of(features_NTF), allow_nan=False))
    values = features_NTF[:, 20:, 5].astype(np.float64)
    row = report["features"][5]
    assert row["name"] == "range_z"
    assert row["mean"] == pytest.approx(values.mean())
    assert row["std"] == pytest.approx(values.std())
    assert [row[q] for q in ("q05", "q25", "q50", "q75", "q95")] == pytest.approx(
        np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    )
    assert (row["nan"], row["nonzero"]) == (0, pytest.approx(np.mean(values != 0)))
    assert (row["at_lower"], row["at_upper"]) == (np.mean(values == 0), np.mean(values == 3))
    assert report["num_valid_steps"] == 60 * 85
    assert report["valid_share"] == pytest.approx(85 / 105)
    assert report["warnings"] == []
    check_quality(report)


@pytest.mark.parametrize("num_windows", [1, 2, 7])
def test_bins_are_cut_at_numpys_deciles(num_windows):
    ohlc_NT4 = in_prices(random_ticks(1, 21 + num_windows, 0, 0, 5, num_windows=num_windows), 0.25, 900)
    features_NTF = compute_features(ohlc_NT4)
    for f, row in enumerate(report_of(features_NTF)["features"]):
        values = features_NTF[:, 20:, f].astype(np.float64).ravel()
        deciles = np.unique(np.quantile(values, np.arange(1, 10) / 10))
        np.testing.assert_allclose(row["histogram"]["edges"], deciles, atol=1e-12)


def test_metrics_carry_the_names_of_the_contract(features_NTF):
    report = report_of(features_NTF)
    metrics = quality_metrics(report)
    assert metrics["feature/swing_flip_rate"] == 0.2
    assert metrics["feature/nonzero/body_pct"] == report["features"][2]["nonzero"]
    assert {name.split("/")[-1] for name in metrics if "/clipped/" in name} == set(NAMES)
    assert [row["name"] for row in quality_table(report)] == list(NAMES)


def test_a_nan_is_refused_with_name_figure_limit_and_cure(features_NTF):
    features_NTF[:3, 50, 2] = np.nan
    report = report_of(features_NTF)
    assert report["num_valid_steps"] == 60 * 85 - 3
    with pytest.raises(UserError, match=r"body_pct: NaN or infinite in 0\.06%.*allowed 0.*bars\.repair=drop"):
        check_quality(report)


def test_a_feature_of_nothing_but_nan_is_refused(features_NTF):
    features_NTF[..., 0] = np.nan
    with pytest.raises(UserError, match=r"open_norm: NaN or infinite in 100\.00%"):
        check_quality(report_of(features_NTF))


def test_a_value_out_of_bounds_is_refused(features_NTF):
    features_NTF[0, 60, 7] = 3.5
    with pytest.raises(UserError, match=r"dist_to_prev_SL: values from .* to 3\.5, allowed -3 to 3. Clip"):
        check_quality(report_of(features_NTF))


def test_a_feature_that_is_nearly_always_zero_is_refused(features_NTF):
    features_NTF[:, :, 3] = 0
    features_NTF[:2, :, 3] = 0.5
    with pytest.raises(UserError, match=r"upper_wick_pct: non-zero in 3\.33%.*at least 5% needed. Use"):
        check_quality(report_of(features_NTF))


def test_every_fault_is_named_at_once(features_NTF):
    features_NTF[..., 3] = 0
    features_NTF[0, 60, 7] = 3.5
    with pytest.raises(UserError, match=r"(?s)upper_wick_pct.*dist_to_prev_SL"):
        check_quality(report_of(features_NTF))


def test_bars_that_never_move_are_refused():
    features = compute_features(np.full((4, 105, 4), 100.0))
    with pytest.raises(UserError, match=r"body_pct: non-zero in 0\.00%"):
        check_quality(report_of(features))


def test_a_high_flip_rate_warns_and_does_not_stop(features_NTF):
    report = quality_report(features_NTF, NAMES, 20, swing_flip_rate=0.97)
    assert "0.97, above 0.34" in report["warnings"][0]
    assert "features.hybrid_lookback=0" in report["warnings"][0]
    check_quality(report)


def test_no_step_past_the_warm_up_is_refused(features_NTF):
    with pytest.raises(UserError, match="no step is left: 0 windows"):
        report_of(features_NTF[:0])


def test_drift_is_zero_against_itself_and_large_against_other_bars(features_NTF):
    reference = json.loads(json.dumps(report_of(features_NTF)))
    same = report_of(features_NTF, reference=reference)
    assert [row["psi"] for row in same["features"]] == pytest.approx([0] * 11, abs=1e-12)
    assert same["warnings"] == []
    features_NTF[..., 5] = 1.0
    moved = report_of(features_NTF, reference=reference)
    assert moved["features"][5]["psi"] > 1
    assert "range_z" in moved["warnings"][0]
    assert quality_metrics(moved)["feature/psi/range_z"] == moved["features"][5]["psi"]


def test_psi_follows_its_formula():
    expected, found = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.6, 0.0])
    by_hand = -0.1 * np.log(0.8) + 0.3 * np.log(2) + (1e-4 - 0.2) * np.log(1e-4 / 0.2)
    assert psi(expected, found) == pytest.approx(by_hand)


def test_the_picture_is_1400_pixels_wide_and_has_a_panel_a_feature(features_NTF, tmp_path):
    figure = quality_figure(report_of(features_NTF), features_NTF)
    figure.savefig(tmp_path / "quality.png")
    assert figure.get_size_inches()[0] * figure.dpi == 1400
    titles = [ax.get_title().split()[0] for ax in figure.axes if ax.get_title()]
    assert titles == list(NAMES)


# Real bars


@needs_real_bars
def test_real_es_bars_pass():
    ohlc = real_windows()
    features = compute_features(ohlc)
    assert ohlc.shape == (328, 105, 4)
    assert not np.isnan(features).any()
    report = quality_report(features, NAMES, 20, flip_rate(ohlc))
    check_quality(report)
    assert report["warnings"] == []


@needs_real_bars
def test_real_es_bars_hold_the_zero_denominators_that_the_formulas_define():
    ohlc = real_windows()
    assert np.mean(ohlc[..., 1] == ohlc[..., 2]) == pytest.approx(0.12, abs=0.02)
    _, h, low, c = np.ascontiguousarray(ohlc.transpose(2, 1, 0))
    assert np.count_nonzero(relativity.true_range_mean(h, low, c)[1] == 0) == 32


@needs_real_bars
def test_the_published_zigzag_warns_on_real_es_bars():
    ohlc, hybrid = real_windows(), Hybrid(lookback=5, min_retrace=0.5, same_bar=True)
    rate = flip_rate(ohlc, hybrid=hybrid)
    assert rate > 0.9
    assert quality_report(compute_features(ohlc, hybrid=hybrid), NAMES, 20, rate)["warnings"]
