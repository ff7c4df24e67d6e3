"""Intervals against simulated truth: they count groups of windows, and few groups widen them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moola_mlflow.evaluation import bootstrap
from moola_mlflow.evaluation.bootstrap import bootstrap_interval, intervals, paired_difference
from moola_mlflow.evaluation.metrics import Predictions, per_window, scores

CLASSES = ("consolidation", "retracement")


def mean_of(values: np.ndarray) -> Any:
    return lambda w: w @ values / w.sum(1)


def test_about_95_of_100_intervals_of_a_mean_cover_the_truth() -> None:
    rng, covered = np.random.default_rng(0), 0
    for trial in range(300):
        _, lo, hi = bootstrap_interval(mean_of(rng.normal(0.4, 1, 100)), np.arange(100), 600, trial)
        covered += lo <= 0.4 <= hi
    assert 0.90 <= covered / 300 <= 0.98


def test_intervals_over_groups_cover_the_truth_where_those_over_windows_do_not() -> None:
    rng, covered = np.random.default_rng(0), np.zeros(2)
    groups = np.repeat(np.arange(40), 5)
    for trial in range(200):
        values = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=200)
        for i, units in enumerate((groups, np.arange(200))):
            _, lo, hi = bootstrap_interval(mean_of(values), units, 400, trial)
            covered[i] += lo <= 0 <= hi
    assert covered[0] / 200 > 0.88
    assert covered[1] / 200 < 0.75


def test_an_interval_is_as_wide_as_the_normal_one_and_follows_its_level() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap_interval(mean_of(values), np.arange(400), 4000)
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose([found.lo, found.hi], [found.mean - half, found.mean + half], atol=0.15 * half)
    narrow = bootstrap_interval(mean_of(values), np.arange(400), 4000, level=0.5)
    assert (narrow.hi - narrow.lo) / (found.hi - found.lo) == pytest.approx(0.674 / 1.96, abs=0.05)


def test_the_interval_does_not_depend_on_how_many_resamples_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=50)
    whole = bootstrap_interval(mean_of(values), np.arange(50), 300, 7)
    monkeypatch.setattr("moola_mlflow.evaluation.bootstrap.CHUNK_CELLS", 50 * 7)
    assert bootstrap_interval(mean_of(values), np.arange(50), 300, 7) == whole


def predictions(seed: int, n: int = 60, repeats: int = 3, skill: float = 0.4) -> Predictions:
    """Predictions of a detector of some skill on windows that are the same for every seed."""
    rng, truth = np.random.default_rng(seed), np.random.default_rng(99)
    label = truth.integers(0, 2, n)
    start = truth.integers(20, 70, n)
    span = np.stack([start, start + 8], 1)
    probability = rng.dirichlet([1, 1], (repeats, n)) + skill * np.eye(2)[label]
    predicted = np.sort(span + rng.integers(-6, 7, (repeats, n, 2)), axis=-1)
    return Predictions(label, span, probability / probability.sum(-1, keepdims=True), predicted, CLASSES)


def rows(of: Predictions, index: np.ndarray) -> Predictions:
    return Predictions(of.label[index], of.span[index], of.probability[:, index], of.predicted[:, index], of.classes)


METRICS = ("joint_success_at_3", "f1_macro")


@pytest.mark.parametrize("metric", METRICS)
def test_copies_of_windows_within_a_group_do_not_shrink_the_interval(metric: str) -> None:
    a, b = predictions(1, skill=0.8), predictions(2)
    copies = np.repeat(np.arange(60), 10)
    once = paired_difference(a, b, metric)
    grouped = paired_difference(rows(a, copies), rows(b, copies), metric, groups=copies)
    np.testing.assert_allclose(grouped, once, atol=1e-12)
    naive = paired_difference(rows(a, copies), rows(b, copies), metric)
    assert naive.hi - naive.lo < 0.5 * (once.hi - once.lo)


@pytest.mark.parametrize("metric", METRICS)
def test_repeats_of_the_same_predictions_do_not_shrink_the_interval(metric: str) -> None:
    a, b = predictions(1, repeats=1), predictions(2, repeats=1)
    more = [
        Predictions(p.label, p.span, np.tile(p.probability, (8, 1, 1)), np.tile(p.predicted, (8, 1, 1)), p.classes)
        for p in (a, b)
    ]
    np.testing.assert_allclose(paired_difference(*more, metric), paired_difference(a, b, metric), atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_paired_difference_is_that_of_the_mean_scores_and_turns_its_sign(metric: str) -> None:
    a, b = predictions(1, repeats=3, skill=0.9), predictions(2, repeats=2)
    means = [
        np.mean([scores(x.label, x.probability[k], x.predicted[k], x.span, x.classes)[metric] for k in range(num)])
        for x, num in ((a, 3), (b, 2))
    ]
    there, back = paired_difference(a, b, metric), paired_difference(b, a, metric)
    assert there.mean == pytest.approx(means[0] - means[1])
    assert there.lo < there.mean < there.hi
    np.testing.assert_allclose(there, [-back.mean, -back.hi, -back.lo], atol=1e-12)
    assert paired_difference(a, a, metric) == (0, 0, 0)


def test_the_difference_of_a_mean_is_that_of_the_windows_means_over_repeats() -> None:
    a, b = predictions(1), predictions(2)
    each = []
    for x in (a, b):
        joint = [per_window(x.label, x.probability[k], x.predicted[k], x.span)["joint_success_at_3"] for k in range(3)]
        each.append(np.mean(joint, axis=0))
    groups = np.arange(60) // 3
    expected = bootstrap_interval(mean_of(each[0] - each[1]), groups, seed=5)
    np.testing.assert_allclose(paired_difference(a, b, groups=groups, seed=5), expected, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_about_95_of_100_paired_intervals_of_equal_detectors_cover_no_gain(metric: str) -> None:
    covered = 0
    for trial in range(200):
        _, lo, hi = paired_difference(
            predictions(2 * trial, repeats=2), predictions(2 * trial + 1, repeats=2), metric, resamples=400, seed=trial
        )
        covered += lo <= 0 <= hi
    assert 0.88 <= covered / 200 <= 0.99


def test_intervals_of_every_score_stand_around_the_mean_over_repeats() -> None:
    of = predictions(1)
    found = intervals(of, groups=np.arange(60) // 2, resamples=300)
    assert set(found) == set(scores(of.label, of.probability[0], of.predicted[0], of.span, of.classes))
    for name, (mean, lo, hi) in found.items():
        assert lo < hi, name
        if name != "ece":
            assert lo < mean < hi, name


def test_resamples_that_lack_a_class_are_left_out_of_an_interval() -> None:
    of = predictions(1, n=6)
    assert np.isfinite(intervals(of, resamples=500)["auroc"]).all()


def test_predictions_of_other_windows_and_unknown_metrics_are_refused() -> None:
    a = predictions(1)
    with pytest.raises(ValueError, match="same windows"):
        paired_difference(a, rows(a, np.arange(60)[::-1]))
    with pytest.raises(ValueError, match="metric='joint'; allowed: "):
        paired_difference(a, a, "joint")


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
    monkeypatch.setattr(bootstrap, "FEW_GROUPS", 0)
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
