"""A fit of an event detector: every net on four of five folds, and all that calibrates it out of fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_events import encoder_of_rules, looked_at
from small_models import small_encoder

from moola_mlflow.core.errors import UserError
from moola_mlflow.models.encoders.ensemble import Ensemble
from moola_mlflow.models.events.cross_fit import EventFit, EventSource, fit_event_detector
from moola_mlflow.models.events.fitting import EventSettings
from moola_mlflow.models.events.peaks import window_events
from moola_mlflow.models.events.presence import PresenceReader
from moola_mlflow.models.events.score_calibration import ScoreCalibration

QUICK = EventSettings(epochs=1, min_steps=4, folds=3, hidden=8)


@pytest.fixture(scope="module")
def fit() -> EventFit:
    return fit_event_detector(looked_at(), EventSource(), QUICK, 1)


def test_the_detector_averages_the_nets_of_all_folds(fit: EventFit) -> None:
    assert len(fit.detector.parts) == 6
    assert {part.weight for part in fit.detector.parts} == {1 / 6}
    assert fit.detector.classes == ("consolidation", "retracement")
    assert set(fit.fold.tolist()) == {0, 1, 2}


def test_a_window_is_held_out_from_the_nets_that_read_it(fit: EventFit) -> None:
    labels = looked_at()
    for fold in range(3):
        own = tuple(replace(part, weight=0.5) for part in fit.detector.parts[2 * fold : 2 * fold + 2])
        reading = replace(fit.detector, parts=own).read(labels.ohlc[fit.fold == fold])
        np.testing.assert_allclose(fit.held.probability[fit.fold == fold], reading.probability, atol=1e-5)
        np.testing.assert_allclose(fit.held.maps[fit.fold == fold], reading.maps, atol=1e-4)


def test_other_labels_of_a_fold_do_not_change_what_is_held_out_of_it(fit: EventFit) -> None:
    labels, events = looked_at(), np.flatnonzero(fit.fold[looked_at().window] == 0)
    label = labels.label.copy()
    # Two windows of the fold change classes, so the folds stay as they are.
    one, other = (events[labels.label[events] == k][0] for k in (0, 1))
    label[[one, other]] = label[[other, one]]
    again = fit_event_detector(replace(labels, label=label), EventSource(), QUICK, 1)
    same = again.fold == fit.fold
    if same.all():
        np.testing.assert_array_equal(again.held.probability[fit.fold == 0], fit.held.probability[fit.fold == 0])
        assert (again.held.probability[fit.fold != 0] != fit.held.probability[fit.fold != 0]).any()


def test_the_same_seed_gives_the_same_detector_and_another_one_does_not(fit: EventFit) -> None:
    labels = looked_at()
    same, other = (fit_event_detector(labels, EventSource(), QUICK, seed) for seed in (1, 2))
    ohlc = labels.ohlc[:5]
    wanted = fit.detector.predict(ohlc).probability
    np.testing.assert_array_equal(same.detector.predict(ohlc).probability, wanted)
    assert (other.detector.predict(ohlc).probability != wanted).any()


def test_held_out_events_are_matched_with_the_labels_of_their_window(fit: EventFit) -> None:
    held, labels = fit.held, looked_at()
    hit = np.flatnonzero(held.matched >= 0)
    assert len(held.found) == len(window_events(held.maps)[0])
    assert (held.true.start[held.matched[hit]] // 105 == held.window[hit]).all()
    assert len(held.true) == labels.num_events, "the rule names no event in a margin"


def test_labels_with_every_event_in_a_margin_are_refused() -> None:
    labels = looked_at()
    edge = replace(labels, start=np.zeros_like(labels.start), end=np.full_like(labels.end, 6))
    with pytest.raises(UserError, match=r"all \d+ labelled events have their centre in the first or last 20 bars"):
        fit_event_detector(edge, EventSource(), QUICK, 1)


def test_calibration_and_threshold_rest_on_the_windows_drawn_at_random() -> None:
    labels = looked_at()
    drawn = np.where(np.arange(len(labels)) % 2, "uncertain", "random")
    part = fit_event_detector(replace(labels, drawn=drawn), EventSource(), QUICK, 1)
    held = part.held
    np.testing.assert_array_equal(held.judged, drawn[held.window] == "random")
    wanted = ScoreCalibration.of(held.found.score[held.judged], held.matched[held.judged] >= 0)
    assert part.detector.calibration == wanted
    empty = replace(labels, drawn=np.where(labels.events_per_window() == 0, "random", "top"))
    with pytest.raises(UserError, match="look at more windows that are drawn at random"):
        fit_event_detector(empty, EventSource(), QUICK, 1)


def test_an_encoder_of_rules_is_read_by_a_prior_reader_and_the_nets_read_the_rest() -> None:
    fit = fit_event_detector(looked_at(), EventSource("both", encoder_of_rules()), QUICK, 1)
    first = fit.detector.parts[:3]
    assert [type(part.net) is PresenceReader for part in first] == [True, False, False]
    assert [part.columns for part in first] == [(0, 8), (8, 64), (8, 64)]
    assert [part.weight for part in first] == [1 / 6, 1 / 12, 1 / 12]


def test_each_of_several_encoders_has_its_own_reader() -> None:
    both = Ensemble([encoder_of_rules(4, 0), encoder_of_rules(6, 1)])
    fit = fit_event_detector(looked_at(), EventSource("encoding", both), QUICK, 1)
    assert [(part.columns, part.weight) for part in fit.detector.parts[:2]] == [((0, 8), 1 / 6), ((8, 20), 1 / 6)]
    assert all(isinstance(part.net, PresenceReader) for part in fit.detector.parts)


def test_the_nets_read_the_encoding_of_an_encoder_without_heads_of_rules() -> None:
    fit = fit_event_detector(looked_at(), EventSource("both", small_encoder()), QUICK, 1)
    assert {part.columns for part in fit.detector.parts} == {(0, 64)}


def test_every_fit_is_reported() -> None:
    seen = list[tuple[int, int]]()
    fit_event_detector(looked_at(), EventSource(), QUICK, 1, on_fit=lambda done, of: seen.append((done, of)))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_a_class_alone_and_three_classes_can_be_found() -> None:
    labels = looked_at()
    one = replace(labels, classes=("surge",), label=np.zeros_like(labels.label))
    assert fit_event_detector(one, EventSource(), QUICK, 1).detector.predict(labels.ohlc).probability.shape[1] == 2
    three = replace(labels, classes=("a", "b", "c"), label=np.arange(labels.num_events) % 3)
    assert fit_event_detector(three, EventSource(), QUICK, 1).detector.predict(labels.ohlc).probability.shape[1] == 4


def test_too_few_windows_for_the_folds_are_refused() -> None:
    with pytest.raises(UserError, match="2 windows looked at form 2 groups"):
        fit_event_detector(looked_at().select(np.arange(2)), EventSource(), QUICK, 1)


def test_windows_with_two_events_make_the_joint_net_count() -> None:
    labels = looked_at()
    row = int(labels.window[0])
    two = replace(
        labels, window=np.insert(labels.window, 1, row), label=np.insert(labels.label, 1, 0),
        start=np.insert(labels.start, 1, 90), end=np.insert(labels.end, 1, 96),
    )  # fmt: skip
    fit = fit_event_detector(two, EventSource(), QUICK, 1)
    assert {part.net.shape.max_events for part in fit.detector.parts} == {2}
    assert (fit.held.maps[:, 0] <= 1 + 1e-6).all()
