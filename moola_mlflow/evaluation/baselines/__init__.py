"""Baselines without a network, by name: what a detector must beat.

A new baseline is one new file here. It is named after the file and has ``TITLE``, its name in tables, and
``fit_predict``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moola_mlflow.core import UserError, find_plugins, nearest_name
from moola_mlflow.evaluation.baselines.task import BaselineTask, Prediction
from moola_mlflow.labels import Targets

__all__ = ["BASELINES", "TITLES", "BaselineTask", "Prediction", "predict_baseline"]

BASELINES: dict[str, Callable[[BaselineTask], Prediction]] = find_plugins(__name__, __path__, "fit_predict")
TITLES: dict[str, str] = find_plugins(__name__, __path__, "TITLE")


def predict_baseline(name: str, targets: Targets, train: np.ndarray, test: np.ndarray, seed: int) -> Prediction:
    """Fit a baseline on the windows at ``train`` and return its prediction of those at ``test``.

    A class that no training window has gets probability 0. The same seed gives the same prediction.

    Shapes: train [N] and test [M] positions -> probability float64 [M, C]; span int64 [M, 2], both ends inclusive.
    Raises: UserError for an unknown name.
    """
    if name not in BASELINES:
        raise UserError(f"baseline '{name}' is unknown{nearest_name(name, BASELINES)} Allowed: {', '.join(BASELINES)}")
    ohlc_NT4 = np.asarray(targets.ohlc, np.float64)
    label, start, end = (np.asarray(x, np.int64)[train] for x in (targets.label, targets.start, targets.end))
    return BASELINES[name](BaselineTask(ohlc_NT4[train], label, start, end, ohlc_NT4[test], targets.num_classes, seed))
