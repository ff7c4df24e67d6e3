"""Scores of a detector, each as a function of weights on the windows.

Weights of 1 give the score. The counts of a bootstrap resample as weights give its value there: one formula for both,
over thousands of resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moola_mlflow.core import TrainingError

# Weights [R, N] of R resamples -> the score of each [R].
Statistic = Callable[[np.ndarray], np.ndarray]
ECE_BINS = 5


@dataclass(frozen=True)
class Predictions:
    """Out-of-fold predictions of every labelled window, one for each repeat.

    Shapes: label int [N], span [N, 2] (true start and end); probability [K, N, C], predicted [K, N, 2] for K repeats.
    Units: start and end in bars of the window, both inclusive.
    """

    label: np.ndarray
    span: np.ndarray
    probability: np.ndarray
    predicted: np.ndarray
    classes: tuple[str, ...]

    def statistics(self) -> dict[str, Statistic]:
        """Return every score as its mean over the repeats, as a function of the same weights."""
        each = [
            statistics(self.label, probability, predicted, self.span, self.classes)
            for probability, predicted in zip(self.probability, self.predicted, strict=True)
        ]
        return {name: _average([one[name] for one in each]) for name in each[0]}


def scores(
    label: np.ndarray, probability: np.ndarray, predicted: np.ndarray, span: np.ndarray, classes: Sequence[str]
) -> dict[str, float]:
    """Return every score of one set of predictions by its metric name.

    f1_macro, accuracy, precision_/recall_/f1_<class>, auroc (one class against the rest, averaged over the classes),
    auprc (average precision, averaged likewise), hit_at_3/5 (centre at most 3 or 5 bars off), centre_mae and length_mae
    in bars, joint_success_at_3/5 (right class and such a centre), brier (for two classes half the sum of squares, so 0
    to 1) and ece. Averages leave out a class that no window has, and its own recall is NaN.

    Shapes: label int [N], probability [N, C], predicted and span [N, 2].
    Raises: TrainingError if a probability or a predicted span is not finite.
    Source: SPEC.md section 7.
    """
    ones = np.ones((1, len(label)))
    return {name: float(one(ones)[0]) for name, one in statistics(label, probability, predicted, span, classes).items()}


def per_window(
    label: np.ndarray, probability: np.ndarray, predicted: np.ndarray, span: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the scores that are means over windows, one value for each window.

    For instance, accuracy is 1 if the class is right, centre_mae is the distance between the centres.

    Shapes: label int [N], probability [N, C], predicted and span [N, 2] -> float64 [N] each.
    """
    right = probability.argmax(1) == label
    centre = np.abs(predicted.sum(1) - span.sum(1)) / 2
    length = np.abs(np.diff(predicted, axis=1) - np.diff(span, axis=1))[:, 0]
    num_classes = probability.shape[1]
    square = np.square(probability - np.eye(num_classes)[label]).sum(1)
    out = {"accuracy": right, "centre_mae": centre, "length_mae": length}
    out["brier"] = square / 2 if num_classes == 2 else square
    for bars in (3, 5):
        out[f"hit_at_{bars}"] = centre <= bars
        out[f"joint_success_at_{bars}"] = right & (centre <= bars)
    return {name: values.astype(np.float64) for name, values in out.items()}


def statistics(
    label: np.ndarray, probability: np.ndarray, predicted: np.ndarray, span: np.ndarray, classes: Sequence[str]
) -> dict[str, Statistic]:
    """Return every score of ``scores`` as a function of weights on the windows."""
    _check_finite(probability, predicted)
    out = {name: _mean(values) for name, values in per_window(label, probability, predicted, span).items()}
    guess = probability.argmax(1)
    truth_NC, guess_NC = (code[:, None] == np.arange(len(classes)) for code in (label, guess))
    out["f1_macro"] = lambda w: _nanmean(_by_class(w, truth_NC, guess_NC)["f1"])
    for c, name in enumerate(classes):
        for kind in ("precision", "recall", "f1"):
            out[f"{kind}_{name}"] = _column(truth_NC[:, [c]], guess_NC[:, [c]], kind)
    # Of two classes, the second against the first is the first against the second.
    ranked = range(1, 2) if len(classes) == 2 else range(len(classes))
    out["auroc"] = _average([_auroc(truth_NC[:, c], probability[:, c]) for c in ranked])
    out["auprc"] = _average([_auprc(truth_NC[:, c], probability[:, c]) for c in range(len(classes))])
    out["ece"] = _ece(probability.max(1), guess == label, ECE_BINS)
    return out


def ece(label: np.ndarray, probability: np.ndarray, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error over bins that hold equally many windows.

    The windows are ordered by confidence (the largest probability); equal confidences share a bin. The error is the
    mean of |accuracy - confidence| over bins, weighted by their windows. It is biased upwards: with N = 174 a perfectly
    calibrated detector averages about 0.06 with 5 bins and 0.08 with 10, so there are 5.

    Shapes: label int [N], probability [N, C].
    """
    return float(_ece(probability.max(1), probability.argmax(1) == label, bins)(np.ones((1, len(label))))[0])


def ece_if_calibrated(probability_KNC: np.ndarray, draws: int = 200, seed: int = 0) -> float:
    """Return the calibration error that a detector would show if its probabilities were exactly right.

    The classes are drawn from the probabilities themselves, ``draws`` times for each of K repeats. What remains is the
    sampling error of N windows: a measured error near it is no evidence against the detector.

    Shapes: [K, N, C].
    """
    rng, out = np.random.default_rng(seed), []
    for probability_NC in probability_KNC:
        confidence_N = probability_NC.max(1)
        ones = np.ones((1, len(confidence_N)))
        out += [
            _ece(confidence_N, rng.random(len(confidence_N)) < confidence_N, ECE_BINS)(ones)[0] for _ in range(draws)
        ]
    return float(np.mean(out))


def _check_finite(probability: np.ndarray, predicted: np.ndarray) -> None:
    bad = ~(np.isfinite(probability).all(1) & np.isfinite(predicted).all(1))
    if bad.any():
        raise TrainingError(
            f"{int(bad.sum())} of {len(bad)} windows have predictions that are not finite, the first at position "
            f"{int(bad.argmax())}; lower optimizer.lr or trainer.clip_norm"
        )


def _ratio(top: np.ndarray, bottom: np.ndarray, empty: float = np.nan) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), float(empty)), where=bottom > 0)


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Return the mean of the defined values over the last axis, NaN if none is defined."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0).sum(-1), there.sum(-1).astype(np.float64))


def _mean(values_N: np.ndarray) -> Statistic:
    return lambda w: _ratio(w @ values_N, w.sum(1))


def _average(each: Sequence[Statistic]) -> Statistic:
    """Return the mean of several statistics on the same weights, over those that are defined there."""
    return lambda w: _nanmean(np.stack([one(w) for one in each], -1))


def _by_class(weights: np.ndarray, truth_NC: np.ndarray, guess_NC: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall and F1 of each class. Shapes: weights [R, N] -> [R, C].

    A class that is never predicted has precision 0. A class that no window has has no recall, and no F1 unless it is
    predicted.
    """
    both, truth, guess = (weights @ x.astype(np.float64) for x in (truth_NC & guess_NC, truth_NC, guess_NC))
    return {
        "precision": _ratio(both, guess, empty=0),
        "recall": _ratio(both, truth),
        "f1": _ratio(2 * both, truth + guess),
    }


def _column(truth_N1: np.ndarray, guess_N1: np.ndarray, kind: str) -> Statistic:
    return lambda w: _by_class(w, truth_N1, guess_N1)[kind][:, 0]


def _ties(ordered_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last position of the run of equals at each position. Shapes: int64 [N]."""
    new = np.concatenate([[True], ordered_N[1:] != ordered_N[:-1]])
    starts, run = np.flatnonzero(new), np.cumsum(new) - 1
    return starts[run], np.append(starts[1:], len(ordered_N))[run] - 1


def _auroc(positive_N: np.ndarray, score_N: np.ndarray) -> Statistic:
    """Return the chance that a positive scores above a negative, ties counting half."""
    order = np.argsort(score_N, kind="stable")
    first, last = _ties(score_N[order])
    is_positive = positive_N[order]

    def statistic(weights: np.ndarray) -> np.ndarray:
        w = weights[:, order]
        positive, negative = w * is_positive, w * ~is_positive
        below = np.cumsum(negative, 1)
        # Twice the negatives below a positive: those below its tied scores, and those up to the end of the tie.
        twice = below[:, last] + below[:, first] - negative[:, first]
        return _ratio((positive * twice).sum(1), 2 * positive.sum(1) * negative.sum(1))

    return statistic


def _auprc(positive_N: np.ndarray, score_N: np.ndarray) -> Statistic:
    """Return average precision: the mean over positives of the precision at their score."""
    order = np.argsort(-score_N, kind="stable")
    _, last = _ties(score_N[order])
    is_positive = positive_N[order]

    def statistic(weights: np.ndarray) -> np.ndarray:
        w = weights[:, order]
        positive = w * is_positive
        precision = _ratio(np.cumsum(positive, 1)[:, last], np.cumsum(w, 1)[:, last], empty=0)
        # Undefined with positives only.
        total = np.where((w * ~is_positive).any(1), positive.sum(1), 0)
        return _ratio((positive * precision).sum(1), total)

    return statistic


def _ece(confidence_N: np.ndarray, right_N: np.ndarray, bins: int) -> Statistic:
    order = np.argsort(confidence_N, kind="stable")
    first, _ = _ties(confidence_N[order])
    gap_N = (confidence_N - right_N)[order]

    def statistic(weights: np.ndarray) -> np.ndarray:
        w = weights[:, order]
        total = w.sum(1)
        # The bin follows from the total weight below a confidence, so equal confidences share a bin.
        before = (np.cumsum(w, 1) - w)[:, first]
        bin_RN = np.floor(_ratio(before * bins, np.broadcast_to(total[:, None], w.shape), empty=0))
        gaps = sum(np.abs((w * gap_N * (bin_RN == b)).sum(1)) for b in range(bins))
        return _ratio(np.asarray(gaps), total)

    return statistic
