"""Cross-validation: fit methods on purged folds and predict each labelled window with a fit that never saw it.

A fit chooses its epoch and temperature on the held part of its own training windows, then predicts its test windows
once. All inner splits are drawn before anything is fitted, so all methods share them and a set that cannot be split is
refused at once.

Shape legend: N windows, M test windows of a fold, C classes, T steps, P inputs a step.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.core import TrainingError
from moola_mlflow.evaluation.baselines import predict_baseline
from moola_mlflow.evaluation.folds import NestedFold
from moola_mlflow.evaluation.metrics import Predictions
from moola_mlflow.evaluation.workers import run_tasks
from moola_mlflow.labels import LabelledSet, Targets
from moola_mlflow.models import Encoder, apply_temperature, temperature
from moola_mlflow.training import FittedHead, HeadInputs, HeadSettings, fit_detector, fit_head, predict
from moola_mlflow.windows import fit_scaling


@dataclass(frozen=True)
class FoldOutcome:
    """Predictions of one method on the test windows of one fold.

    Shapes: probability and raw [M, C] (after and before temperature), predicted int64 [M, 2] (start and end).
    """

    probability: np.ndarray
    raw: np.ndarray
    predicted: np.ndarray
    temperature: float = 1.0
    best_epoch: int = -1
    """From 0; -1 for a method without epochs."""
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class Method(Protocol):
    """A method that is compared: it fits on a fold's training part and predicts its test part."""

    @property
    def name(self) -> str: ...

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        """Fit and predict. The same fold gives the same outcome in any process."""
        ...


@dataclass(frozen=True)
class HeadMethod:
    """A head on cached inputs. Shapes: inputs [N, T, P]."""

    name: str
    inputs: HeadInputs
    settings: HeadSettings

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        fitted = fit_head(self.inputs, targets, fold.fit, fold.held, self.settings, fold.fit_seed)
        return _outcome(fitted, self.inputs.values, targets, fold)


@dataclass(frozen=True)
class NetworkMethod:
    """A head and an encoder trained together. The encoder is pre-trained, or starts from random weights.

    Shapes: features [N, T, F + K]: the encoder's raw features, then further inputs of the head.
    """

    name: str
    features: HeadInputs
    settings: HeadSettings
    encoder: Encoder
    fresh: bool = False
    """Whether the encoder starts from random weights in each fold, with scaling from that fold's windows."""
    warmup: int = 20

    def start(self, fit: np.ndarray, seed: int) -> Encoder:
        """Return the encoder at the start of training."""
        if not self.fresh:
            return self.encoder
        encoder = fresh_copy(self.encoder, seed)
        features = self.features.values[fit, :, : encoder.input_size].numpy(force=True)
        encoder.set_scaling(*fit_scaling(features, self.warmup))
        encoder.card = {**encoder.card, "scaling": {"mean": encoder.mean.tolist(), "std": encoder.std.tolist()}}
        return encoder

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        encoder = self.start(fold.fit, fold.fit_seed)
        fitted = fit_detector(encoder, self.features, targets, fold.fit, fold.held, self.settings, fold.fit_seed)
        return _outcome(fitted, self.features.values, targets, fold)


@dataclass(frozen=True)
class ClassicalMethod:
    """A baseline without a network, by its name in ``baselines.BASELINES``."""

    name: str

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        probability, predicted = predict_baseline(self.name, targets, fold.train, fold.test, fold.fit_seed)
        return FoldOutcome(probability, probability, predicted)


def fresh_copy(encoder: Encoder, seed: int) -> Encoder:
    """Return a copy of an encoder with random weights from a seed. torch's global generator does not change.

    Scaling and card stay: the card says which features the network reads.
    """
    encoder = copy.deepcopy(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in encoder.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return encoder


def cross_validate(
    methods: Sequence[Method],
    targets: Targets,
    folds: Sequence[NestedFold],
    *,
    workers: int = 1,
    on_outcome: Callable[[str, int, FoldOutcome], None] = lambda name, fold, outcome: None,
    should_stop: Callable[[], str | None] = lambda: None,
    tuned: bool = True,
) -> dict[str, list[FoldOutcome]]:
    """Run every method on every fold and return the outcomes of each, in the order of the folds.

    ``on_outcome(method, number of the fold, outcome)`` is called as outcomes come, those of the first method first. The
    outcomes do not depend on ``workers``, the number of processes. After a request to stop, methods that lack a fold
    are left out.
    """
    tasks = [(method, fold) for method in range(len(methods)) for fold in range(len(folds))]
    out: list[dict[int, FoldOutcome]] = [{} for _ in methods]

    def collect(task: int, outcome: FoldOutcome) -> None:
        method, fold = tasks[task]
        out[method][fold] = outcome
        on_outcome(methods[method].name, fold, outcome)

    try:
        run_tasks(_run, (list(methods), targets, list(folds)), tasks, workers, collect, should_stop, tuned)
    except TrainingError:
        if not should_stop():  # otherwise a signal to the whole process group has killed the workers
            raise
    complete = zip(methods, out, strict=True)
    return {method.name: [done[i] for i in range(len(folds))] for method, done in complete if len(done) == len(folds)}


def _run(context: tuple[list[Method], Targets, list[NestedFold]], task: tuple[int, int]) -> FoldOutcome:
    methods, targets, folds = context
    started = time.perf_counter()
    outcome = methods[task[0]].run(targets, folds[task[1]])
    return replace(outcome, seconds=time.perf_counter() - started)


def pooled_predictions(
    outcomes: Sequence[FoldOutcome], folds: Sequence[NestedFold], labels: LabelledSet, *, calibrated: bool = True
) -> Predictions:
    """Return the out-of-fold predictions of every window, one for each repeat and seed."""
    keys = sorted({(fold.seed, fold.repeat) for fold in folds})
    num_classes = len(labels.classes)
    probability = np.full((len(keys), len(labels), num_classes), np.nan)
    predicted = np.full((len(keys), len(labels), 2), -1, np.int64)
    for fold, outcome in zip(folds, outcomes, strict=True):
        k = keys.index((fold.seed, fold.repeat))
        probability[k, fold.test] = outcome.probability if calibrated else outcome.raw
        predicted[k, fold.test] = outcome.predicted
    return Predictions(labels.label, np.stack([labels.start, labels.end], 1), probability, predicted, labels.classes)


def _outcome(fitted: FittedHead, inputs_NTP: Tensor, targets: Targets, fold: NestedFold) -> FoldOutcome:
    """Calibrate on the held windows, then predict the test windows, once."""
    fitted_temperature = temperature(fitted.held_logits.cpu().double().numpy(force=True), targets.label[fold.held])
    logits, start, end = (x.numpy(force=True) for x in predict(fitted, inputs_NTP, fold.test))
    return FoldOutcome(
        apply_temperature(logits, fitted_temperature), apply_temperature(logits, 1.0), np.stack([start, end], 1),
        fitted_temperature, fitted.best_epoch, fitted.history,
    )  # fmt: skip
