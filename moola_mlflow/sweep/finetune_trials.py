"""What a trial of stage finetune does: Joint@3 inside of each fold's training part.

A fold's own test windows are never scored, but they are training windows of the other folds: over all folds a sweep
sees nearly every label. What it chose is therefore optimistic on the same labels, and `finetune` says so.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import numpy as np
import torch
from optuna.distributions import CategoricalDistribution

from moola_mlflow.core import FinetuneSweepKeys, SweepKeys
from moola_mlflow.evaluation import (
    FinetuneSetting,
    HeadMethod,
    Method,
    NetworkMethod,
    Unit,
    detector_method,
    head_settings,
    make_setting,
    plan_folds,
    scores,
    split_inside,
)
from moola_mlflow.labels import LabelledSet, Targets, overlap_groups, read_labels, sample_labels
from moola_mlflow.models import Encoder
from moola_mlflow.sweep.space import Space
from moola_mlflow.sweep.worker import Reporter, Stopped, TrialOutcome
from moola_mlflow.tracking import Metrics, load_encoders

# Keys that change how a head is fitted and leave what it reads as it is.
FITTING = ("trainer.", "optimizer.", "finetune.head_lr", "finetune.encoder_lr", "finetune.gamma",
           "finetune.class_balanced", "finetune.jitter_sigma", "finetune.unfreeze_at", "sweep.")  # fmt: skip


class FinetuneTrials:
    """Scores trial after trial on the same windows; labels and a frozen encoder's encodings are made once."""

    def __init__(self, config: FinetuneSweepKeys, device: torch.device, precision: str) -> None:
        """Read the labels and every encoder that a trial may name. Raises: UserError where one cannot be had."""
        self.device, self.precision = device, precision
        self.labels = load_labels(config)
        self.encoders: dict[str, list[tuple[str, Encoder]]] = {}
        for named in encoder_names(config):
            self.encoders[named] = load_encoders(named)
        self.targets = Targets.of(self.labels)
        self._method: tuple[str, Method] | None = None

    def __call__(self, config: SweepKeys, report: Reporter) -> TrialOutcome:
        assert isinstance(config, FinetuneSweepKeys)
        seeds = config.cv.seeds or (config.trainer.seed,)
        units = [inside(self.labels, config, unit) for unit in plan_folds(self.labels, config.cv, seeds)]
        begun, joints, metrics = self._clock(), [], {}
        method = self._fitted_as(config)
        for step, unit in enumerate(units):
            if reason := report.should_stop():
                raise Stopped(reason)
            outcome = method.run(self.targets, unit)
            span = np.stack([self.labels.start, self.labels.end], 1)[unit.test]
            found = scores(
                self.labels.label[unit.test], outcome.probability, outcome.predicted, span, self.labels.classes
            )
            joints.append(found["joint_success_at_3"])
            metrics = {Metrics.INNER_FOLD_JOINT_AT_3: joints[-1], Metrics.INNER_FOLD_F1_MACRO: found["f1_macro"]}
            report.epoch(step, float(np.mean(joints)), metrics)
        return TrialOutcome(float(np.mean(joints)), self._clock() - begun)

    def _clock(self) -> float:
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()

    def _fitted_as(self, config: FinetuneSweepKeys) -> Method:
        """Return the detector's method, with inputs from the last trial where they are the same."""
        key = json.dumps({k: v for k, v in config.flat().items() if not k.startswith(FITTING)}, default=str)
        fresh = not config.finetune.encoder.strip()
        if self._method is None or self._method[0] != key:
            self._method = (key, detector_method(self._setting(config)))
        method: Any = self._method[1]
        assert isinstance(method, HeadMethod | NetworkMethod)
        same = head_settings(config, fresh=fresh and isinstance(method, NetworkMethod))
        return dataclasses.replace(method, settings=same)

    def _setting(self, config: FinetuneSweepKeys) -> FinetuneSetting:
        encoders = [encoder for _, encoder in self.encoders[config.finetune.encoder]]
        return make_setting(self.labels, encoders, config, self.device, self.precision)


def encoder_names(config: FinetuneSweepKeys) -> list[str]:
    """Return the values that ``finetune.encoder`` may have in a trial."""
    searched = Space.of(config).distributions.get("finetune.encoder")
    choices = searched.choices if isinstance(searched, CategoricalDistribution) else ()
    return list(dict.fromkeys([config.finetune.encoder, *map(str, choices)]))


def load_labels(config: FinetuneSweepKeys) -> LabelledSet:
    """Read the labelled windows without logging them."""
    if config.labels.path == "sample":
        return sample_labels(config, config.labels.n, config.labels.seed)
    return read_labels(config.labels.path, config.windows.length)


def inside(labels: LabelledSet, config: FinetuneSweepKeys, unit: Unit) -> Unit:
    """Return a unit that is tested on its held windows: the epoch is chosen on a part of the others.

    Raises: UserError where the windows are too few to be split once more.
    """
    fit, held = split_inside(labels, overlap_groups(labels), unit.fit, unit, config.cv)
    return dataclasses.replace(unit, train=unit.fit, test=unit.held, fit=fit, held=held)
