"""What folds hold out: judged events, scores with the choices of other folds, and hits instead of maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_events import labels_of, looked_at

from moola_mlflow.labels import EventLabels
from moola_mlflow.models.events.cross_fit import EventFit, EventSource, fit_event_detector
from moola_mlflow.models.events.event_detector import Reading
from moola_mlflow.models.events.fitting import EventSettings
from moola_mlflow.models.events.held_out import HeldOutFit, cross_read, held_out, one_hit_a_window, true_events

QUICK = EventSettings(epochs=1, min_steps=4, folds=3, hidden=8)


@pytest.fixture(scope="module")
def fit() -> EventFit:
    return fit_event_detector(looked_at(), EventSource(), QUICK, 1)


def certain(labels: EventLabels, index: np.ndarray) -> Reading:
    """Read windows as somebody who knows their first events."""
    num_classes, num_steps = len(labels.classes), labels.ohlc.shape[1]
    maps = np.zeros((len(index), 3, num_classes, num_steps), np.float32)
    probability = np.zeros((len(index), num_classes + 1))
    start, end = np.full((2, len(index), num_classes), 40)
    for row, window in enumerate(index.tolist()):
        own = np.flatnonzero(labels.window == window)[:1]
        probability[row, labels.label[own] if len(own) else num_classes] = 1
        for k in own.tolist():
            label, first, last = labels.label[k], labels.start[k], labels.end[k]
            start[row, label], end[row, label] = first, last
            centre = (first + last) // 2
            maps[row, :, label, centre] = [1, first - centre, last - centre]
    return Reading(probability, maps, start, end)


def test_events_in_a_margin_are_not_missed_events() -> None:
    labels = labels_of([[(0, 0, 6)], [(1, 40, 47), (0, 90, 97)], []])
    true = true_events(labels)
    assert (true.label.tolist(), true.start.tolist(), true.end.tolist()) == ([1], [105 + 40], [105 + 47])


def test_found_events_near_a_labelled_one_in_a_margin_are_neither_right_nor_wrong() -> None:
    labels = labels_of([[(0, 16, 23)], [(1, 40, 47)], []])
    mass = np.zeros((3, 2, 105))
    mass[:, 0, 21] = 0.9  # near the event in the margin of the first window alone
    mass[1, 1, 43] = 0.8
    maps = np.stack([mass, np.zeros_like(mass), np.zeros_like(mass)], 1)
    nowhere = np.zeros((3, 2), np.int64)
    held = held_out(labels, [(np.arange(3), Reading(np.full((3, 3), 1 / 3), maps, nowhere, nowhere))])
    assert (held.window.tolist(), held.matched.tolist()) == ([0, 1, 1, 2], [-1, -1, 0, -1])
    assert held.judged.tolist() == [False, True, True, True]
    assert (held.in_margin.start.tolist(), len(held.true)) == ([16], 1)


def test_a_folds_events_are_scored_with_what_the_other_folds_choose(fit: EventFit) -> None:
    score, above = fit.out_of_fold()
    held, own = fit.held, fit.fold[fit.held.window] == 0
    # Other labels of the fold change nothing for it, and something for the others.
    other = replace(fit, held=replace(held, matched=np.where(own, -1, held.matched)))
    np.testing.assert_array_equal(other.out_of_fold()[0][own], score[own])
    np.testing.assert_array_equal(other.out_of_fold()[1][own], above[own])
    assert (other.out_of_fold()[0][~own] != score[~own]).any()
    mass = held.found.score[own]
    assert (np.argsort(score[own], kind="stable") == np.argsort(mass, kind="stable")).all(), "the order stays"


def test_a_baseline_reads_each_window_with_what_was_fitted_without_it(fit: EventFit) -> None:
    labels, seen = looked_at(), list[tuple[np.ndarray, np.ndarray, int]]()
    counted = list[tuple[int, int]]()

    def read(train: np.ndarray, test: np.ndarray, seed: int) -> Reading:
        seen.append((train, test, seed))
        return certain(labels, test)

    found = cross_read(labels, QUICK, 1, read, lambda done, of: counted.append((done, of)))
    np.testing.assert_array_equal(found.fold, fit.fold)
    for train, test, _ in seen:
        assert sorted([*train, *test]) == list(range(len(labels)))
    assert len({seed for _, _, seed in seen}) == 3
    assert counted == [(1, 3), (2, 3), (3, 3)]
    assert (found.held.matched >= 0).all()
    assert len(found.held.found) == labels.num_events
    assert found.detector.classes == labels.classes


def known(labels: EventLabels) -> HeldOutFit:
    return cross_read(labels, QUICK, 1, lambda train, test, seed: certain(labels, test))


def test_hits_are_the_most_probable_class_at_its_span_in_each_window() -> None:
    labels = looked_at()
    hits = one_hit_a_window(known(labels), labels)
    assert len(hits.held.found) == len(labels), "a span detector finds one in every window"
    with_event = labels.events_per_window() > 0
    np.testing.assert_array_equal(hits.held.matched >= 0, with_event[hits.held.window])
    np.testing.assert_array_equal(hits.held.found.score, with_event[hits.held.window].astype(float))
    score, _ = hits.out_of_fold()
    assert score[with_event].min() > score[~with_event].max()


def test_hits_in_a_margin_are_dropped() -> None:
    labels = looked_at()
    perfect = known(labels)
    start, end = perfect.held.start.copy(), perfect.held.end.copy()
    start[:10], end[:10] = 5, 12
    hits = one_hit_a_window(replace(perfect, held=replace(perfect.held, start=start, end=end)), labels)
    assert hits.held.window.tolist() == list(range(10, len(labels)))


def test_hits_have_no_scores_if_labels_calibrated_nothing() -> None:
    labels = looked_at()
    with pytest.raises(ValueError, match="no label calibrated"):
        one_hit_a_window(replace(known(labels), precision=None), labels)
