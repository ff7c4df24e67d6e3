"""Labels that mean nothing must score at chance through the whole pipeline: whatever is above it has leaked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from small_models import small_encoder

from moola_mlflow.core import CvConfig, FinetuneKeys, make_config
from moola_mlflow.evaluation.crossval import FoldOutcome, HeadMethod, Method, cross_validate, pooled_predictions
from moola_mlflow.evaluation.evidence import DETECTOR, collect_evidence
from moola_mlflow.evaluation.folds import NestedFold, plan_folds
from moola_mlflow.evaluation.methods import detector_method, make_setting, refit_detector
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.targets import Targets
from moola_mlflow.labels.weak import sample_labels
from moola_mlflow.models.detector import PatternDetector

N, EPOCHS, SHUFFLES, REFITTED, BOUND = 174, 6, 40, 20, 0.03
ENCODED, LEAKED = 20, 4  # shuffles of each detector with an encoder, and of one whose fit saw what it is tested on
pytestmark = pytest.mark.slow
SMALL = {"bars.sample_bars": 60_000}
KEYS = {"finetune.inputs": "price_path", "trainer.epochs": EPOCHS, "trainer.batch_size": 29, "optimizer.lr": 4e-3}


@pytest.fixture(scope="module")
def labels() -> LabelledSet:
    return sample_labels(make_config(FinetuneKeys, {}, SMALL), N, 17)


@pytest.fixture(scope="module")
def fresh() -> LabelledSet:
    """All weak labels of another series."""
    return sample_labels(make_config(FinetuneKeys, {}, {**SMALL, "labels.sample_seed": 1002}), 10**6, 17)


def shuffled(labels: LabelledSet, seed: int) -> LabelledSet:
    """Each window with the class and span of another."""
    order = np.random.default_rng([seed, 4]).permutation(len(labels))
    return replace(labels, label=labels.label[order], start=labels.start[order], end=labels.end[order])


@dataclass(frozen=True)
class Crossed:
    """A labelled set and what its cross-validation said."""

    labels: LabelledSet
    folds: list[NestedFold]
    outcomes: list[FoldOutcome]

    def auroc(self) -> float:
        return self._score("auroc")

    def joint(self) -> float:
        return self._score("joint_success_at_3")

    def fold_auroc(self) -> float:
        """The mean over the test folds."""
        return float(
            np.mean(
                [
                    roc_auc_score(self.labels.label[fold.test], outcome.probability[:, 1])
                    for fold, outcome in zip(self.folds, self.outcomes, strict=True)
                ]
            )
        )

    def _score(self, name: str) -> float:
        statistic = pooled_predictions(self.outcomes, self.folds, self.labels).statistics()[name]
        return float(statistic(np.ones((1, len(self.labels))))[0])


def crossed(labels: LabelledSet, method: Method, seed: int) -> Crossed:
    return scored(labels, method, plan_folds(labels, CvConfig(folds=5), (seed,)))


def leaked(labels: LabelledSet, method: Method, seed: int) -> Crossed:
    """The same, but the test windows are fitted too."""
    folds = plan_folds(labels, CvConfig(folds=5), (seed,))
    return scored(labels, method, [replace(fold, fit=np.arange(len(labels))) for fold in folds])


def scored(labels: LabelledSet, method: Method, folds: list[NestedFold]) -> Crossed:
    return Crossed(labels, folds, cross_validate([method], Targets.of(labels), folds)[method.name])


@pytest.fixture(scope="module")
def method(labels: LabelledSet) -> HeadMethod:
    """A head on path features, which do not depend on labels."""
    found = detector_method(make_setting(labels, [], make_config(FinetuneKeys, {}, KEYS), torch.device("cpu"), "fp32"))
    assert isinstance(found, HeadMethod)
    return found


@pytest.fixture(scope="module")
def shuffles(labels: LabelledSet, method: HeadMethod) -> list[Crossed]:
    return [crossed(shuffled(labels, seed), method, seed) for seed in range(SHUFFLES)]


def test_shuffled_labels_score_at_chance_out_of_fold(
    labels: LabelledSet, method: HeadMethod, shuffles: list[Crossed], figure: Callable[[str], None]
) -> None:
    """Measured over 60 shuffles (seeds 0..59) of 174 windows, 62 of one class and 112 of the other, 6 epochs:

    AUROC within each test fold 0.499, spread of a shuffle 0.050, standard error 0.006. Folds pooled: 0.486, spread
    0.046, standard error 0.006, and 0.479 over the first 40. Pooling costs a know-nothing fit about 0.014, because a
    fold with more of a class leaves less of it to train on: the training share alone, a constant within a fold, pools
    to 0.436. So a pooled figure errs on the side of caution. Joint@3 0.058, spread 0.021. The true labels: 0.795 and
    0.638.
    """
    rows = np.array([(found.auroc(), found.fold_auroc(), found.joint()) for found in shuffles])
    pooled_auroc, fold_auroc, joint = rows.mean(0)
    figure(f"{SHUFFLES} shuffles: AUROC {pooled_auroc:.3f} pooled, {fold_auroc:.3f} by fold, Joint@3 {joint:.3f}")
    assert abs(pooled_auroc - 0.5) <= BOUND
    assert abs(fold_auroc - 0.5) <= BOUND
    assert joint <= 0.1
    assert crossed(labels, method, 0).auroc() >= 0.7  # the same pipeline finds what is there


# A high rate and no mirrored windows, so that four epochs remember what is fitted: a leak not learned is not seen.
QUICK = {
    **KEYS, "finetune.inputs": "both", "finetune.mirror": False, "trainer.epochs": 4, "optimizer.lr": 2e-2,
    "finetune.scratch_lr": 2e-2, "encoder.hidden": 4, "encoder.layers": 1,
}  # fmt: skip
KINDS = {"frozen": [small_encoder(hidden=4)], "scratch": []}


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_labels_score_at_chance_where_an_encoder_is_read_or_trained(
    labels: LabelledSet, kind: str, figure: Callable[[str], None]
) -> None:
    """Measured over 20 shuffles (seeds 0..19), the head beside path features on a network of 4 units a direction, whose
    weights are random:

    AUROC within each test fold, standard error 0.012: on the frozen network 0.489, trained from scratch 0.501, and
    0.484 where the random network is trained on from the second epoch, which is not run here. Folds pooled: 0.480,
    0.483, 0.477 (lower for the reason above). Over four shuffles with the test windows among those that are fitted:
    0.616, 0.619, 0.619. True labels: 0.831, 0.793, 0.842.
    """
    setting = make_setting(labels, KINDS[kind], make_config(FinetuneKeys, {}, QUICK), torch.device("cpu"), "fp32")
    assert setting.kind == kind
    method = detector_method(setting)
    found = [crossed(shuffled(labels, seed), method, seed) for seed in range(ENCODED)]
    rows = np.array([(one.auroc(), one.fold_auroc(), one.joint()) for one in found])
    (pooled_auroc, fold_auroc, joint), error = rows.mean(0), rows[:, 1].std(ddof=1) / ENCODED**0.5
    leak = np.mean([leaked(shuffled(labels, seed), method, seed).fold_auroc() for seed in range(LEAKED)])
    true = crossed(labels, method, 0).fold_auroc()
    figure(
        f"{ENCODED} shuffles: AUROC {fold_auroc:.3f} by fold, standard error {error:.3f}, {pooled_auroc:.3f} pooled, "
        f"Joint@3 {joint:.3f}; by fold with test windows fitted too {leak:.3f}, with true labels {true:.3f}"
    )
    assert abs(fold_auroc - 0.5) <= BOUND
    assert error <= BOUND / 2
    assert pooled_auroc <= 0.5 + BOUND
    assert joint <= 0.1
    assert leak > 0.5 + BOUND  # what would leak is seen
    assert true >= 0.7  # the same pipeline finds what is there


def refitted(labels: LabelledSet, epochs: int, seed: int, **keys: int) -> PatternDetector:
    """A detector of path features, fitted on all labels as `finetune` does it."""
    config = make_config(FinetuneKeys, {}, {**KEYS, **{key.replace("__", "."): value for key, value in keys.items()}})
    setting = make_setting(labels, [], config, torch.device("cpu"), "fp32")
    encoder, head = refit_detector(setting, epochs, seed)
    return PatternDetector(head, encoder, "price_path", labels.classes, 1.0, {})


def auroc(detector: PatternDetector, labels: LabelledSet) -> float:
    return float(roc_auc_score(labels.label, detector.predict(labels.ohlc).probability[:, 1]))


def test_a_detector_refitted_on_shuffled_labels_knows_nothing_of_another_series(
    labels: LabelledSet, fresh: LabelledSet, shuffles: list[Crossed], figure: Callable[[str], None]
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
        epochs = collect_evidence(one.labels, one.folds, {DETECTOR: one.outcomes}, pretrained=False).epochs()
        swapped = replace(one.labels, label=1 - one.labels.label)
        rows.append([auroc(refitted(given, epochs, seed), fresh) for given in (one.labels, swapped)])
    both = np.array(rows)
    figure(
        f"{REFITTED} shuffles on {len(fresh)} windows: AUROC {both.mean():.3f}, spread {both.std(ddof=1):.3f}, of a "
        f"pair's mean {both.mean(1).std(ddof=1):.3f}, the best of four {both.reshape(-1, 4).max(1).mean():.3f}"
    )
    assert abs(both.mean() - 0.5) <= BOUND
    assert auroc(refitted(labels, EPOCHS, 0), fresh) >= 0.7  # the same pipeline finds what is there
    # What would leak is seen: a choice made on the windows that score it, and a score on the windows that were fitted.
    assert both.reshape(-1, 4).max(1).mean() > 0.5 + BOUND
    by_heart = [auroc(refitted(one.labels, 40, 0, trainer__epochs=40), one.labels) for one in shuffles[:3]]
    figure(f"on the windows that were fitted, 40 epochs: AUROC {', '.join(f'{score:.3f}' for score in by_heart)}")
    assert np.mean(by_heart) > 0.5 + BOUND
