"""Folds of the windows looked at. Windows that share bars are in one fold, so no net is scored on bars it has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moola_mlflow.core import UserError
from moola_mlflow.labels import overlap_groups

if TYPE_CHECKING:
    from moola_mlflow.labels import EventLabels


def window_folds(labels: EventLabels, num_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each window. Windows of each class, and those without an event, are spread evenly.

    A group of windows that overlap counts for the class of its first event. The same minutes of two instruments
    overlap: they show the same market twice.

    Shapes: int64 [N].
    Raises: UserError if there are fewer groups of windows than folds, or fewer that hold an event.
    """
    groups, none = overlap_groups(labels, across_instruments=True), len(labels.classes)
    kind_G = np.full(int(groups.max(initial=-1)) + 1, none)
    kind_G[groups[labels.window[::-1]]] = labels.label[::-1]
    if len(kind_G) < num_folds:
        raise UserError(
            f"{len(groups)} windows looked at form {len(kind_G)} groups of overlapping windows, and {num_folds} "
            f"folds need {num_folds} groups or more; label windows further apart, or lower cv.folds"
        )
    if (num := int((kind_G != none).sum())) < num_folds:
        lower = f", or set cv.folds to {num} or less" if num >= 2 else ""
        raise UserError(
            f"{labels.num_events} labelled events lie in {num} groups of overlapping windows, and cv.folds="
            f"{num_folds} needs {num_folds} groups; label more windows that hold an event{lower}"
        )
    rng, fold_G, next_fold = np.random.default_rng(seed), np.zeros(len(kind_G), np.int64), 0
    for kind in range(none + 1):
        members = rng.permutation(np.flatnonzero(kind_G == kind))
        fold_G[members] = (next_fold + np.arange(len(members))) % num_folds
        next_fold += len(members)
    return fold_G[groups]
