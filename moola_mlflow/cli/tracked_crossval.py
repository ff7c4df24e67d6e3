"""The tracked half of a fine-tuning: cross-validate, and log each fold of the detector as a child run."""

from __future__ import annotations

import numpy as np

from moola_mlflow.core import Interrupts, is_tuned
from moola_mlflow.evaluation import (
    DETECTOR,
    FinetuneSetting,
    FoldOutcome,
    NestedFold,
    build_methods,
    cross_validate,
    scores,
)
from moola_mlflow.labels import Targets
from moola_mlflow.reports import fold_line, fold_run
from moola_mlflow.tracking import Run


def cross_validate_tracked(
    active: Run, setting: FinetuneSetting, folds: list[NestedFold], workers: int, interrupts: Interrupts
) -> dict[str, list[FoldOutcome]]:
    """Run all methods on all folds, seed by seed, and return the outcomes of each method in the order of the folds.

    Each fold of the detector is printed and logged as soon as it ends.

    Raises: Interrupted where the command was asked to stop; TrainingError if a worker dies.
    """
    total: dict[str, list[FoldOutcome]] = {}
    for seed in dict.fromkeys(fold.seed for fold in folds):
        mine = [fold for fold in folds if fold.seed == seed]

        def log(method: str, number: int, outcome: FoldOutcome, mine: list[NestedFold] = mine) -> None:
            active.beat()
            if method == DETECTOR:
                _log_fold(active, setting, mine[number], outcome)

        methods = build_methods(setting)
        with interrupts.deferred():  # raises at its end what interrupted it
            done = cross_validate(
                methods, Targets.of(setting.labels), mine, workers=workers, on_outcome=log,
                should_stop=interrupts.reason, tuned=is_tuned(setting.config.runtime),
            )  # fmt: skip
        for name, outcomes in done.items():
            total.setdefault(name, []).extend(outcomes)
    return total


def _log_fold(active: Run, setting: FinetuneSetting, fold: NestedFold, outcome: FoldOutcome) -> None:
    labels, test = setting.labels, fold.test
    span = np.stack([labels.start[test], labels.end[test]], 1)
    found = scores(labels.label[test], outcome.probability, outcome.predicted, span, labels.classes)
    print(fold_line(fold, found), flush=True)
    active.child(**fold_run(fold, outcome, found))
