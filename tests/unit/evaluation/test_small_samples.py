"""What few labels can say: widened intervals, the calibration error of a perfect detector, and what a run advises."""

from __future__ import annotations

import numpy as np
import pytest
from small_evidence import SKILL, evidence

from moola_mlflow.core import GateLimits
from moola_mlflow.evaluation import metrics
from moola_mlflow.evaluation.evidence import DETECTOR, Evidence
from moola_mlflow.evaluation.gates import detector_gates
from moola_mlflow.evaluation.metrics import bootstrap_interval, ece, ece_if_calibrated
from moola_mlflow.reports import finetune_results


@pytest.fixture(scope="module")
def weighed() -> Evidence:
    return evidence(**SKILL)


def sure_of_a_gain(groups: int, runs: int = 600) -> float:
    """How often an interval over groups of three alike windows lies above 0 where the truth is 0."""
    rng, above = np.random.default_rng(3), 0
    ids = np.repeat(np.arange(groups), 3)
    for _ in range(runs):
        values = rng.normal(size=groups)[ids]
        above += bootstrap_interval(lambda w, v=values: w @ v / w.sum(1), ids, 1000, int(rng.integers(2**31))).lo > 0
    return above / runs


@pytest.mark.parametrize("groups", [3, 5, 12, 19])
def test_intervals_over_few_groups_claim_no_more_than_they_may(groups: int) -> None:
    assert sure_of_a_gain(groups) < 0.04  # 0.025 is meant


def test_plain_percentiles_over_few_groups_would_claim_a_gain_three_times_as_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "FEW_UNITS", 0)
    assert sure_of_a_gain(5) > 0.07


def test_one_group_has_no_interval_and_so_no_gain() -> None:
    found = bootstrap_interval(lambda w: w @ np.arange(4.0) / w.sum(1), np.zeros(4, int))
    assert found.mean == 1.5
    assert np.isnan([found.lo, found.hi]).all()


def test_from_twenty_groups_on_intervals_are_plain_percentiles() -> None:
    values, drawn = np.random.default_rng(1).normal(size=20), []

    def mean(w: np.ndarray) -> np.ndarray:
        drawn.append(w @ values / w.sum(1))
        return drawn[-1]

    found = bootstrap_interval(mean, np.arange(20))
    resampled = np.concatenate([part for part in drawn if len(part) > 1])
    np.testing.assert_allclose(found[1:], np.quantile(resampled, [0.025, 0.975]))


@pytest.mark.parametrize(("num", "average", "missed"), [(174, 0.056, 0.01), (100, 0.072, 0.12), (60, 0.091, 0.36)])
def test_a_perfect_detector_misses_the_gate_the_oftener_the_fewer_windows_there_are(
    num: int, average: float, missed: float
) -> None:
    """Of probabilities that are spread evenly over 0 to 1."""
    rng, errors = np.random.default_rng(0), []
    for _ in range(600):
        p = rng.random(num)
        errors.append(ece((rng.random(num) < p).astype(int), np.stack([1 - p, p], 1)))
    assert np.mean(errors) == pytest.approx(average, abs=0.004)
    assert np.mean(np.array(errors) >= GateLimits().ece) == pytest.approx(missed, abs=0.06)


@pytest.mark.parametrize("num", [60, 174])
def test_the_error_of_a_perfect_detector_is_that_of_labels_drawn_from_its_probabilities(num: int) -> None:
    rng = np.random.default_rng(num)
    odds = rng.dirichlet([1.5, 1.0], num)
    draws = [ece((rng.random(num) > odds[:, 0]).astype(int), odds) for _ in range(400)]
    assert ece_if_calibrated(np.stack([odds, odds])) == pytest.approx(np.mean(draws), abs=0.004)
    certain = np.eye(2)[rng.integers(0, 2, num)]
    assert ece_if_calibrated(certain[None]) == 0


def test_the_perfect_error_is_logged_and_said_beside_the_detectors_own(weighed: Evidence) -> None:
    expected = weighed.metrics()["cv/ece_if_calibrated"]
    assert expected == weighed.summary()["ece_if_calibrated"] == weighed.ece_if_calibrated > 0
    lines = finetune_results.finetune_console_lines(weighed, detector_gates(weighed.gated(False), GateLimits()))
    assert any(f"a perfectly calibrated detector averages {expected:.3f}" in line for line in lines)


def test_the_baselines_rows_are_those_of_the_detector_with_a_method(weighed: Evidence) -> None:
    rows = weighed.baseline_rows()
    assert {row["method"] for row in rows} == set(SKILL) - {DETECTOR}
    assert len(rows) == len(weighed.rows()) * (len(SKILL) - 1)
    rule = [row["joint_success_at_3"] for row in rows if row["method"] == "rule"]
    assert np.mean(rule) == pytest.approx(weighed.table["rule"]["joint_success_at_3"].mean)
