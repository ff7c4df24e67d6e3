"""Scores become probabilities that hold, and the threshold gives the precision that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from moola_mlflow.models.events.score_calibration import ScoreCalibration, threshold_for


def draws(slope: float, offset: float, num: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mass = rng.beta(0.6, 1.2, num).clip(1e-4, 1 - 1e-4)
    return mass, rng.random(num) < ScoreCalibration(slope, offset).apply(mass)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (2.0, 1.0), (0.5, -1.0)])
def test_the_true_calibration_is_found(slope: float, offset: float) -> None:
    found = ScoreCalibration.of(*draws(slope, offset))
    assert (found.slope, found.offset) == pytest.approx((slope, offset), abs=0.1)


def test_scores_that_are_far_too_sure_are_calibrated_too() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(-1, 8, 2000)
    mass, right = 1 / (1 + np.exp(-logit)), rng.random(2000) < 1 / (1 + np.exp(2 - 0.3 * logit))
    found = ScoreCalibration.of(mass, right)
    assert (found.slope, found.offset) == pytest.approx((0.3, -2.0), abs=0.15)


def test_the_order_of_scores_stays() -> None:
    mass = np.linspace(0, 1, 50)
    assert (np.diff(ScoreCalibration(0.7, -0.3).apply(mass)) >= 0).all()


@pytest.mark.parametrize("right", [[], [True] * 3, [False] * 3, [True, False, False]])
def test_few_or_one_sided_events_give_finite_numbers(right: list[bool]) -> None:
    mass = np.array([0.1, 0.5, 0.9])[: len(right)]
    found = ScoreCalibration.of(mass, np.array(right, bool))
    assert found.slope > 0
    assert np.isfinite(found.apply(np.array([0.0, 0.5, 1.0]))).all()


def test_a_slope_that_turns_the_order_round_is_refused() -> None:
    with pytest.raises(ValueError, match="slope above 0"):
        ScoreCalibration(-1.0, 0.0)


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.9])
def test_events_above_the_threshold_have_the_precision_asked_for(precision: float) -> None:
    mass, right = draws(2.0, 0.5)
    probability = ScoreCalibration.of(mass, right).apply(mass)
    above = probability >= threshold_for(probability, right, precision)
    assert right[above].mean() == pytest.approx(precision, abs=0.02)


@pytest.mark.parametrize(("probability", "right"), [([], []), ([0.9] * 9, [True] * 9), ([0.4] * 30, [False] * 30)])
def test_a_precision_out_of_reach_is_its_own_threshold(probability: list[float], right: list[bool]) -> None:
    assert threshold_for(np.array(probability), np.array(right, bool), 0.8) == 0.8
