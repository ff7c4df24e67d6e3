"""Scores of a detector, and intervals that count labelled windows, never window x repeat rows.

Every score is a function of weights on the windows. Weights of one give the score, and the counts of a bootstrap
resample give its value there: one formula for both, for thousands of resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moola_mlflow.core import TrainingError

# Weights [R, N] of R resamples -> the score of each [R].
Statistic = Callable[[np.ndarray], np.ndarray]
ECE_BINS = 5
RESAMPLES = 2000
FEW_UNITS = 20
"""With fewer groups of windows intervals are widened: they may then reach beyond what a score can be."""
# Weights held at a time: 16 MB.
CHUNK_CELLS = 2_000_000


class Interval(NamedTuple):
    """A figure and the ends of its interval; NaN where it is undefined."""

    mean: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Predictions:
    """What the folds said of every labelled window, once a repeat.

    Shapes: label int [N], span [N, 2] (true start and end); probability [K, N, C], predicted [K, N, 2] for K repeats.
    Units: start and end in bars of the window, both inclusive.
    """

    label: np.ndarray
    span: np.ndarray
    probability: np.ndarray
    predicted: np.ndarray
    classes: tuple[str, ...]

    def statistics(self) -> dict[str, Statistic]:
        """Return every score as the mean over the repeats of the same resample."""
        each = [
            statistics(self.label, probability, predicted, self.span, self.classes)
            for probability, predicted in zip(self.probability, self.predicted, strict=True)
        ]
        return {name: _average([one[name] for one in each]) for name in each[0]}


def scores(
    label: np.ndarray, probability: np.ndarray, predicted: np.ndarray, span: np.ndarray, classes: Sequence[str]
) -> dict[str, float]:
    """Return every score of one set of predictions by its metric name.

    f1_macro, accuracy, precision_/recall_/f1_<class>, auroc (one class against the rest, averaged; of two classes both
    are the same), auprc (average precision, averaged over classes likewise), hit_at_3/5 (centre at most so many bars
    off), centre_mae and length_mae in bars, joint_success_at_3/5 (class right and centre within), brier (half the sum
    of squares for two classes, so 0 to 1) and ece. A class that the windows do not hold leaves the averages, and its
    own recall is NaN.

    Shapes: label int [N], probability [N, C], predicted and span [N, 2].
    Raises: TrainingError where a probability or a predicted span is not finite.
    Source: SPEC.md section 7.
    """
    ones = np.ones((1, len(label)))
    return {name: float(one(ones)[0]) for name, one in statistics(label, probability, predicted, span, classes).items()}


def per_window(
    label: np.ndarray, probability: np.ndarray, predicted: np.ndarray, span: np.ndarray
) -> dict[str, np.ndarray]:
    """Return, under their metric names, the scores that are means over windows, window by window.

    accuracy is whether the class is right, centre_mae the distance of the centres, and so on.

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

    The windows are ordered by confidence (the largest probability); equal confidences share a bin. It is the mean of
    |accuracy - confidence| over bins, weighted by their windows. It is never unbiased: a perfectly calibrated detector
    averages about 0.06 with 5 bins at N = 174, and 0.08 with 10, which is why there are 5.

    Shapes: label int [N], probability [N, C].
    """
    return float(_ece(probability.max(1), probability.argmax(1) == label, bins)(np.ones((1, len(label))))[0])


def ece_if_calibrated(probability_KNC: np.ndarray, draws: int = 200, seed: int = 0) -> float:
    """Return the calibration error that a detector with these probabilities would show if they were exactly right.

    The truth is drawn from the probabilities themselves, ``draws`` times for each of K repeats: what remains is the
    luck of N windows. An error near it says nothing against a detector.

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


def bootstrap_interval(
    statistic: Statistic, unit_ids: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return a statistic of all windows and its percentile interval over resamples of whole units.

    Units are drawn with replacement, and a drawn unit brings all its windows: windows that overlap say the same thing
    twice and must not narrow the interval. ``statistic`` gets weights [R, N], a column a window, and returns [R].
    Resamples in which it is undefined (NaN) are left out. The interval of a score that is bounded and biased by small
    samples, such as ece, need not cover the score.

    Shapes: unit_ids [N], equal where windows belong together.
    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.
    """
    return _intervals({"": statistic}, unit_ids, resamples, seed, level)[""]


def intervals(
    predictions: Predictions, groups: np.ndarray | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return every score, averaged over the repeats, with its 95 % interval over resamples of the groups.

    Shapes: groups int [N]; without it each window stands for itself.
    """
    return _intervals(predictions.statistics(), _units(predictions, groups), resamples, seed)


def paired_difference(
    a: Predictions,
    b: Predictions,
    metric: str = "joint_success_at_3",
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return how much better ``a`` scores than ``b`` on the same windows, with a 95 % interval.

    Both are scored on the same resamples. Repeats are averaged within each resample; for a score that is a mean over
    windows that is the mean of the windows' means over repeats. They may differ in number. Where the interval covers 0
    there is no gain.

    Shapes: groups int [N], overlap groups; without it each window stands for itself.
    Raises: ValueError where the two do not label the same windows, or for an unknown metric.
    """
    if not (np.array_equal(a.label, b.label) and np.array_equal(a.span, b.span)):
        raise ValueError("a paired difference needs predictions of the same windows in the same order")
    first, second = a.statistics(), b.statistics()
    if metric not in first or metric not in second:
        raise ValueError(f"metric={metric!r}; allowed: {', '.join(first)}")
    one, other = first[metric], second[metric]
    return bootstrap_interval(lambda w: one(w) - other(w), _units(a, groups), resamples, seed)


def _units(predictions: Predictions, groups: np.ndarray | None) -> np.ndarray:
    return np.arange(len(predictions.label)) if groups is None else groups


def _intervals(
    stats: Mapping[str, Statistic], unit_ids: np.ndarray, resamples: int, seed: int, level: float = 0.95
) -> dict[str, Interval]:
    factor, drawn = _widening(len(np.unique(unit_ids)), level), {name: list[np.ndarray]() for name in stats}
    for weights in _resampled(unit_ids, resamples, seed):
        for name, statistic in stats.items():
            drawn[name].append(statistic(weights))
    out, ones = {}, np.ones((1, len(unit_ids)))
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        values = values[~np.isnan(values)]
        mean = float(stats[name](ones)[0])
        ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else np.full(2, np.nan)
        if factor != 1:
            ends = mean + factor * (ends - mean)
        out[name] = Interval(mean, float(ends[0]), float(ends[1]))
    return out


def _widening(num_units: int, level: float) -> float:
    """Return by what the two sides of a percentile interval are multiplied; NaN for one unit, which has no spread.

    Resamples of few units vary too little, by sqrt((n - 1) / n), and treat the spread as if it were known. Percentiles
    further out do not help: of 3 units no resample lies beyond the largest.

    Source: T. Hesterberg, What Teachers Should Know About the Bootstrap, 2015, section 5.
    """
    if num_units >= FEW_UNITS:
        return 1.0
    if num_units < 2:
        return np.nan
    from scipy.stats import norm, t

    tail = (1 + level) / 2
    return float(np.sqrt(num_units / (num_units - 1)) * t.ppf(tail, num_units - 1) / norm.ppf(tail))


def _resampled(unit_ids: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each window is drawn, for some resamples at a time. Shapes: float64 [R, N]."""
    _, unit_N = np.unique(unit_ids, return_inverse=True)
    num_units, rng = int(unit_N.max()) + 1, np.random.default_rng(seed)
    step = max(CHUNK_CELLS // len(unit_N), 1)
    for first in range(0, resamples, step):
        size = min(step, resamples - first)
        yield rng.multinomial(num_units, np.full(num_units, 1 / num_units), size)[:, unit_N].astype(np.float64)


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
    """Return the mean over the last axis of what is defined, NaN where nothing is."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0).sum(-1), there.sum(-1).astype(np.float64))


def _mean(values_N: np.ndarray) -> Statistic:
    return lambda w: _ratio(w @ values_N, w.sum(1))


def _average(each: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics of the same resample, over those that are defined there."""
    return lambda w: _nanmean(np.stack([one(w) for one in each], -1))


def _by_class(weights: np.ndarray, truth_NC: np.ndarray, guess_NC: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall and F1 of each class. Shapes: weights [R, N] -> [R, C].

    A class that is never predicted has precision 0; one that is not there has no recall, and no F1 unless predicted.
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
    """The chance that a positive scores above a negative, ties counting half."""
    order = np.argsort(score_N, kind="stable")
    first, last = _ties(score_N[order])
    is_positive = positive_N[order]

    def statistic(weights: np.ndarray) -> np.ndarray:
        w = weights[:, order]
        positive, negative = w * is_positive, w * ~is_positive
        below = np.cumsum(negative, 1)
        # Twice the negatives below a positive: those below its tie, and those up to its end.
        twice = below[:, last] + below[:, first] - negative[:, first]
        return _ratio((positive * twice).sum(1), 2 * positive.sum(1) * negative.sum(1))

    return statistic


def _auprc(positive_N: np.ndarray, score_N: np.ndarray) -> Statistic:
    """Average precision: the mean over positives of the precision at their score."""
    order = np.argsort(-score_N, kind="stable")
    _, last = _ties(score_N[order])
    is_positive = positive_N[order]

    def statistic(weights: np.ndarray) -> np.ndarray:
        w = weights[:, order]
        positive = w * is_positive
        precision = _ratio(np.cumsum(positive, 1)[:, last], np.cumsum(w, 1)[:, last], empty=0)
        # With positives only there is nothing to tell apart.
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
        # A window's bin follows from the weight before its confidence, so equals share one.
        before = (np.cumsum(w, 1) - w)[:, first]
        bin_RN = np.floor(_ratio(before * bins, np.broadcast_to(total[:, None], w.shape), empty=0))
        gaps = sum(np.abs((w * gap_N * (bin_RN == b)).sum(1)) for b in range(bins))
        return _ratio(np.asarray(gaps), total)

    return statistic
