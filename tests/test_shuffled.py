"""Labels that mean nothing must score at chance through the whole pipeline: whatever is above it has leaked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from moola_mlflow.comparison import detector_method, make_setting, refit
from moola_mlflow.config import CvConfig, resolve
from moola_mlflow.crossval import HeadMethod, Outcome, Targets, Unit, cross_validate, plan, pooled
from moola_mlflow.detection import PatternDetector
from moola_mlflow.evidence import DETECTOR, weigh
from moola_mlflow.labels import LabelledSet, sample_labels

N, EPOCHS, SHUFFLES, REFITTED, BOUND = 174, 6, 40, 20, 0.03
pytestmark = pytest.mark.slow
SMALL = {"bars.sample_bars": 60_000}
KEYS = {"finetune.inputs": "path", "trainer.epochs": EPOCHS, "trainer.batch_size": 29, "optimizer.lr": 4e-3}


@pytest.fixture(scope="module")
def labels() -> LabelledSet:
    return sample_labels(resolve({}, SMALL), N, 17)


@pytest.fixture(scope="module")
def fresh() -> LabelledSet:
    """All weak labels of another series."""
    return sample_labels(resolve({}, {**SMALL, "labels.sample_seed": 1002}), 10**6, 17)


def shuffled(labels: LabelledSet, seed: int) -> LabelledSet:
    """Each window with the class and span of another."""
    order = np.random.default_rng([seed, 4]).permutation(len(labels))
    return replace(labels, label=labels.label[order], start=labels.start[order], end=labels.end[order])


@dataclass(frozen=True)
class Crossed:
    """A labelled set and what its cross-validation said."""

    labels: LabelledSet
    units: list[Unit]
    outcomes: list[Outcome]

    def auroc(self) -> float:
        return self._score("auroc")

    def joint(self) -> float:
        return self._score("joint_success_at_3")

    def fold_auroc(self) -> float:
        """The mean over the test folds."""
        return float(
            np.mean(
                [
                    roc_auc_score(self.labels.label[unit.test], outcome.probability[:, 1])
                    for unit, outcome in zip(self.units, self.outcomes, strict=True)
                ]
            )
        )

    def _score(self, name: str) -> float:
        statistic = pooled(self.outcomes, self.units, self.labels).statistics()[name]
        return float(statistic(np.ones((1, len(self.labels))))[0])


def crossed(labels: LabelledSet, method: HeadMethod, seed: int) -> Crossed:
    units = plan(labels, CvConfig(folds=5), (seed,))
    return Crossed(labels, units, cross_validate([method], Targets.of(labels), units)[method.name])


@pytest.fixture(scope="module")
def method(labels: LabelledSet) -> HeadMethod:
    """A head on path features, which do not depend on labels."""
    found = detector_method(make_setting(labels, [], resolve({}, KEYS), torch.device("cpu"), "fp32"))
    assert isinstance(found, HeadMethod)
    return found


@pytest.fixture(scope="module")
def shuffles(labels: LabelledSet, method: HeadMethod) -> list[Crossed]:
    return [crossed(shuffled(labels, seed), method, seed) for seed in range(SHUFFLES)]


def test_shuffled_labels_score_at_chance_out_of_fold(
    labels: LabelledSet, method: HeadMethod, shuffles: list[Crossed]
) -> None:
    """Measured over 60 shuffles (seeds 0..59) of 174 windows, 62 of one class and 112 of the other, 6 epochs:

    AUROC within each test fold 0.499, spread of a shuffle 0.050, standard error 0.006. Folds pooled: 0.486, spread
    0.046, standard error 0.006, and 0.480 over the first 40. Pooling costs a know-nothing fit about 0.014, because a
    fold with more of a class leaves less of it to train on: the training share alone, a constant within a fold, pools
    to 0.436. So a pooled figure errs on the side of caution. Joint@3 0.058, spread 0.021. The true labels: 0.795 and
    0.638.
    """
    rows = np.array([(found.auroc(), found.fold_auroc(), found.joint()) for found in shuffles])
    pooled_auroc, fold_auroc, joint = rows.mean(0)
    print(f"{SHUFFLES} shuffles: AUROC {pooled_auroc:.3f} pooled, {fold_auroc:.3f} by fold, Joint@3 {joint:.3f}")
    assert abs(pooled_auroc - 0.5) <= BOUND
    assert abs(fold_auroc - 0.5) <= BOUND
    assert joint <= 0.1
    assert crossed(labels, method, 0).auroc() >= 0.7  # the same pipeline finds what is there


def refitted(labels: LabelledSet, epochs: int, seed: int, **keys: int) -> PatternDetector:
    """A detector of path features, fitted on all labels as `finetune` does it."""
    config = resolve({}, {**KEYS, **{key.replace("__", "."): value for key, value in keys.items()}})
    setting = make_setting(labels, [], config, torch.device("cpu"), "fp32")
    encoder, head = refit(setting, epochs, seed)
    return PatternDetector(head, encoder, "path", labels.classes, 1.0, {})


def auroc(detector: PatternDetector, labels: LabelledSet) -> float:
    return float(roc_auc_score(labels.label, detector.predict(labels.ohlc).probability[:, 1]))


def test_a_detector_refitted_on_shuffled_labels_knows_nothing_of_another_series(
    labels: LabelledSet, fresh: LabelledSet, shuffles: list[Crossed]
) -> None:
    """Measured over 20 shuffles (seeds 0..19, epochs chosen in five folds each): AUROC on 309 weak labels of another
    sample 0.496. A fit that means nothing leans one way on windows that are alike: its spread is 0.087, and 20 of them
    would have a standard error of 0.019. So each shuffle is fitted under both namings of the classes, which lean to
    opposite sides: the spread of a pair's mean is 0.026, the standard error 0.006, and the bound of 0.03 is five of it.
    What knows the true labels by another way than those that it is given would be right under both.

    Leaks: the best of four fits by the very windows that score it 0.587; scores
    on the windows that were fitted, 40 epochs, 0.757, 0.764 and 0.689.
    """
    rows = []
    for seed, one in enumerate(shuffles[:REFITTED]):
        epochs = weigh(one.labels, one.units, {DETECTOR: one.outcomes}, pretrained=False).epochs()
        swapped = replace(one.labels, label=1 - one.labels.label)
        rows.append([auroc(refitted(given, epochs, seed), fresh) for given in (one.labels, swapped)])
    both = np.array(rows)
    print(
        f"{REFITTED} shuffles on {len(fresh)} windows: AUROC {both.mean():.3f}, spread {both.std(ddof=1):.3f}, of a "
        f"pair's mean {both.mean(1).std(ddof=1):.3f}, the best of four {both.reshape(-1, 4).max(1).mean():.3f}"
    )
    assert abs(both.mean() - 0.5) <= BOUND
    assert auroc(refitted(labels, EPOCHS, 0), fresh) >= 0.7  # the same pipeline finds what is there
    # What would leak is seen: a choice made on the windows that score it, and a score on the windows that were fitted.
    assert both.reshape(-1, 4).max(1).mean() > 0.5 + BOUND
    by_heart = [auroc(refitted(one.labels, 40, 0, trainer__epochs=40), one.labels) for one in shuffles[:3]]
    print(f"on the windows that were fitted, 40 epochs: {np.round(by_heart, 3)}")
    assert np.mean(by_heart) > 0.5 + BOUND
