"""Temperatures that are known, and logits that say nothing or too much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow.core import TrainingError
from moola_mlflow.evaluation.metrics import ece
from moola_mlflow.models.calibration import HIGHEST, LOWEST, apply_temperature, temperature


@pytest.mark.parametrize("known", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_a_known_temperature_is_recovered(known: float, num_classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, num_classes))
    odds = np.exp(logits)
    label = (rng.random((20_000, 1)) > np.cumsum(odds / odds.sum(1, keepdims=True), 1)).sum(1)
    found = temperature(logits * known, label)
    assert found == pytest.approx(known, rel=0.05)
    assert ece(label, apply_temperature(logits * known, found)) < 0.015


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 30))
def test_no_other_temperature_has_a_smaller_loss(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits, label = scale * rng.normal(size=(200, 3)), rng.integers(0, 3, 200)
    logits[np.arange(200), label] += scale * rng.random()
    target = np.full((200, 3), 1 / 203) + 200 / 203 * np.eye(3)[label]

    def loss(t: float) -> float:
        return float(-(target * np.log(apply_temperature(logits, t) + 1e-300)).sum())

    found = temperature(logits, label)
    assert all(loss(found) <= loss(t) + 1e-9 for t in np.geomspace(LOWEST, HIGHEST, 60))


@given(
    steps=st.lists(st.lists(st.integers(-900, 900), min_size=3, max_size=3, unique=True), min_size=1, max_size=20),
    t=st.floats(LOWEST, HIGHEST),
)
@settings(max_examples=60)
def test_a_temperature_never_changes_the_order_of_the_classes(steps: list[list[int]], t: float) -> None:
    logits = np.array(steps) / 100
    probability = apply_temperature(logits, t)
    np.testing.assert_array_equal(probability.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(probability.sum(1), 1)
    assert (np.diff(np.take_along_axis(probability, logits.argsort(1), 1)) >= 0).all()


def test_windows_that_are_all_classified_right_give_a_finite_temperature_short_of_certainty() -> None:
    label = np.arange(30) % 2
    logits = np.where(label[:, None] == np.arange(2), 0.5, -0.5)
    for scale in (1, 10, 50):
        found = temperature(logits * scale, label)
        assert LOWEST < found < HIGHEST
        assert apply_temperature(logits * scale, found).max() == pytest.approx(31 / 32, abs=1e-6)


def test_windows_that_are_all_classified_wrong_give_the_highest_temperature() -> None:
    label = np.arange(30) % 2
    assert temperature(np.where(label[:, None] == np.arange(2), -3.0, 3.0), label) == pytest.approx(HIGHEST)


@pytest.mark.parametrize("logits", [np.zeros((5, 2)), np.full((5, 2), 7.0), np.zeros((0, 2))])
def test_logits_that_say_nothing_give_a_temperature_of_one(logits: np.ndarray) -> None:
    assert temperature(logits, np.zeros(len(logits), int)) == 1.0


def test_huge_logits_overflow_nowhere(recwarn: pytest.WarningsRecorder) -> None:
    logits = np.array([[1e6, -1e6], [-3e5, 2e5], [1.0, 0.0]])
    assert LOWEST <= temperature(logits, np.array([0, 0, 1])) <= HIGHEST
    np.testing.assert_array_equal(apply_temperature(logits, LOWEST)[:2], [[1, 0], [0, 1]])
    assert not recwarn.list


def test_bad_logits_and_temperatures_are_refused() -> None:
    with pytest.raises(TrainingError, match="1 of 2 windows have class logits that are not finite"):
        temperature(np.array([[0.0, np.inf], [0.0, 1.0]]), np.array([0, 1]))
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="allowed: a finite number above 0"):
            apply_temperature(np.zeros((1, 2)), bad)
