"""Evidence of a cross-validation of known skill, without any training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from small_labels import small_labels

from moola_mlflow.core import CvConfig
from moola_mlflow.evaluation.crossval import FoldOutcome
from moola_mlflow.evaluation.evidence import DETECTOR, Evidence, collect_evidence
from moola_mlflow.evaluation.folds import NestedFold, plan_folds
from moola_mlflow.labels.labelled_set import LabelledSet

LABELS = replace(small_labels(30), weak=True)
FOLDS = plan_folds(LABELS, CvConfig(folds=3, repeats=2), (5, 3))
KEYS = [(3, 0), (3, 1), (5, 0), (5, 1)]
SKILL = {DETECTOR: 0.6, "scratch": 0.5, "random_encoder": 0.3, "path_features": 0.55, "majority": 0.0, "rule": 0.95}


def outcomes(
    skill: float, seed: int, folds: list[NestedFold] = FOLDS, labels: LabelledSet = LABELS
) -> list[FoldOutcome]:
    """Outcomes right in about so large a share of the windows; centres miss by a few bars, lengths by one or none."""
    rng, num_classes, out = np.random.default_rng(seed), len(labels.classes), []
    for fold in folds:
        right = rng.random(len(fold.test)) < skill
        label = np.where(right, labels.label[fold.test], rng.integers(0, num_classes, len(fold.test)))
        logits = 2 * np.eye(num_classes)[label] + rng.normal(size=(len(label), num_classes))
        start = labels.start[fold.test] + rng.integers(-5, 6, len(label)) * (rng.random(len(label)) > skill)
        predicted = np.stack([start, labels.end[fold.test] + rng.integers(0, 2, len(label))], 1)
        raw, warm = (np.exp(logits / t) / np.exp(logits / t).sum(1, keepdims=True) for t in (0.5, 1.0))
        epoch = int(rng.integers(1, 9))
        out.append(FoldOutcome(warm, raw, predicted, float(rng.uniform(0.5, 3)), epoch, [{"train_loss": 1.0}], 0.1))
    return out


def evidence(**skill: float) -> Evidence:
    chosen = skill or SKILL
    return collect_evidence(LABELS, FOLDS, {name: outcomes(value, i) for i, (name, value) in enumerate(chosen.items())})
