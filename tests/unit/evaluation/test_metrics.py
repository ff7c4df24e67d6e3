"""Scores against scikit-learn, intervals against simulated truth, and temperatures that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_mlflow.core.errors import TrainingError
from moola_mlflow.evaluation.metrics import (
    Predictions,
    bootstrap_interval,
    ece,
    intervals,
    paired_difference,
    per_window,
    scores,
    statistics,
)
from moola_mlflow.models.calibration import HIGHEST, LOWEST, apply_temperature, temperature

CLASSES = ("consolidation", "retracement", "breakout")


def drawn(seed: int, n: int = 60, num_classes: int = 2, ties: bool = False) -> tuple[np.ndarray, ...]:
    """A label, a probability with some skill, a predicted and a true span for each of n windows."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % num_classes)
    probability = rng.dirichlet(np.ones(num_classes), n) + 0.4 * np.eye(num_classes)[label]
    if ties:  # powers of two, so that equal rows stay equal
        probability = np.ceil(probability * 4)
    probability /= probability.sum(1, keepdims=True)
    start = rng.integers(20, 70, n)
    span = np.stack([start, start + rng.integers(4, 12, n)], 1)
    predicted = np.sort(span + rng.integers(-6, 7, (n, 2)), axis=1)
    return label, probability, predicted, span


@given(seed=st.integers(0, 10_000), num_classes=st.integers(2, 3), ties=st.booleans(), weighted=st.booleans())
def test_every_score_of_classes_equals_that_of_scikit_learn(
    seed: int, num_classes: int, ties: bool, weighted: bool
) -> None:
    label, probability, predicted, span = drawn(seed, 40, num_classes, ties)
    rng = np.random.default_rng(seed)
    weight = rng.multinomial(40, np.full(40, 1 / 40)).astype(float) if weighted else np.ones(40)
    weight[[np.flatnonzero(label == c)[0] for c in range(num_classes)]] += 1
    found = {
        name: float(one(weight[None])[0])
        for name, one in statistics(label, probability, predicted, span, CLASSES[:num_classes]).items()
    }
    guess, codes = probability.argmax(1), list(range(num_classes))
    kw: Any = {"sample_weight": weight}
    expected = {
        "accuracy": sk.accuracy_score(label, guess, **kw),
        "f1_macro": sk.f1_score(label, guess, average="macro", labels=codes, zero_division=0, **kw),
        "brier": sk.brier_score_loss(label, probability, labels=codes, **kw),
        "auprc": sk.average_precision_score(np.eye(num_classes)[label], probability, **kw),
        "auroc": sk.roc_auc_score(label, probability[:, 1], **kw)
        if num_classes == 2
        else sk.roc_auc_score(label, probability, multi_class="ovr", **kw),
    }
    parts = sk.precision_recall_fscore_support(label, guess, labels=codes, zero_division=0, **kw)
    for kind, values in zip(("precision", "recall", "f1"), parts, strict=False):
        expected |= {f"{kind}_{CLASSES[c]}": values[c] for c in codes}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@given(seed=st.integers(0, 10_000))
def test_a_weight_counts_as_so_many_copies_of_the_window_in_every_score(seed: int) -> None:
    label, probability, predicted, span = drawn(seed, 30, 3, ties=seed % 2 == 0)
    count = np.random.default_rng(seed).multinomial(30, np.full(30, 1 / 30))
    rows = np.repeat(np.arange(30), count)
    copied = scores(label[rows], probability[rows], predicted[rows], span[rows], CLASSES)
    for name, one in statistics(label, probability, predicted, span, CLASSES).items():
        np.testing.assert_allclose(one(count[None].astype(float))[0], copied[name], atol=1e-12, err_msg=name)


def test_pointer_scores_follow_their_definition() -> None:
    span = np.array([[40, 50]] * 5)
    predicted = np.array([[40, 50], [43, 53], [44, 53], [35, 45], [45, 56]])  # centres off by 0, 3, 3.5, 5, 5.5
    probability = np.array([[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 2)
    found = scores(np.array([0, 0, 0, 0, 1]), probability, predicted, span, ["a", "b"])
    assert found["hit_at_3"] == pytest.approx(2 / 5)
    assert found["hit_at_5"] == pytest.approx(4 / 5)
    assert found["joint_success_at_3"] == pytest.approx(2 / 5)
    assert found["joint_success_at_5"] == pytest.approx(3 / 5)  # the fourth has the wrong class
    assert found["centre_mae"] == pytest.approx((0 + 3 + 3.5 + 5 + 5.5) / 5)
    assert found["length_mae"] == pytest.approx((0 + 0 + 1 + 0 + 1) / 5)


def test_the_metric_names_are_those_that_users_know() -> None:
    names = [
        "f1_macro",
        "accuracy",
        "auroc",
        "auprc",
        "hit_at_3",
        "hit_at_5",
        "centre_mae",
        "length_mae",
        "brier",
        "ece",
    ]
    names += [f"joint_success_at_{k}" for k in (3, 5)]
    names += [f"{kind}_{c}" for kind in ("precision", "recall", "f1") for c in CLASSES[:2]]
    assert set(scores(*drawn(0), CLASSES[:2])) == set(names)


def test_a_class_that_is_missing_leaves_the_averages_and_has_no_recall() -> None:
    label, probability, predicted, span = drawn(3, 40, 3)
    some = (label != 2) & (probability.argmax(1) != 2)
    found = scores(label[some], probability[some], predicted[some], span[some], CLASSES)
    assert found["f1_macro"] == pytest.approx((found["f1_consolidation"] + found["f1_retracement"]) / 2)
    assert np.isnan(found["recall_breakout"])
    assert np.isnan(found["f1_breakout"])
    assert found["precision_breakout"] == 0
    assert np.isfinite([found["auroc"], found["auprc"]]).all()


def test_one_class_alone_has_no_auroc_and_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    label, probability, predicted, span = drawn(0)
    one = label == 1
    found = scores(label[one], probability[one], predicted[one], span[one], CLASSES[:2])
    assert np.isnan(found["auroc"])
    assert np.isnan(found["auprc"])
    assert np.isfinite(found["accuracy"])
    assert not recwarn.list


def test_predictions_that_are_not_finite_are_refused() -> None:
    label, probability, predicted, span = drawn(0)
    probability[[7, 9]] = np.nan
    with pytest.raises(TrainingError, match=r"2 of 60 windows .* the first at position 7; lower optimizer\.lr"):
        scores(label, probability, predicted, span, CLASSES[:2])


# Calibration error


def calibrated(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the very probabilities that are predicted."""
    p = rng.random(n)
    return (rng.random(n) < p).astype(int), np.stack([1 - p, p], 1)


def test_a_perfectly_calibrated_detector_averages_0_06_with_five_bins_and_0_08_with_ten() -> None:
    rng = np.random.default_rng(0)
    pairs = [calibrated(rng, 174) for _ in range(400)]
    assert np.mean([ece(label, p) for label, p in pairs]) == pytest.approx(0.057, abs=0.008)
    assert np.mean([ece(label, p, bins=10) for label, p in pairs]) == pytest.approx(0.082, abs=0.008)


def test_the_calibration_error_of_many_windows_is_what_was_built_in() -> None:
    label, p = calibrated(np.random.default_rng(0), 200_000)
    assert ece(label, p) < 0.01
    assert ece(label, np.where(p > 0.5, 0.95, 0.05)) == pytest.approx(0.20, abs=0.01)


@given(seed=st.integers(0, 1000), bins=st.integers(1, 12))
def test_bins_hold_equally_many_windows_and_the_order_of_windows_does_not_matter(seed: int, bins: int) -> None:
    label, probability, _, _ = drawn(seed, 53)
    confidence, right = probability.max(1), probability.argmax(1) == label
    parts = np.split(np.argsort(confidence), -(-np.arange(1, bins) * 53 // bins))
    assert np.ptp([len(part) for part in parts]) <= 1
    expected = sum(abs(confidence[part].sum() - right[part].sum()) for part in parts) / 53
    assert ece(label, probability, bins) == pytest.approx(expected)
    turn = np.random.default_rng(seed).permutation(53)
    assert ece(label[turn], probability[turn], bins) == pytest.approx(expected)


def test_windows_of_one_confidence_share_a_bin() -> None:
    label = np.array([0] * 60 + [1] * 40)
    assert ece(label, np.tile([0.6, 0.4], (100, 1))) == pytest.approx(0)


# Intervals


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
    monkeypatch.setattr("moola_mlflow.evaluation.metrics.CHUNK_CELLS", 50 * 7)
    assert bootstrap_interval(mean_of(values), np.arange(50), 300, 7) == whole


def predictions(seed: int, n: int = 60, repeats: int = 3, skill: float = 0.4) -> Predictions:
    """Predictions of a detector of some skill on windows that are the same for every seed."""
    rng, truth = np.random.default_rng(seed), np.random.default_rng(99)
    label = truth.integers(0, 2, n)
    start = truth.integers(20, 70, n)
    span = np.stack([start, start + 8], 1)
    probability = rng.dirichlet([1, 1], (repeats, n)) + skill * np.eye(2)[label]
    predicted = np.sort(span + rng.integers(-6, 7, (repeats, n, 2)), axis=-1)
    return Predictions(label, span, probability / probability.sum(-1, keepdims=True), predicted, CLASSES[:2])


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


# Temperature


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
