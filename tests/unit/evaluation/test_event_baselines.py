"""What an event detector is compared with: an encoder from scratch, boosted steps, and the rule of the labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_events import encoder_of_rules, labels_of, looked_at

from moola_mlflow.evaluation.event_baselines import (
    BoostedSteps,
    LabellingRule,
    ScratchMethod,
    boosted_mass,
    known_rule,
    reading_of_mass,
    steps_of_classes,
)
from moola_mlflow.evaluation.event_methods import EventMethod, without_priors
from moola_mlflow.evaluation.event_scores import score_held_out
from moola_mlflow.labels import EventLabels
from moola_mlflow.models import EventSettings, EventSource, HeldOutFit, ScratchSettings

QUICK = EventSettings(epochs=1, min_steps=4, folds=3, hidden=8)


def weak(num: int = 60) -> EventLabels:
    return replace(looked_at(num), rule="surge-1")


def scratch() -> ScratchMethod:
    return ScratchMethod("scratch", without_priors(encoder_of_rules()), "both", None, QUICK, ScratchSettings())


def boosted() -> BoostedSteps:
    return BoostedSteps("boosted_steps", QUICK)


@pytest.mark.parametrize("method", [scratch(), boosted(), LabellingRule("rule", "surge-1", QUICK)])
def test_every_baseline_has_the_folds_of_the_detector_and_reads_every_window(
    method: ScratchMethod | BoostedSteps | LabellingRule,
) -> None:
    labels, nets = weak(), list[tuple[int, int]]()
    detector = EventMethod("detector", EventSource(), QUICK).run(labels, 3)
    fit = method.run(labels, 3, lambda done, of: nets.append((done, of)))
    np.testing.assert_array_equal(fit.fold, detector.fold)
    assert fit.held.maps.shape == detector.held.maps.shape
    np.testing.assert_allclose(fit.held.probability.sum(1), 1, atol=1e-6)
    assert nets == [(1, 3), (2, 3), (3, 3)]
    again = method.run(labels, 3)
    np.testing.assert_array_equal(again.held.maps, fit.held.maps)


@pytest.mark.parametrize("method", [scratch(), boosted()])
def test_labels_of_a_fold_do_not_change_what_is_said_of_it(method: ScratchMethod | BoostedSteps) -> None:
    labels = weak()
    fit = method.run(labels, 3)
    moved = np.where(fit.fold[labels.window] == 0, 10, 0)
    changed = method.run(replace(labels, start=labels.start - moved, end=labels.end - moved), 3)
    np.testing.assert_array_equal(changed.fold, fit.fold)
    own = fit.fold == 0
    np.testing.assert_array_equal(changed.held.maps[own], fit.held.maps[own])
    assert (changed.held.maps[~own] != fit.held.maps[~own]).any()


def test_the_encoder_from_scratch_has_other_weights_in_each_fold_and_the_given_one_stays() -> None:
    method = scratch()
    before = {name: tensor.clone() for name, tensor in method.encoder.state_dict().items()}
    method.run(weak(30), 1)
    assert all((before[name] == tensor).all() for name, tensor in method.encoder.state_dict().items())


def score(fit: HeldOutFit, labels: EventLabels) -> dict[str, float]:
    return score_held_out(fit, labels).scores(fit.detector.threshold)


def test_the_rule_finds_exactly_what_it_labelled() -> None:
    labels = weak()
    fit = LabellingRule("rule", "surge-1", QUICK).run(labels, 1)
    assert score(fit, labels)["map"] == 1
    assert len(fit.held.found) == labels.num_events
    np.testing.assert_array_equal(fit.held.found.start, labels.window * 105 + labels.start)
    np.testing.assert_array_equal(fit.held.found.end, labels.window * 105 + labels.end)


def test_a_class_that_the_labels_do_not_hold_is_not_found() -> None:
    labels = weak()
    kept = labels.select(np.setdiff1d(np.arange(len(labels)), labels.window[labels.label == 1]))
    kept = replace(kept, classes=labels.classes[:1])
    fit = LabellingRule("rule", "surge-1", QUICK).run(kept, 1)
    assert score(fit, kept)["map"] == 1


def test_a_rule_is_known_only_if_the_labels_are_weak_and_name_it() -> None:
    labels = weak()
    assert known_rule(labels) == "surge-1"
    assert known_rule(replace(labels, weak=False)) is None
    assert known_rule(replace(labels, rule="")) is None
    assert known_rule(replace(labels, rule="surge-9 of another version")) is None
    assert known_rule(replace(labels, classes=("head", "shoulders"))) is None


def test_boosting_learns_where_events_are() -> None:
    labels = weak(150)
    found = score(BoostedSteps("boosted_steps", replace(QUICK, folds=2)).run(labels, 1), labels)
    shuffled = replace(labels, label=labels.label, start=labels.start[::-1].copy(), end=labels.end[::-1].copy())
    chance = score(BoostedSteps("boosted_steps", replace(QUICK, folds=2)).run(shuffled, 1), shuffled)
    assert found["map"] > 2 * chance["map"]


def test_steps_near_the_centre_of_an_event_have_its_class() -> None:
    wanted = steps_of_classes(labels_of([[(1, 40, 47)], []]))
    assert np.flatnonzero(wanted[0] == 1).tolist() == [41, 42, 43, 44, 45, 46]
    assert (wanted[1] == 2).all()


def test_boosting_without_a_class_in_its_windows_gives_the_class_no_probability() -> None:
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(8, 105, 3)).astype(np.float32), np.full((8, 105), 2)
    label[:, 50:57] = 0
    mass = boosted_mass(x, label, x[:2], 2, 1)
    assert mass.shape == (2, 2, 105)
    assert (mass[:, 1] == 0).all()
    assert (mass[:, 0] > 0).any()


def test_spans_of_masses_lie_around_the_highest_step() -> None:
    mass = np.zeros((1, 2, 105))
    mass[0, 1, 60] = 0.5
    reading = reading_of_mass(mass, 8.0)
    assert (reading.start[0, 1], reading.end[0, 1]) == (56, 64)
    np.testing.assert_allclose(reading.probability, [[0, 0.5, 0.5]])
