"""Baselines of an event detector that are no event detectors. All get its folds, rejects and mirrored windows.

An encoder trained from scratch, gradient boosting on single steps, and the rule that made weak labels.

Shape legend: N windows, M windows of a fold, T steps, P inputs a step, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from moola_mlflow.core import UserError, mixed_seed
from moola_mlflow.evaluation.crossval import fresh_copy
from moola_mlflow.features import FeatureChoice
from moola_mlflow.labels import EventLabels, RuleWindows, find_rule
from moola_mlflow.models import (
    HIT_BARS,
    Encoder,
    EventInputs,
    EventSettings,
    EventTargets,
    HeldOutFit,
    Inputs,
    Reading,
    ScratchSettings,
    cross_read,
    detector_inputs,
    encoder_features,
    fit_scratch,
    further_inputs,
    read_inputs,
)
from moola_mlflow.windows import mirrored

OnNet = Callable[[int, int], None] | None
# Chosen on two sets of 350 windows: small trees with large leaves, because the steps of one event are nearly the same.
BOOSTING: dict[str, Any] = {
    "max_iter": 60, "learning_rate": 0.1, "max_leaf_nodes": 8, "max_features": 0.3, "early_stopping": False,
}  # fmt: skip
LEAF_SHARE, LEAST_LEAF = 60, 20
"""A leaf holds one in this many of the steps, or ``LEAST_LEAF``."""
EMPTY_SHARE = 4
"""Of the steps without an event nearby, one in this many is fitted."""


@dataclass(frozen=True)
class ScratchMethod:
    """The nets of the detector on an encoder of the same architecture, trained with them from random weights."""

    name: str
    encoder: Encoder
    inputs: Inputs
    features: FeatureChoice | None
    settings: EventSettings
    how: ScratchSettings

    def run(self, labels: EventLabels, seed: int, on_net: OnNet = None) -> HeldOutFit:
        """Fit on the folds of one seed. The encoder of each fold starts from other weights."""
        targets = EventTargets.of(labels)
        inputs = EventInputs(*(self._read(ohlc) for ohlc in (labels.ohlc, mirrored(labels.ohlc))))

        def read(train: np.ndarray, test: np.ndarray, fold_seed: int) -> Reading:
            encoder = fresh_copy(self.encoder, fold_seed)
            part = fit_scratch(encoder, inputs, targets, train, self.settings, fold_seed, self.how)
            return read_inputs([part], inputs.values[torch.as_tensor(test)])

        return cross_read(labels, self.settings, seed, read, on_net)

    def _read(self, ohlc_NT4: np.ndarray) -> torch.Tensor:
        parts = [encoder_features(self.encoder, ohlc_NT4), further_inputs(self.inputs, ohlc_NT4, self.features)]
        return torch.cat(parts, -1)


@dataclass(frozen=True)
class BoostedSteps:
    """Gradient boosting on the path features of single steps: a class within 3 bars of an event's centre, or none."""

    name: str
    settings: EventSettings

    def run(self, labels: EventLabels, seed: int, on_net: OnNet = None) -> HeldOutFit:
        """Fit on the folds of one seed. Spans have the mean length of the events."""
        ohlc_NT4 = labels.ohlc
        sides = [detector_inputs(None, "price_path", ohlc).numpy() for ohlc in (ohlc_NT4, mirrored(ohlc_NT4))]
        wanted_NT = steps_of_classes(labels)
        bars = float(np.mean(labels.end - labels.start))

        def read(train: np.ndarray, test: np.ndarray, fold_seed: int) -> Reading:
            own = sides if self.settings.mirror else sides[:1]
            x_NTP, label_NT = np.concatenate([x[train] for x in own]), np.concatenate([wanted_NT[train]] * len(own))
            mass_MCT = boosted_mass(x_NTP, label_NT, sides[0][test], len(labels.classes), fold_seed)
            return reading_of_mass(mass_MCT, bars)

        return cross_read(labels, self.settings, seed, read, on_net)


@dataclass(frozen=True)
class LabellingRule:
    """The rule that made weak labels, read one window at a time. On the windows that it labelled it is always right."""

    name: str
    rule: str
    settings: EventSettings

    def run(self, labels: EventLabels, seed: int, on_net: OnNet = None) -> HeldOutFit:
        """Apply the rule to every window; nothing is fitted."""
        reading = rule_reading(labels, self.rule)

        def read(train: np.ndarray, test: np.ndarray, fold_seed: int) -> Reading:
            return Reading(reading.probability[test], reading.maps[test], reading.start[test], reading.end[test])

        return cross_read(labels, self.settings, seed, read, on_net)


def known_rule(labels: EventLabels) -> str | None:
    """Return the name of the rule that made weak labels, None if it is not known or names none of their classes."""
    if not labels.weak:
        return None
    try:
        rule = find_rule(labels.rule)
    except UserError:
        return None
    return rule.name if set(rule.classes) & set(labels.classes) else None


def steps_of_classes(labels: EventLabels) -> np.ndarray:
    """Return the class of the event that is centred within 3 bars of each step; the number of classes if there is none.

    Shapes: int64 [N, T].
    """
    step_T = np.arange(labels.ohlc.shape[1])
    wanted_NT = np.full(labels.ohlc.shape[:2], len(labels.classes))
    for window, label, start, end in zip(labels.window, labels.label, labels.start, labels.end, strict=True):
        wanted_NT[window, np.abs(2 * step_T - start - end) <= 2 * HIT_BARS] = label
    return wanted_NT


def boosted_mass(
    train_NTP: np.ndarray, label_NT: np.ndarray, test_MTP: np.ndarray, num_classes: int, seed: int
) -> np.ndarray:
    """Return the probability of each class at the steps of test windows, by boosting on the steps of training windows.

    The last label is none. Most steps have it, so a share of them is drawn, and the odds of none are raised again.

    Shapes: float32 [N, T, P], int64 [N, T], float32 [M, T, P] -> float64 [M, C, T].
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    label, rng = label_NT.ravel(), np.random.default_rng(mixed_seed(seed, 1))
    empty = label == num_classes
    kept = np.flatnonzero(~empty | (rng.random(len(label)) < 1 / EMPTY_SHARE))
    x, wanted = train_NTP.reshape(len(label), -1)[kept], label[kept]
    odds = np.zeros((test_MTP.shape[0] * test_MTP.shape[1], num_classes + 1))
    leaf = max(LEAST_LEAF, len(kept) // LEAF_SHARE)
    with threadpool_limits(1, user_api="openmp"):  # processes share the cores already
        model = HistGradientBoostingClassifier(random_state=seed % 2**32, min_samples_leaf=leaf, **BOOSTING)
        model.fit(x, wanted)  # with weights, binning takes 40 % of a fit (scikit-learn 1.9)
        odds[:, model.classes_] = model.predict_proba(test_MTP.reshape(len(odds), -1))
    odds[:, -1] *= EMPTY_SHARE
    mass = odds / odds.sum(1, keepdims=True)
    return mass[:, :-1].reshape(*test_MTP.shape[:2], num_classes).swapaxes(1, 2)


def reading_of_mass(mass_MCT: np.ndarray, bars: float) -> Reading:
    """Return the predictions of windows from the probability of an event near each step, with spans of one length.

    The probability of a class is its largest one. That of none is what is left if classes are independent, and all are
    divided by their sum.

    Shapes: [M, C, T].
    """
    top_MC, at_MC = mass_MCT.max(2), mass_MCT.argmax(2)
    each = np.concatenate([top_MC, np.prod(1 - top_MC, axis=1, keepdims=True)], 1)
    probability = each / np.maximum(each.sum(1, keepdims=True), 1e-12)
    maps = np.stack([mass_MCT, -bars / 2 * mass_MCT, bars / 2 * mass_MCT], 1).astype(np.float32)
    start, end = (np.rint(at_MC + side * bars / 2).clip(0, mass_MCT.shape[2] - 1) for side in (-1, 1))
    return Reading(probability, maps, start.astype(np.int64), end.astype(np.int64))


def rule_reading(labels: EventLabels, name: str) -> Reading:
    """Return what a rule says of windows: mass 1 within 3 bars of the centre of the span that it names."""
    rule = find_rule(name)
    marked = rule.apply(RuleWindows(labels.ohlc, labels.start_ns))
    num_windows, num_steps, num_classes = *labels.ohlc.shape[:2], len(labels.classes)
    number = np.array([labels.classes.index(one) if one in labels.classes else -1 for one in rule.classes])
    maps = np.zeros((num_windows, 3, num_classes, num_steps), np.float32)
    probability = np.zeros((num_windows, num_classes + 1))
    probability[:, -1] = 1
    start_NC, end_NC = np.zeros((2, num_windows, num_classes), np.int64)
    known = marked.labelled & (number[np.maximum(marked.outcome, 0)] >= 0)
    for i in np.flatnonzero(known).tolist():
        label, start, end = number[marked.outcome[i]], int(marked.start[i]), int(marked.end[i])
        near = np.flatnonzero(np.abs(2 * np.arange(num_steps) - start - end) <= 2 * HIT_BARS)
        maps[i, :, label, near] = np.stack([np.ones(len(near)), start - near, end - near], 1)
        probability[i, -1], probability[i, label] = 0, 1
        start_NC[i, label], end_NC[i, label] = start, end
    return Reading(probability, maps, start_NC, end_NC)
