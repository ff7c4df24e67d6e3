"""The vectorised features equal the plain ones, and hold what they promise about price scale and time."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_windows import (
    REAL_BARS,
    WHY_SKIPPED,
    adversarial_windows,
    in_prices,
    random_ticks,
    real_windows,
    tick_windows,
)
from paths import ROOT
from reference_relativity import reference_features

from moola_mlflow.core.errors import UserError
from moola_mlflow.features import relativity
from moola_mlflow.features.relativity import (
    FEATURE_SETS,
    compute_features,
    compute_swings,
    feature_bounds,
    feature_names,
    flip_rate,
)
from moola_mlflow.features.zigzag import Hybrid

SET = "relativity12"  # the widest: the properties below hold for every row of the table
NAMES = FEATURE_SETS[SET]
PRIMARY = Hybrid()
HYBRIDS = [PRIMARY, Hybrid(5, 0.5, False), Hybrid(5, 0.5, True), Hybrid(1, 0.25, True), Hybrid(0, 0.5, True)]
TICKS = st.sampled_from([0.01, 0.005, 0.25, 1.0])
BASES = st.sampled_from([0, 1, -350, 5000, 400_000])
hybrids = st.sampled_from(HYBRIDS)


def features(ohlc, hybrid=PRIMARY):
    return compute_features(ohlc, SET, hybrid).astype(np.float64)


def assert_equal_to_reference(ohlc, hybrid):
    found, flips = features(ohlc, hybrid), compute_swings(ohlc, hybrid).flip
    for n, window in enumerate(ohlc):
        expected, expected_flips = reference_features(window, hybrid.lookback, hybrid.min_retrace, hybrid.same_bar)
        np.testing.assert_allclose(found[n], expected, rtol=0, atol=1e-6, err_msg=f"window {n}")
        np.testing.assert_array_equal(flips[n], expected_flips)


# Equality with the plain implementation


@pytest.mark.parametrize("hybrid", HYBRIDS, ids=str)
@settings(max_examples=30, deadline=None)
@given(ticks=tick_windows(num_windows=3), tick=TICKS, base=BASES)
def test_features_equal_the_plain_per_bar_implementation(hybrid, ticks, tick, base):
    assert_equal_to_reference(in_prices(ticks, tick, base), hybrid)


@pytest.mark.parametrize("name", adversarial_windows())
@pytest.mark.parametrize("hybrid", HYBRIDS, ids=str)
def test_features_equal_the_plain_implementation_on_adversarial_windows(name, hybrid):
    ticks = adversarial_windows()[name]
    for tick, base in [(0.25, 8000), (0.01, 0), (0.005, 7)]:
        assert_equal_to_reference(in_prices(ticks[None], tick, base), hybrid)


@pytest.mark.skipif(not REAL_BARS.exists(), reason=WHY_SKIPPED)
@pytest.mark.parametrize("hybrid", HYBRIDS[:3], ids=str)
def test_features_equal_the_plain_implementation_on_real_bars(hybrid):
    assert_equal_to_reference(real_windows()[::3], hybrid)


# Single rules, by hand


def bars_of(*closes):
    """Return one window whose bars open at the last close and have no wicks, after one bar of range 1 at 0."""
    close = np.array([0.0, *closes])
    o = np.concatenate([[0.0], close[:-1]])
    ohlc = np.stack([o, np.maximum(o, close), np.minimum(o, close), close], axis=1)
    ohlc[0, 1:3] = 0.5, -0.5
    return ohlc[None]


def test_the_first_leg_needs_no_assumed_direction():
    swings = compute_swings(bars_of(3.0, 6.0, 3.0, -4.0))
    # bar 1: a rise of 3.5 from -0.5, the low of bar 0, against 1.2 * 3 is too little; bar 2: 6.5 is enough
    assert swings.leg[0].tolist() == [0, 0, 1, 1, -1]
    assert (swings.sl[0, 2], swings.t_sl[0, 2]) == (-0.5, 0)
    assert (swings.sh[0, 4], swings.t_sh[0, 4]) == (6.0, 2)


def test_a_move_of_exactly_the_threshold_reaches():
    # bar 3: a drop of 4 from 6 against 1.2 * (3 + 3 + 4) / 3 = 4
    for scale in (1, 0.1, 1e-7 / 3, 1e7 / 7):
        assert compute_swings(bars_of(3.0, 6.0, 2.0) * scale).leg[0].tolist() == [0, 0, 1, -1]


def test_a_leg_that_begins_takes_this_bar_as_its_extreme():
    swings = compute_swings(bars_of(3.0, 6.0, 3.0, -4.0, 5.0))
    assert swings.leg[0, -1] == 1
    assert (swings.sl[0, -1], swings.t_sl[0, -1]) == (-4.0, 4)


def test_equal_candidates_wait():
    ohlc = in_prices(adversarial_windows()["tie of the two candidates"][None], 0.01, 12_345)
    assert not compute_swings(ohlc).flip.any()


def test_a_bar_without_range_has_the_defined_values():
    row = features(np.full((1, 3, 4), 7.0))[0]
    np.testing.assert_array_equal(row, np.tile([0.5, 0.5] + [0.0] * 10, (3, 1)))


def test_the_atr_is_exactly_zero_after_ten_flat_bars_whatever_came_before():
    ticks = random_ticks(6, 105, flat=0, jump=700, busy=6)
    ticks[:, 60:] = ticks[:, 59:60, 3:]
    _, h, low, c = np.ascontiguousarray(in_prices(ticks, 0.01, 3).transpose(2, 1, 0))
    atr_T = relativity.true_range_mean(h, low, c)[:, 0]
    assert atr_T[1:60].all()
    assert not atr_T[69:].any()


# Invariances


@settings(max_examples=150, deadline=None)
@given(ticks=tick_windows(num_windows=4), tick=TICKS, base=BASES, power=st.floats(-7, 7), hybrid=hybrids)
def test_prices_times_a_factor_change_features_by_rounding_only(ticks, tick, base, power, hybrid):
    ohlc = in_prices(ticks, tick, base)
    np.testing.assert_allclose(features(ohlc * 10**power, hybrid), features(ohlc, hybrid), rtol=0, atol=1e-6)


@settings(max_examples=150, deadline=None)
@given(ticks=tick_windows(num_windows=4), tick=TICKS, times=st.floats(-1e3, 1e3), hybrid=hybrids)
def test_prices_plus_a_constant_change_features_by_rounding_only(ticks, tick, times, hybrid):
    ohlc = in_prices(ticks, tick, 0)
    shift = times * np.ptp(ohlc)
    # The sum itself rounds to the shift's last bit: at most 1e3 * 300 ticks * 2**-53 = 3e-11 ticks a price, and the
    # smallest denominator is an ATR of a tenth of a tick. 1e-6 covers it a thousandfold; float32 output is coarser.
    np.testing.assert_allclose(features(ohlc + shift, hybrid), features(ohlc, hybrid), rtol=0, atol=1e-6)


@settings(max_examples=150, deadline=None)
@given(ticks=tick_windows(num_windows=4), tick=TICKS, base=BASES, hybrid=hybrids)
def test_mirrored_prices_give_mirrored_features(ticks, tick, base, hybrid):
    ohlc = in_prices(ticks, tick, base)
    plain, mirrored = features(ohlc, hybrid), features(-ohlc[..., [0, 2, 1, 3]], hybrid)
    f = dict(zip(NAMES, np.moveaxis(plain, -1, 0), strict=True))
    expected = {
        **f,  # range_z, expansion_proxy (leg and body both change sign) and consol_proxy stay
        "open_norm": 1 - f["open_norm"],  # a zero-range bar's 0.5 is its own mirror image
        "close_norm": 1 - f["close_norm"],
        "body_pct": -f["body_pct"],
        "upper_wick_pct": f["lower_wick_pct"],
        "lower_wick_pct": f["upper_wick_pct"],
        "dist_to_prev_SH": f["dist_to_prev_SL"],
        "dist_to_prev_SL": f["dist_to_prev_SH"],
        "bars_since_SH_norm": f["bars_since_SL_norm"],
        "bars_since_SL_norm": f["bars_since_SH_norm"],
    }
    for n, name in enumerate(NAMES):
        np.testing.assert_allclose(mirrored[..., n], expected[name], rtol=0, atol=1e-6, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(ticks=tick_windows(), other=st.integers(0, 2**32 - 1), cut=st.floats(0, 1), hybrid=hybrids)
def test_bars_after_t_change_nothing_at_or_before_t(ticks, other, cut, hybrid):
    num_bars = ticks.shape[1]
    t = int(cut * (num_bars - 1))
    changed = ticks.copy()
    changed[:, t + 1 :] = random_ticks(other, num_bars, flat=12, jump=300, busy=20)[:, t + 1 :]
    np.testing.assert_array_equal(features(changed, hybrid)[:, : t + 1], features(ticks, hybrid)[:, : t + 1])
    np.testing.assert_array_equal(features(ticks[:, : t + 1], hybrid), features(ticks, hybrid)[:, : t + 1])


@settings(max_examples=150, deadline=None)
@given(ticks=tick_windows(num_windows=4), tick=TICKS, base=BASES, hybrid=hybrids)
def test_every_value_is_finite_and_inside_its_bounds(ticks, tick, base, hybrid):
    found = compute_features(in_prices(ticks, tick, base), SET, hybrid)
    lower_F, upper_F = feature_bounds(NAMES).T
    assert np.isfinite(found).all()
    assert (found >= lower_F).all()
    assert (found <= upper_F).all()


@settings(max_examples=40, deadline=None)
@given(ticks=tick_windows(num_windows=7), chunk=st.integers(1, 8), hybrid=hybrids)
def test_a_window_does_not_see_the_windows_beside_it(ticks, chunk, hybrid):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relativity, "CHUNK", chunk)
        together = features(ticks, hybrid)
        swings = compute_swings(ticks, hybrid)
    for n in range(len(ticks)):
        np.testing.assert_array_equal(together[n : n + 1], features(ticks[n : n + 1], hybrid))
        np.testing.assert_array_equal(swings.t_sh[n], compute_swings(ticks[n : n + 1], hybrid).t_sh[0])


# Interface


def test_sets_are_the_first_rows_of_the_table():
    assert [len(feature_names(s)) for s in ("relativity10", "relativity11", "relativity12")] == [10, 11, 12]
    assert feature_names("relativity11")[-1] == "expansion_proxy"
    ohlc = in_prices(random_ticks(1, 105, 0, 0, 4, num_windows=2), 0.25, 100)
    all_twelve = compute_features(ohlc, "relativity12")
    assert all_twelve.dtype == np.float32
    np.testing.assert_array_equal(compute_features(ohlc), all_twelve[..., :11])
    np.testing.assert_array_equal(compute_features(ohlc, "relativity10"), all_twelve[..., :10])


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(UserError, match=r"'relativity1' is not a feature set.*did you mean 'relativity1"):
        feature_names("relativity1")


def test_windows_of_another_shape_are_refused():
    with pytest.raises(UserError, match=r"shape \[N, T, 4\].*got \(105, 4\)"):
        compute_features(np.zeros((105, 4)))


def test_no_windows_give_no_features():
    assert compute_features(np.zeros((0, 105, 4))).shape == (0, 105, 11)
    assert flip_rate(np.zeros((0, 105, 4))) == 0


def test_a_nan_price_shows_as_nan():
    ohlc = in_prices(random_ticks(2, 105, 0, 0, 4), 0.25, 100)
    ohlc[0, 40, 1] = np.nan
    found = compute_features(ohlc)[0]
    assert np.isfinite(found[:40]).all()
    assert np.isnan(found[40, :6]).all()


def test_the_flip_rate_counts_confirmed_swings_past_the_warm_up():
    ohlc = in_prices(random_ticks(3, 105, 0, 0, 4, num_windows=5), 0.25, 100)
    leg = compute_swings(ohlc).leg
    assert flip_rate(ohlc, warmup=20) == pytest.approx(np.mean(leg[:, 20:] != leg[:, 19:-1]))


# Documentation


DOCS = ROOT / "docs" / "reference" / "features.md"


def test_the_documented_table_holds_every_feature_and_its_bounds():
    text = DOCS.read_text(encoding="utf-8")
    for number, (name, (lower, upper)) in enumerate(zip(NAMES, feature_bounds(NAMES), strict=True), start=1):
        assert re.search(rf"^\| {number} \| {name} \| .* \| \[{lower:g}, {upper:g}\] \|$", text, re.MULTILINE), name


def test_the_documented_thirteenth_feature_works_as_written():
    function, row = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    source = Path(relativity.__file__).read_text(encoding="utf-8")
    source = source.replace(
        "@dataclass(frozen=True)\nclass Feature", f"{function}\n\n@dataclass(frozen=True)\nclass Feature"
    )
    source = source.replace("\n)\n_ROWS", f"\n{row})\n_ROWS")
    module = types.ModuleType("relativity_with_thirteen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
        exec(compile(source, "relativity_with_thirteen", "exec"), vars(module))
    assert module.feature_names("relativity13") == (*NAMES, "gap_atr")
    ohlc = in_prices(random_ticks(4, 105, 12, 60, 4, num_windows=3), 0.25, 100)
    thirteen = module.compute_features(ohlc, "relativity13")
    np.testing.assert_array_equal(thirteen[..., :12], compute_features(ohlc, "relativity12"))
    assert np.isfinite(thirteen).all()
    assert np.any(thirteen[..., 12] != 0)
