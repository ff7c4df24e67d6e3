"""Fit an event detector: fit each net once without each fold, average all fits, calibrate on the held-out folds.

Shape legend: N windows looked at, C classes, T steps, P inputs a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from moola_mlflow.core import mixed_seed
from moola_mlflow.features import FeatureChoice
from moola_mlflow.models.detector import detector_inputs, input_sizes
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.ensemble import members_of
from moola_mlflow.models.events.event_detector import EventDetector, EventPart, Reading, read_inputs
from moola_mlflow.models.events.event_targets import EventTargets
from moola_mlflow.models.events.fitting import EventInputs, EventSettings, fit_event_net
from moola_mlflow.models.events.held_out import HeldOutFit, check_scored, choices, held_out
from moola_mlflow.models.events.peaks import window_events
from moola_mlflow.models.events.presence import fit_presence_reader
from moola_mlflow.models.events.score_calibration import ScoreCalibration, threshold_for
from moola_mlflow.models.events.unlabelled import Unlabelled, fit_with_unlabelled
from moola_mlflow.models.events.window_folds import window_folds
from moola_mlflow.models.heads import Inputs, parts_of
from moola_mlflow.models.prior_reader import Prior
from moola_mlflow.windows import mirrored

if TYPE_CHECKING:
    from moola_mlflow.labels import EventLabels

PRIOR_SHARE = 0.5
"""Weight of all prior readers in the average; the nets have the rest."""


@dataclass(frozen=True)
class EventSource:
    """What the nets of an event detector read."""

    inputs: Inputs = "price_path"
    encoder: Encoder | None = None
    features: FeatureChoice | None = None

    def of(self, ohlc_NT4: np.ndarray) -> EventInputs:
        """Return the inputs of windows and of the same windows upside down."""
        values, turned = (
            detector_inputs(self.encoder, self.inputs, ohlc, features=self.features).cpu()
            for ohlc in (ohlc_NT4, mirrored(ohlc_NT4))
        )
        return EventInputs(values, turned)


@dataclass(frozen=True)
class EventFit(HeldOutFit):
    """A fitted event detector, which averages the nets of all folds, and what its folds held out."""

    detector: EventDetector


@dataclass(frozen=True)
class _Plan:
    """One kind of net: its name, the inputs that it reads, its weight, and the prior if it is a prior reader."""

    name: str
    columns: tuple[int, int]
    weight: float
    prior: Prior | None = None
    unlabelled: EventInputs | None = None
    """Windows without labels that a joint net learns from as well."""
    base_rate: float | None = None

    def fit(
        self, inputs: EventInputs, targets: EventTargets, index: np.ndarray, settings: EventSettings, seed: int
    ) -> EventPart:
        own = inputs.columns(*self.columns)
        if self.unlabelled is not None and self.name == "joint":
            more = self.unlabelled.columns(*self.columns)
            net = fit_with_unlabelled((own, targets), index, more, self.base_rate, settings, seed)
            return EventPart(net, self.columns, self.weight)
        if self.prior is None:
            return EventPart(fit_event_net(self.name, own, targets, index, settings, seed), self.columns, self.weight)
        rows = torch.as_tensor(index)
        turned = own.mirrored[rows] if settings.mirror and own.mirrored is not None else None
        reader = fit_presence_reader(self.prior, own.values[rows], targets.at(rows), turned)
        return EventPart(reader, self.columns, self.weight)


def fit_event_detector(
    labels: EventLabels,
    source: EventSource,
    settings: EventSettings,
    seed: int,
    card: dict[str, Any] | None = None,
    on_fit: Callable[[int, int], None] | None = None,
    unlabelled: Unlabelled | None = None,
) -> EventFit:
    """Fit an event detector on windows looked at.

    If every encoder was trained on rules and still has the heads of these rules, prior readers with a presence model
    read the encodings, and the nets read the other inputs. Without other inputs there are only prior readers.
    ``on_fit`` is called with the number of fits done and of all fits.

    The joint nets also learn from ``unlabelled`` windows. If these have a base rate, the labels need no rejects, and
    there are only joint nets. No label then says which events are wrong. So the scores are not calibrated by labels,
    and the threshold depends on the base rate.

    Raises: UserError if there are too few windows or events for the folds, or no event to score; ValueError if no
    window holds an event; TrainingError if a loss or an encoding is not finite.
    """
    targets, fold_N = EventTargets.of(labels), window_folds(labels, settings.folds, seed)
    check_scored(labels)
    inputs, plans = source.of(labels.ohlc), _plans(source, settings)
    if unlabelled is not None:
        plans = _with_unlabelled(plans, source, unlabelled)
    parts, held, done = [], list[tuple[np.ndarray, Reading]](), 0
    for fold in range(settings.folds):
        train, test = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
        own = []
        for place, plan in enumerate(plans):
            own.append(plan.fit(inputs, targets, train, settings, mixed_seed(seed, fold, place)))
            done += 1
            if on_fit is not None:
                on_fit(done, settings.folds * len(plans))
        held.append((test, read_inputs(own, inputs.values[torch.as_tensor(test)])))
        parts += [EventPart(part.net, part.columns, part.weight / settings.folds) for part in own]
    joined = held_out(labels, held)
    chosen = choices(labels, joined, settings.precision)
    detector = EventDetector(
        tuple(parts), source.encoder, source.inputs, labels.classes, chosen.temperature, chosen.calibration,
        chosen.threshold, card or {}, source.features,
    )  # fmt: skip
    fit = EventFit(detector, joined, fold_N, settings.precision)
    if unlabelled is None or unlabelled.base_rate is None:
        return fit
    return replace(fit, detector=_uncalibrated(fit.detector, unlabelled, settings), precision=None)


def _with_unlabelled(plans: list[_Plan], source: EventSource, unlabelled: Unlabelled) -> list[_Plan]:
    """Return plans that learn from unlabelled windows: all of them, or joint nets that read everything."""
    inputs = source.of(unlabelled.ohlc)
    if unlabelled.base_rate is None:
        return [replace(plan, unlabelled=inputs) for plan in plans]
    return [_Plan("joint", (0, inputs.values.shape[-1]), 1.0, None, inputs, unlabelled.base_rate)]


def _uncalibrated(detector: EventDetector, unlabelled: Unlabelled, settings: EventSettings) -> EventDetector:
    """Return a detector without calibration: its scores are masses, and unlabelled windows give its threshold."""
    mass = window_events(detector.read(unlabelled.ohlc).maps)[0].score
    return replace(
        detector,
        calibration=ScoreCalibration(),
        temperature=1.0,
        threshold=threshold_for(mass, mass, settings.precision),
    )


def _plans(source: EventSource, settings: EventSettings) -> list[_Plan]:
    sizes = input_sizes(source.encoder, source.inputs, source.features)
    total, encoded = sum(sizes), sizes[0] if "encoding" in parts_of(source.inputs) else 0
    members = members_of(source.encoder) if encoded and source.encoder is not None else []
    heads = [member.task_heads for member in members]
    if not members or any(one is None for one in heads):
        return [_Plan(name, (0, total), 1 / len(settings.nets)) for name in settings.nets]
    share = PRIOR_SHARE if total > encoded and settings.nets else 1.0
    plans, first = [], 0
    for member, one in zip(members, heads, strict=True):
        assert one is not None
        columns = (first, first + member.output_size)
        plans.append(_Plan("prior", columns, share / len(members), Prior.of(one)))
        first = columns[1]
    if share < 1:
        plans += [_Plan(name, (encoded, total), (1 - share) / len(settings.nets)) for name in settings.nets]
    return plans
