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

    A window with several events counts for the class of its first event. A group of windows that overlap counts for the
    class of its first window.

    Shapes: int64 [N].
    Raises: UserError if there are fewer groups of windows than folds.
    """
    groups = overlap_groups(labels)
    kind_N = np.full(len(groups), len(labels.classes))
    kind_N[labels.window[::-1]] = labels.label[::-1]
    _, first_G = np.unique(groups, return_index=True)
    if len(first_G) < num_folds:
        raise UserError(
            f"{len(groups)} windows looked at form {len(first_G)} groups of overlapping windows, and {num_folds} "
            f"folds need {num_folds} groups or more; label windows further apart, or lower cv.folds"
        )
    rng, fold_G, next_fold = np.random.default_rng(seed), np.zeros(len(first_G), np.int64), 0
    for kind in range(len(labels.classes) + 1):
        members = rng.permutation(np.flatnonzero(kind_N[first_G] == kind))
        fold_G[members] = (next_fold + np.arange(len(members))) % num_folds
        next_fold += len(members)
    return fold_G[groups]
