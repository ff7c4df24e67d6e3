"""Bars of one length pass, with or without gaps; bars of another length in any stretch of time are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow.bars.cadence import MINUTE_NS, check_cadence
from moola_mlflow.core import UserError

DAY = 1_440


def check(minutes: np.ndarray, codes: np.ndarray | None = None) -> None:
    times = np.asarray(minutes, np.int64) * MINUTE_NS
    check_cadence(times, np.zeros(len(times), np.int64) if codes is None else codes, "a.csv")


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([1.0, 0.9, 0.5, 0.2, 0.05]))
def test_minutes_that_are_missing_at_random_are_one_minute_bars(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    check(np.flatnonzero(rng.random(20_000) < share))


@pytest.mark.parametrize("at", [0, 500, 3_000])
def test_a_stretch_of_five_minute_bars_is_refused_wherever_it_lies(at: int) -> None:
    steps = np.ones(4_000, np.int64)
    steps[at : at + 40] = 5
    with pytest.raises(UserError, match="the bars are 5 minutes apart"):
        check(np.cumsum(steps))


def test_one_odd_step_does_not_switch_the_check_off() -> None:
    steps = np.full(300, 5)
    steps[150] = 1
    with pytest.raises(UserError, match=r"not one-minute bars \(99.7% of the steps are a multiple of 300 s\)"):
        check(np.cumsum(steps))


def test_a_bar_a_day_at_one_minute_beside_a_dense_instrument_is_a_thin_expiry() -> None:
    times = np.concatenate([np.arange(60 * DAY), np.arange(60) * DAY])
    check(times, codes=np.repeat([0, 1], [60 * DAY, 60]))


def test_times_at_any_second_are_those_of_trades() -> None:
    times = np.cumsum(np.random.default_rng(0).integers(30, 90, 400)) * 1_000_000_000
    with pytest.raises(UserError, match="any second of the minute"):
        check_cadence(times, np.zeros(400, np.int64), "a.csv")


def test_few_steps_tell_nothing() -> None:
    check(np.arange(20) * 60)
