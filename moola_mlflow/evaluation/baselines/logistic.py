"""Logistic regression on window statistics, with the typical span: it cannot point."""

from __future__ import annotations

from moola_mlflow.evaluation.baselines.task import (
    BaselineTask,
    Prediction,
    logistic_regression,
    statistics_and_mirrored,
    typical_span,
)

TITLE = "logistic regression on window statistics"


def fit_predict(task: BaselineTask) -> Prediction:
    """Return fitted probabilities and the typical span."""
    train_NS, label_N, test_MS = statistics_and_mirrored(task)
    return logistic_regression(task, train_NS, label_N, test_MS), typical_span(task)
