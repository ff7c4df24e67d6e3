"""One trial of a fine-tuning sweep: Joint@3 inside each fold's training part.

No trial scores a fold's own test windows. But they are training windows of the other folds, so over all folds a sweep
sees nearly every label. Its choice is therefore optimistic on the same labels, and `finetune` says so.
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
    NestedFold,
    NetworkMethod,
    detector_method,
    head_settings,
    make_setting,
    plan_folds,
    scores,
    split_training_part,
)
from moola_mlflow.labels import LabelledSet, Targets, overlap_groups
from moola_mlflow.models import Encoder
from moola_mlflow.sweep.space import Space
from moola_mlflow.sweep.worker import Reporter, Stopped, TrialOutcome
from moola_mlflow.tracking import Metrics, load_encoders, read_input_labels

FIT_KEYS = ("trainer.", "optimizer.", "finetune.head_lr", "finetune.encoder_lr", "finetune.gamma",
           "finetune.class_balanced", "finetune.jitter_sigma", "finetune.unfreeze_at", "sweep.")  # fmt: skip
"""Keys that change how a head is fitted, but not its inputs."""


class FinetuneTrials:
    """Scores trials on the same windows. Labels, and the encodings of a frozen encoder, are made once."""

    def __init__(self, config: FinetuneSweepKeys, device: torch.device, precision: str) -> None:
        """Read the labels and every encoder that a trial may use. Raises: UserError if one cannot be read."""
        self.device, self.precision = device, precision
        self.labels = read_input_labels(config)
        self.encoders: dict[str, list[tuple[str, Encoder]]] = {}
        for names in encoder_choices(config):
            self.encoders[names] = load_encoders(names)
        self.targets = Targets.of(self.labels)
        self._method: tuple[str, Method] | None = None

    def __call__(self, config: SweepKeys, report: Reporter) -> TrialOutcome:
        assert isinstance(config, FinetuneSweepKeys)
        config = _of_heads(config)
        seeds = config.cv.seeds or (config.trainer.seed,)
        folds = [inner_fold(self.labels, config, fold) for fold in plan_folds(self.labels, config.cv, seeds)]
        started_at, joints, metrics = self._clock(), [], {}
        method = self._method_for(config)
        for step, fold in enumerate(folds):
            if reason := report.should_stop():
                raise Stopped(reason)
            outcome = method.run(self.targets, fold)
            span = np.stack([self.labels.start, self.labels.end], 1)[fold.test]
            found = scores(
                self.labels.label[fold.test], outcome.probability, outcome.predicted, span, self.labels.classes
            )
            joints.append(found["joint_success_at_3"])
            metrics = {Metrics.INNER_FOLD_JOINT_AT_3: joints[-1], Metrics.INNER_FOLD_F1_MACRO: found["f1_macro"]}
            report.epoch(step, float(np.mean(joints)), metrics)
        return TrialOutcome(float(np.mean(joints)), self._clock() - started_at)

    def _clock(self) -> float:
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()

    def _method_for(self, config: FinetuneSweepKeys) -> Method:
        """Return the detector's method. Its inputs are those of the last trial if nothing about them has changed."""
        key = json.dumps({k: v for k, v in config.flat().items() if not k.startswith(FIT_KEYS)}, default=str)
        fresh = not config.finetune.encoder.strip()
        if self._method is None or self._method[0] != key:
            self._method = (key, detector_method(self._setting(config)))
        method: Any = self._method[1]
        assert isinstance(method, HeadMethod | NetworkMethod)
        settings = head_settings(config, fresh=fresh and isinstance(method, NetworkMethod))
        return dataclasses.replace(method, settings=settings)

    def _setting(self, config: FinetuneSweepKeys) -> FinetuneSetting:
        encoders = [encoder for _, encoder in self.encoders[config.finetune.encoder]]
        return make_setting(self.labels, encoders, config, self.device, self.precision)


def _of_heads(config: FinetuneSweepKeys) -> FinetuneSweepKeys:
    """Return the configuration with the span head that is searched, for an encoder of rules too.

    The prior reader has nothing to search: no epochs and no learning rate.
    """
    tuned = config.finetune
    own = {"head": "span" if tuned.head == "auto" else tuned.head, "reader": "head"}
    return config.model_copy(update={"finetune": tuned.model_copy(update=own)})


def encoder_choices(config: FinetuneSweepKeys) -> list[str]:
    """Return the values that ``finetune.encoder`` may have in a trial."""
    searched = Space.of(config).distributions.get("finetune.encoder")
    choices = searched.choices if isinstance(searched, CategoricalDistribution) else ()
    return list(dict.fromkeys([config.finetune.encoder, *map(str, choices)]))


def inner_fold(labels: LabelledSet, config: FinetuneSweepKeys, fold: NestedFold) -> NestedFold:
    """Return a fold that is tested on the held-out windows of another. A part of the others chooses the epoch.

    Raises: UserError if there are too few windows for one more split.
    """
    fit, held = split_training_part(labels, overlap_groups(labels), fold, config.cv, fold.fit)
    return dataclasses.replace(fold, train=fold.fit, test=fold.held, fit=fit, held=held)
