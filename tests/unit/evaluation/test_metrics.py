"""Scores against scikit-learn and against their definitions; the calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.core import GateLimits, TrainingError
from moola_mlflow.evaluation.metrics import ece, ece_if_calibrated, scores, statistics

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
