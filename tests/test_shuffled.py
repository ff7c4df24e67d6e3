"""Labels that mean nothing must score at chance through the whole pipeline: whatever is above it has leaked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from moola_mlflow.comparison import make_setting, refit
from moola_mlflow.config import CvConfig, resolve
from moola_mlflow.crossval import HeadMethod, Targets, cross_validate, plan, pooled
from moola_mlflow.detection import PatternDetector, detector_inputs
from moola_mlflow.finetune import HeadSettings, mirrored
from moola_mlflow.labels import LabelledSet, sample_labels

N, EPOCHS, SHUFFLES = 174, 6, 40
pytestmark = pytest.mark.slow
SMALL = {"bars.sample_bars": 60_000}


@pytest.fixture(scope="module")
def labels() -> LabelledSet:
    return sample_labels(resolve({}, SMALL), N, 17)


def shuffled(labels: LabelledSet, seed: int) -> LabelledSet:
    """Each window with the class and span of another."""
    order = np.random.default_rng([seed, 4]).permutation(len(labels))
    return replace(labels, label=labels.label[order], start=labels.start[order], end=labels.end[order])


def out_of_fold(
    labels: LabelledSet, inputs: torch.Tensor, flipped: torch.Tensor, seed: int
) -> tuple[float, float, float]:
    """AUROC of all windows, its mean over the test folds, and Joint@3, of a head on path features."""
    units = plan(labels, CvConfig(folds=5), (seed,))
    method = HeadMethod("detector", inputs, flipped, HeadSettings(epochs=EPOCHS))
    outcomes = cross_validate([method], Targets.of(labels), units)["detector"]
    score = pooled(outcomes, units, labels).statistics()
    auroc, joint = (float(score[name](np.ones((1, len(labels))))[0]) for name in ("auroc", "joint_success_at_3"))
    by_fold = [
        roc_auc_score(labels.label[unit.test], outcome.probability[:, 1])
        for unit, outcome in zip(units, outcomes, strict=True)
    ]
    return auroc, float(np.mean(by_fold)), joint


def test_shuffled_labels_score_at_chance_out_of_fold(labels: LabelledSet) -> None:
    """Measured over 60 shuffles (seeds 0..59) of 174 windows, 62 of one class and 112 of the other, 6 epochs:

    AUROC within each test fold 0.499, spread of a shuffle 0.050, standard error 0.006. Folds pooled: 0.486, spread
    0.046, standard error 0.006, and 0.480 over the first 40. Pooling costs a know-nothing fit about 0.014, because a
    fold with more of a class leaves less of it to train on: the training share alone, a constant within a fold, pools
    to 0.436. So a pooled figure errs on the side of caution. Joint@3 0.058, spread 0.021. The true labels: 0.795 and
    0.638.
    """
    inputs, flipped = (detector_inputs(None, "path", x) for x in (labels.ohlc, mirrored(labels.ohlc)))
    rows = np.array([out_of_fold(shuffled(labels, seed), inputs, flipped, seed) for seed in range(SHUFFLES)])
    pooled_auroc, fold_auroc, joint = rows.mean(0)
    print(f"{SHUFFLES} shuffles: AUROC {pooled_auroc:.3f} pooled, {fold_auroc:.3f} by fold, Joint@3 {joint:.3f}")
    assert abs(pooled_auroc - 0.5) <= 0.03
    assert abs(fold_auroc - 0.5) <= 0.03
    assert joint <= 0.1
    assert out_of_fold(labels, inputs, flipped, 0)[0] >= 0.7  # the same pipeline finds what is there


def test_a_detector_refitted_on_shuffled_labels_knows_nothing_of_another_series(labels: LabelledSet) -> None:
    """Measured over 20 shuffles: AUROC on 174 windows of another sample 0.487, spread of a shuffle 0.107, standard
    error 0.024 (a fit that means nothing still leans one way on windows that are alike). The true labels: 0.826."""
    fresh = sample_labels(resolve({}, {**SMALL, "labels.sample_seed": 1002}), N, 17)

    def on_fresh(given: LabelledSet, seed: int) -> float:
        keys = {"finetune.inputs": "path", "trainer.epochs": EPOCHS, "trainer.batch_size": 29, "optimizer.lr": 4e-3}
        encoder, head = refit(make_setting(given, [], resolve({}, keys), torch.device("cpu"), "fp32"), EPOCHS, seed)
        found = PatternDetector(head, encoder, "path", given.classes, 1.0, {}).predict(fresh.ohlc)
        return float(roc_auc_score(fresh.label, found.probability[:, 1]))

    means_nothing = [on_fresh(shuffled(labels, seed), seed) for seed in range(20)]
    assert abs(np.mean(means_nothing) - 0.5) <= 0.075  # three standard errors
    assert on_fresh(labels, 0) >= 0.7
