"""Scores of events: curves, thresholds, calibration, and intervals over blocks of bars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from small_events import looked_at

from moola_mlflow.evaluation.event_scores import (
    LEFT_OUT,
    ScoredEvents,
    paired_event_difference,
    score_events,
    score_held_out,
    score_scan,
    score_windows,
)
from moola_mlflow.evaluation.rule_truth import RuleTruth
from moola_mlflow.models.events.cross_fit import EventFit, EventSource, fit_event_detector
from moola_mlflow.models.events.fitting import EventSettings
from moola_mlflow.models.events.matching import EventTable

CLASSES = ("consolidation", "retracement")


def events(num: int, seed: int = 0, num_blocks: int = 20, num_true: int = 60) -> ScoredEvents:
    rng = np.random.default_rng(seed)
    score = rng.random(num)
    right = (rng.random(num) < score).astype(np.int64)
    return ScoredEvents(
        rng.integers(0, 2, num), score, right, rng.integers(0, num_blocks, num), rng.integers(0, 2, num_true),
        rng.integers(0, num_blocks, num_true), num_blocks, CLASSES,
    )  # fmt: skip


def table(rows: list[tuple[int, int, int, float]]) -> EventTable:
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return EventTable(*(column.astype(np.int64) for column in columns[:3]), columns[3])


def perfect(num: int = 40) -> EventTable:
    return table([(i % 2, 100 * i, 100 * i + 7, 0.9) for i in range(num)])


def test_a_detector_that_finds_everything_and_nothing_else_scores_one() -> None:
    scored = score_scan(perfect(), RuleTruth(perfect(), table([]), CLASSES), 500)
    found = scored.scores(0.5)
    names = ("map", "precision", "recall", "f1", "precision_at_recall_50", "recall_at_precision_80")
    assert [found[name] for name in names] == [1] * 6
    assert found["event_ece"] == pytest.approx(0.1)
    assert scored.num_true() == {"consolidation": 20, "retracement": 20}


def test_an_unclear_event_is_neither_right_nor_wrong_but_wrong_if_strict() -> None:
    true, unclear = table([(0, 10, 17, 1)]), table([(0, 50, 57, 0.3)])
    found = table([(0, 10, 17, 0.6), (0, 51, 58, 0.9), (1, 50, 57, 0.4)])
    truth = RuleTruth(true, unclear, CLASSES)
    assert score_scan(found, truth, 100).right.tolist() == [1, LEFT_OUT, 0]
    assert score_scan(found, truth, 100).scores(0.5)["precision"] == 1
    assert score_scan(found, truth, 100, strict=True).right.tolist() == [1, 0, 0]
    assert score_scan(found, truth, 100, strict=True).scores(0.5)["precision"] == 0.5


@pytest.mark.parametrize("also", [[], [(1, 50, 57, 0.8)]])
def test_a_class_without_a_true_event_is_left_out_of_the_mean_whether_one_is_found_or_not(
    also: list[tuple[int, int, int, float]],
) -> None:
    true = table([(0, 10, 17, 1)])
    found = score_scan(table([(0, 10, 17, 0.9), *also]), RuleTruth(true, table([]), CLASSES), 100).scores(0.5)
    assert found["map"] == found["ap_consolidation"] == 1
    assert np.isnan(found["ap_retracement"])
    assert np.isnan(found["recall_retracement"])
    assert found["recall"] == 1


def test_a_detector_that_finds_nothing_has_recall_zero_and_no_precision() -> None:
    found = score_scan(table([]), RuleTruth(perfect(), table([]), CLASSES), 500).scores(0.5)
    assert (found["map"], found["recall"], found["f1"]) == (0, 0, 0)
    assert np.isnan(found["precision"])


def test_average_precision_is_the_area_under_the_interpolated_curve() -> None:
    scored = ScoredEvents(
        np.zeros(5, np.int64), np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 0, 1]), np.zeros(5, np.int64),
        np.zeros(4, np.int64), np.zeros(4, np.int64), 1, ("only",),
    )  # fmt: skip
    # Precision is 1, 1/2, 2/3, 1/2, 3/5 and recall 1/4, 1/4, 1/2, 1/2, 3/4: interpolated 1, 2/3, 3/5.
    found = scored.scores(0.65)
    assert found["map"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert found["precision_at_recall_50"] == pytest.approx(2 / 3)
    assert found["recall_at_precision_80"] == pytest.approx(1 / 4)
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((2 / 3, 2 / 4, 4 / 7))


def test_the_area_is_at_least_that_of_scikit_learn_which_does_not_interpolate() -> None:
    scored = replace(events(200, num_true=0), true_label=np.zeros(0, np.int64), true_block=np.zeros(0, np.int64))
    for k, name in enumerate(CLASSES):
        own = scored.label == k
        hits = int(scored.right[own].sum())
        whole = replace(scored, true_label=np.full(hits, k), true_block=np.zeros(hits, np.int64))
        ours = whole.scores(0.5)[f"ap_{name}"]
        theirs = average_precision_score(scored.right[own], scored.score[own])
        assert theirs <= ours <= theirs + 0.1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), num=st.integers(0, 60))
@example(seed=0, num=2)
def test_a_weight_of_two_on_a_block_counts_its_events_twice(seed: int, num: int) -> None:
    scored, rng = events(num, seed, num_blocks=6), np.random.default_rng(seed)
    weight = rng.integers(0, 3, 6)
    rows, true = (np.repeat(np.arange(len(b)), weight[b]) for b in (scored.block, scored.true_block))
    twice = ScoredEvents(
        scored.label[rows], scored.score[rows], scored.right[rows], scored.block[rows], scored.true_label[true],
        scored.true_block[true], 6, CLASSES,
    )  # fmt: skip
    for name, statistic in scored.statistics(0.5).items():
        wanted = twice.statistics(0.5)[name](np.ones((1, 6)))[0]
        if name != "map" or len(true):
            np.testing.assert_allclose(statistic(weight[None].astype(float))[0], wanted, atol=1e-9, err_msg=name)


def test_the_calibration_error_is_small_for_scores_that_hold_and_large_for_others() -> None:
    scored = events(20_000)
    assert scored.scores(0.5)["event_ece"] < 0.02
    assert replace(scored, score=scored.score**3).scores(0.5)["event_ece"] > 0.1
    low = replace(scored, score=scored.score * 0.05)
    assert np.isnan(low.scores(0.5)["event_ece"]), "no score of 0.1 or more"


def test_an_interval_covers_the_score_and_narrows_with_more_blocks() -> None:
    wide, narrow = (events(3000, 1, num, 1800).intervals(0.5, ["map", "f1"])["map"] for num in (20, 300))
    assert wide.lo < wide.mean < wide.hi
    assert narrow.hi - narrow.lo < 0.2


def test_a_paired_difference_is_zero_against_itself_and_positive_against_worse_scores() -> None:
    good = events(400, 1)
    worse = replace(good, score=np.random.default_rng(0).random(400))
    same = paired_event_difference(good, good)
    assert (same.mean, same.lo, same.hi) == (0, 0, 0)
    gain = paired_event_difference(good, worse)
    assert gain.mean > gain.lo > 0
    with pytest.raises(ValueError, match="the same true events"):
        paired_event_difference(good, events(400, 1, num_true=50))


def test_nothing_found_scores_nothing() -> None:
    scored = score_events(table([]), perfect(), CLASSES, lambda rows: rows // 500)
    found = scored.scores(0.5)
    assert (found["map"], found["recall"], found["f1"]) == (0, 0, 0)
    assert np.isnan(found["precision"])


def test_without_a_true_event_of_any_class_the_map_is_not_defined() -> None:
    scored = replace(events(20, num_true=0), right=np.zeros(20, np.int64))
    assert np.isnan(scored.scores(0.5)["map"])


def test_a_resample_without_an_event_above_the_threshold_has_no_precision_and_counts_as_missing_all() -> None:
    scored = ScoredEvents(
        np.zeros(2, np.int64), np.array([0.9, 0.3]), np.array([1, 0]), np.array([0, 1]), np.zeros(2, np.int64),
        np.array([0, 1]), 2, ("only",),
    )  # fmt: skip
    weights = np.array([[0.0, 2.0], [1.0, 1.0]])
    found = {name: statistic(weights) for name, statistic in scored.statistics(0.5).items()}
    np.testing.assert_array_equal(found["precision"], [np.nan, 1])
    np.testing.assert_array_equal(found["recall"], [0, 0.5])
    np.testing.assert_allclose(found["f1"], [0, 2 / 3])
    assert scored.intervals(0.5, ["precision"])["precision"].lo == 1


def test_events_of_several_calibrations_are_ranked_by_their_order_and_have_thresholds_of_their_own() -> None:
    scored = replace(events(40), score=np.full(40, 0.5))
    order = np.random.default_rng(3).random(40)
    ranked = replace(scored, order=order, above=order > 0.7)
    assert ranked.scores(0.9)["map"] == replace(scored, score=order).scores(0.9)["map"]
    assert ranked.scores(0.9)["precision"] == replace(scored, score=order).scores(0.7)["precision"]
    assert ranked.scores(0.9)["event_ece"] == scored.scores(0.9)["event_ece"]
    np.testing.assert_array_equal(ranked.curve()[0], replace(scored, score=order).curve()[0])


@pytest.fixture(scope="module")
def fit() -> EventFit:
    return fit_event_detector(looked_at(), EventSource(), EventSettings(folds=3), 1)


def test_out_of_fold_events_are_scored_on_all_windows_or_on_some(fit: EventFit) -> None:
    labels = looked_at()
    scored = score_held_out(fit, labels)
    assert sum(scored.num_true().values()) == labels.num_events
    assert scored.num_blocks == len(labels)
    assert 0.1 < scored.scores(fit.detector.threshold)["map"] < 1
    kept = np.arange(len(labels)) < 30
    some = score_held_out(fit, labels, kept)
    assert sum(some.num_true().values()) == (labels.window < 30).sum()
    assert some.num_blocks == 30, "groups of windows that are not scored are not resampled"


def test_out_of_fold_events_have_the_score_and_the_threshold_that_the_other_folds_choose(fit: EventFit) -> None:
    lower = replace(fit, precision=0.2)
    scored, (score, above) = score_held_out(lower, looked_at()), lower.out_of_fold()
    assert (above & (fit.held.matched >= 0)).any()
    np.testing.assert_array_equal(scored.score, score)
    np.testing.assert_array_equal(scored.order, fit.held.found.score)
    assert scored.scores(2.0)["recall"] == (above & (fit.held.matched >= 0)).sum() / len(fit.held.true)


def test_a_found_event_near_a_labelled_one_in_a_margin_is_neither_right_nor_wrong(fit: EventFit) -> None:
    wrong = int(np.flatnonzero(fit.held.matched < 0)[0])
    edge = replace(fit, held=replace(fit.held, in_margin=fit.held.found.select(np.array([wrong]))))
    assert score_held_out(edge, looked_at()).right[wrong] == LEFT_OUT
    assert score_held_out(fit, looked_at()).right[wrong] == 0


def test_labels_of_windows_are_scored_out_of_fold_with_none_among_them(fit: EventFit) -> None:
    found = score_windows(fit, looked_at())
    assert set(found) == {"window_accuracy", "window_f1_macro", "window_recall_none", "window_ece"}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["window_accuracy"] > 0.4
