"""What a baseline is given, what it returns, and the parts that several baselines share.

Shape legend: N training windows, M test windows, T bars, 4 = open, high, low, close, C classes, S statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.evaluation.baselines.statistics import GRAIN, window_statistics


@dataclass(frozen=True)
class BaselineTask:
    """Training windows with their labels, and the prices of the test windows.

    Shapes: train float64 [N, T, 4], test [M, T, 4]; label, start, end int64 [N].
    """

    train: np.ndarray
    label: np.ndarray
    start: np.ndarray
    end: np.ndarray
    test: np.ndarray
    num_classes: int
    seed: int


# Probability float64 [M, C] and span int64 [M, 2]: start and end, both inclusive.
Prediction = tuple[np.ndarray, np.ndarray]


def class_shares(task: BaselineTask) -> np.ndarray:
    """Return the training classes' shares for every test window. Shapes: float64 [M, C]."""
    count_C = np.bincount(task.label, minlength=task.num_classes)
    return np.tile(count_C / count_C.sum(), (len(task.test), 1))


def typical_span(task: BaselineTask) -> np.ndarray:
    """Return the training medians of start and end for every test window. Shapes: int64 [M, 2]."""
    return np.tile(np.array([np.median(task.start), np.median(task.end)]).astype(np.int64), (len(task.test), 1))


def statistics_and_mirrored(task: BaselineTask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return statistics of the training windows and of their mirror images, the labels of both, and test statistics.

    A rising pattern and a falling one have the same label, so mirrored windows double the training set.
    """
    upside_down = -task.train[..., [0, 2, 1, 3]]
    train_NS = np.concatenate([window_statistics(task.train), window_statistics(upside_down)])
    return train_NS, np.tile(task.label, 2), window_statistics(task.test)


def logistic_regression(
    task: BaselineTask, train_NS: np.ndarray, label_N: np.ndarray, test_MS: np.ndarray
) -> np.ndarray:
    """Return class probabilities from statistics standardised by the training part. Shapes: float64 [M, C]."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(label_N)) == 1:
        return class_shares(task)
    mean_S, std_S = train_NS.mean(0), train_NS.std(0)
    std_S = np.where(std_S > GRAIN, std_S, 1.0)
    model = LogisticRegression(max_iter=1000).fit((train_NS - mean_S) / std_S, label_N)
    return all_classes(task, model.predict_proba((test_MS - mean_S) / std_S), model.classes_)


def all_classes(task: BaselineTask, probability: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return a probability for every class, 0 for one that the training part lacks. Shapes: float64 [M, C]."""
    out_MC = np.zeros((len(probability), task.num_classes))
    out_MC[:, classes] = probability
    return out_MC
