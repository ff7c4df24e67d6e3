"""The weak rule against an exact reference in whole ticks, ties included."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow.labels.surge_rule import NO_LABEL, NO_SURGE, apply_rule

CONSOLIDATION, RETRACEMENT = 0, 1
seeds = st.integers(0, 2**32 - 1)


def tick_windows(seed: int, num: int = 30) -> np.ndarray:
    """Windows of whole ticks, some with one or two planted moves. Shapes: int64 [num, 105, 4]."""
    rng = np.random.default_rng(seed)
    step = rng.integers(-2, 3, (num, 105))
    for w in range(num):
        for _ in range(rng.integers(0, 3)):
            at, n = rng.integers(10, 95), rng.integers(3, 10)
            step[w, at : at + n] += rng.choice([-1, 1]) * rng.integers(1, 5)
    step[rng.random((num, 105)) < 0.2] = 0
    close = np.cumsum(step, axis=1) + 400
    open_ = close - step + rng.integers(-1, 2, (num, 105)) * (rng.random((num, 105)) < 0.3)
    high = np.maximum(open_, close) + rng.integers(0, 3, (num, 105)) * (step != 0)
    low = np.minimum(open_, close) - rng.integers(0, 3, (num, 105)) * (step != 0)
    return np.stack([open_, high, low, close], axis=2)


def reference(window: np.ndarray) -> tuple[int, int, int]:
    """The rule in exact arithmetic, bar by bar. Shapes: int [105, 4] -> outcome, start, end."""
    bars = window.tolist()
    true_range = [bars[0][1] - bars[0][2]]
    for (_, high, low, _), (*_, previous) in zip(bars[1:], bars, strict=False):
        true_range.append(max(high - low, abs(high - previous), abs(low - previous)))
    median = sorted(true_range)[52]
    best, found = Fraction(0), None
    for n in range(5, 13):
        for s in range(20, 105):
            e = s + n - 1
            if e + 20 > 104 or median == 0:
                continue
            net = abs(bars[e][3] - bars[s][0])
            squared = Fraction(net**2, median**2 * n)
            strong = squared >= Fraction(18, 10) ** 2
            straight = net >= Fraction(35, 100) * sum(true_range[s : e + 1])
            if strong and straight and squared > best:
                best, found = squared, (s, e)
    if found is None:
        return NO_SURGE, -1, -1
    s, e = found
    up = bars[e][3] > bars[s][0]
    top, bottom = max(bar[1] for bar in bars[s : e + 1]), min(bar[2] for bar in bars[s : e + 1])
    half = Fraction(top - bottom, 2)
    for _, high, low, _ in bars[e + 1 : e + 21]:
        if low <= top - half if up else high >= bottom + half:
            return RETRACEMENT, s, e
        if high >= top + half if up else low <= bottom - half:
            return NO_LABEL, s, e
    return CONSOLIDATION, s, e


@given(seed=seeds, tick=st.sampled_from([1.0, 0.25, 0.01, 0.005, 1 / 32, 0.1]))
@settings(max_examples=25)
def test_the_rule_agrees_with_exact_arithmetic_ties_included(seed: int, tick: float) -> None:
    windows = tick_windows(seed)
    outcome, start, end = apply_rule(windows * tick)
    for w, expected in enumerate(map(reference, windows)):
        found = (outcome[w], start[w], end[w]) if outcome[w] != NO_SURGE else (NO_SURGE, -1, -1)
        assert found == expected


def test_the_random_windows_of_these_tests_show_every_outcome() -> None:
    outcome = apply_rule(np.concatenate([tick_windows(seed) for seed in range(10)]) * 0.25)[0]
    assert np.bincount(outcome, minlength=4).min() > 3


@given(seed=seeds, axis=st.integers(-5000, 5000))
@settings(max_examples=40)
def test_mirrored_prices_give_the_same_label_and_span(seed: int, axis: int) -> None:
    windows = tick_windows(seed) * 0.01
    mirrored = axis * 0.01 - windows[:, :, [0, 2, 1, 3]]
    for one, other in zip(apply_rule(windows), apply_rule(mirrored), strict=True):
        np.testing.assert_array_equal(one, other)


@given(seed=seeds, exponent=st.floats(-7, 7))
@settings(max_examples=40)
def test_the_scale_of_prices_changes_nothing(seed: int, exponent: float) -> None:
    windows = tick_windows(seed) * 0.25
    for one, other in zip(apply_rule(windows), apply_rule(windows * 10**exponent), strict=True):
        np.testing.assert_array_equal(one, other)


@given(seed=seeds, level=st.integers(-100_000, 100_000))
@settings(max_examples=25)
def test_the_level_of_prices_changes_nothing_and_may_be_negative(seed: int, level: int) -> None:
    windows = tick_windows(seed)
    for one, other in zip(apply_rule(windows * 0.01), apply_rule((windows + level) * 0.01), strict=True):
        np.testing.assert_array_equal(one, other)


def quiet_window() -> np.ndarray:
    """A window that goes nowhere: every bar 0 0.5 -0.5 0."""
    return np.tile([0.0, 0.5, -0.5, 0.0], (105, 1))


def surge(window: np.ndarray, at: int, num_bars: int, size: float = 12.0, after: float = 0.0) -> np.ndarray:
    """Lay a straight rise over a window; what follows stays ``after`` above its end."""
    steps = np.linspace(0, size, num_bars + 1)
    window[at : at + num_bars] = np.stack([steps[:-1], steps[1:], steps[:-1], steps[1:]], axis=1)
    window[at + num_bars :] += size + after
    return window


def test_a_rise_whose_next_bars_stay_put_is_a_consolidation() -> None:
    outcome, start, end = apply_rule(surge(quiet_window(), 40, 6)[None])
    assert (outcome[0], start[0], end[0]) == (CONSOLIDATION, 40, 45)


@pytest.mark.parametrize(
    ("column", "price", "expected"),
    [
        (2, 6.0, RETRACEMENT),  # a low, not a close, that touches the middle of the leg
        (2, 6.01, CONSOLIDATION),
        (1, 18.0, NO_LABEL),
        (1, 17.99, CONSOLIDATION),
    ],
)
def test_the_first_touch_decides_to_the_tick(column: int, price: float, expected: int) -> None:
    window = surge(quiet_window(), 40, 6, after=-0.5)
    window[65, column] = price  # the last of the twenty bars
    assert apply_rule(window[None])[0][0] == expected
    window = surge(quiet_window(), 40, 6, after=-0.5)
    window[66, column] = price
    assert apply_rule(window[None])[0][0] == CONSOLIDATION


def test_a_bar_that_touches_both_sides_is_a_retracement() -> None:
    window = surge(quiet_window(), 40, 6)
    window[50, 1:3] = 18.0, 6.0
    assert apply_rule(window[None])[0][0] == RETRACEMENT


@pytest.mark.parametrize(
    ("at", "span"), [(20, (20, 25)), (79, (79, 84)), (19, (20, 24)), (80, (80, 84)), (14, None), (84, None)]
)
def test_a_surge_needs_twenty_bars_before_and_after_it(at: int, span: tuple[int, int] | None) -> None:
    outcome, start, end = apply_rule(surge(quiet_window(), at, 6)[None])
    assert (outcome[0] != NO_SURGE) == (span is not None)
    assert span is None or (start[0], end[0]) == span


def test_a_window_that_mostly_stands_still_has_no_label() -> None:
    window = surge(np.zeros((105, 4)), 40, 6)
    assert apply_rule(window[None])[0][0] == NO_SURGE
