"""Scores of events on continuous bars and on windows looked at, each as a function of weights on blocks of bars.

Weights of 1 give the score. The counts of a bootstrap resample as weights give its value there, as in ``metrics``.

Shape legend: E found events, K true events, G blocks, R resamples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moola_mlflow.evaluation.bootstrap import Interval, bootstrap_interval
from moola_mlflow.evaluation.metrics import Statistic, ece
from moola_mlflow.evaluation.rule_truth import RuleTruth
from moola_mlflow.labels import EventLabels, overlap_groups
from moola_mlflow.models import EventTable, HeldOutFit, apply_temperature, match_events, near_any

BINS, LOWEST_BIN = 10, 0.1
"""Equal bins of the calibration error, from the score 0.1 to 1."""
CHUNK_CELLS = 2_000_000
RIGHT, WRONG, LEFT_OUT = 1, 0, -1


@dataclass(frozen=True)
class ScoredEvents:
    """Events that were found, whether each is right, and the true events: all that a score needs.

    Shapes: label and right int64 [E] (1 right, 0 wrong, -1 neither), score float64 [E]; true_label int64 [K]; block
    int64 [E] and true_block int64 [K], the block of bars that each lies in; num_blocks of them are resampled.
    """

    label: np.ndarray
    score: np.ndarray
    right: np.ndarray
    block: np.ndarray
    true_label: np.ndarray
    true_block: np.ndarray
    num_blocks: int
    classes: tuple[str, ...]
    order: np.ndarray | None = None
    """What ranks the events, if not the score: scores of several calibrations have no common order. float64 [E]."""
    above: np.ndarray | None = None
    """Whether each event reaches its own threshold, if there are several thresholds. bool [E]."""

    def statistics(self, threshold: float) -> dict[str, Statistic]:
        """Return every score as a function of weights [R, G] on the blocks.

        ``map``: the mean over classes of ``ap_<class>``, the area under the interpolated precision-recall curve.
        ``precision_at_recall_50`` and ``recall_at_precision_80`` are read from this curve of all classes together.
        ``precision``, ``recall``, ``f1`` and ``recall_<class>`` are those of events at or above the threshold, or of
        those that ``above`` names. Without a true event ``map`` is not defined, and without an event above the
        threshold precision is not: both are then NaN.
        ``event_ece`` is the calibration error of the score: 10 bins from 0.1 on.

        Source: M. Everingham et al., The PASCAL Visual Object Classes Challenge, 2010, section 4.2 (interpolated
        average precision; here at every recall); A. Mesaros, T. Heittola, T. Virtanen, Metrics for Polyphonic Sound
        Event Detection, 2016 (collar-based matching, precision, recall and F1 of events).
        """
        whole = self._curve(None)
        out: dict[str, Statistic] = {f"ap_{name}": self._average_precision(k) for k, name in enumerate(self.classes)}
        aps = list(out.values())
        out["map"] = lambda w: _mean_of([one(w) for one in aps])
        out["precision_at_recall_50"] = _then(whole, lambda p, r: _precision_at(p, r, 0.5))
        out["recall_at_precision_80"] = _then(whole, lambda p, r: _recall_at(p, r, 0.8))
        above = replace(self, right=np.where(self._above(threshold), self.right, LEFT_OUT))
        for name, value in (("precision", 0), ("recall", 1), ("f1", 2)):
            out[name] = above._at_threshold(None, value)
        for k, name in enumerate(self.classes):
            out[f"recall_{name}"] = above._at_threshold(k, 1)
        out["event_ece"] = self._calibration_error
        return {name: _in_chunks(one, len(self.score)) for name, one in out.items()}

    def scores(self, threshold: float) -> dict[str, float]:
        """Return every score of :meth:`statistics`."""
        ones = np.ones((1, self.num_blocks))
        return {name: float(one(ones)[0]) for name, one in self.statistics(threshold).items()}

    def intervals(self, threshold: float, names: Sequence[str] | None = None) -> dict[str, Interval]:
        """Return scores with 95 % intervals over resamples of whole blocks."""
        every = self.statistics(threshold)
        blocks = np.arange(self.num_blocks)
        return {name: bootstrap_interval(every[name], blocks) for name in names or every}

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return precision, recall and score after each found event, from the first in order on. Shapes: [E] each."""
        p_RE, r_RE = self._curve(None)(np.ones((1, self.num_blocks)))
        return p_RE[0], r_RE[0], self.score[self._ranked(self.right != LEFT_OUT)]

    def num_true(self) -> dict[str, int]:
        """Return the number of true events of each class."""
        return dict(zip(self.classes, np.bincount(self.true_label, minlength=len(self.classes)).tolist(), strict=True))

    def _above(self, threshold: float) -> np.ndarray:
        return self.score >= threshold if self.above is None else self.above

    def _ranked(self, own: np.ndarray) -> np.ndarray:
        """Return the positions of some events, the first in order first. Shapes: own bool [E]."""
        kept, order = np.flatnonzero(own), self.score if self.order is None else self.order
        return kept[np.argsort(-order[kept], kind="stable")]

    def _curve(self, label: int | None) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Return what gives precision and recall after each found event, from the highest score on. [R, E] each."""
        own = self.right != LEFT_OUT
        if label is not None:
            own &= self.label == label
        kept = self._ranked(own)
        block, right = self.block[kept], self.right[kept] == RIGHT

        def curve(w_RG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            w_RE = w_RG[:, block]
            found, hits = np.cumsum(w_RE, 1), np.cumsum(w_RE * right, 1)
            total = self._num_true(label, w_RG)[:, None]
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.where(found > 0, hits / found, 0.0), hits / total

        return curve

    def _num_true(self, label: int | None, w_RG: np.ndarray) -> np.ndarray:
        """Return the number of true events, of one class or of all. Shapes: float64 [R]."""
        block = self.true_block if label is None else self.true_block[self.true_label == label]
        return np.asarray(w_RG[:, block].sum(1))

    def _average_precision(self, label: int) -> Statistic:
        """Return the average precision of a class, NaN in resamples without a true event."""
        curve = self._curve(label)
        return lambda w: np.where(self._num_true(label, w) > 0, average_precision(*curve(w)), np.nan)

    def _at_threshold(self, label: int | None, which: int) -> Statistic:
        """Return precision, recall or F1 of all judged events; NaN where none is found, or none is true."""
        own = self.right != LEFT_OUT
        if label is not None:
            own &= self.label == label
        block, right = self.block[own], self.right[own] == RIGHT

        def statistic(w_RG: np.ndarray) -> np.ndarray:
            w_RE, total = w_RG[:, block], self._num_true(label, w_RG)
            found, hits = w_RE.sum(1), (w_RE * right).sum(1)
            with np.errstate(invalid="ignore", divide="ignore"):
                return (hits / found, hits / total, np.where(total > 0, 2 * hits / (found + total), np.nan))[which]

        return statistic

    def _calibration_error(self, w_RG: np.ndarray) -> np.ndarray:
        kept = np.flatnonzero((self.right != LEFT_OUT) & (self.score >= LOWEST_BIN))
        bins = np.minimum((self.score[kept] - LOWEST_BIN) / (1 - LOWEST_BIN) * BINS, BINS - 1).astype(np.int64)
        w_RE, gap = w_RG[:, self.block[kept]], (self.right[kept] == RIGHT) - self.score[kept]
        off = np.abs((w_RE * gap) @ (bins[:, None] == np.arange(BINS))).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return off / w_RE.sum(1)


def average_precision(precision_RE: np.ndarray, recall_RE: np.ndarray) -> np.ndarray:
    """Return the area under the interpolated curve: at each recall, the best precision at that recall or more.

    Shapes: [R, E] each, from the highest score on -> [R].
    """
    with np.errstate(invalid="ignore"):  # without a true event recall is not defined
        step_RE = np.diff(recall_RE, axis=1, prepend=0)
    return (_best_from_here(precision_RE) * step_RE).sum(1)


def score_events(
    found: EventTable,
    true: EventTable,
    classes: tuple[str, ...],
    block_of: Callable[[np.ndarray], np.ndarray],
    unclear: EventTable | None = None,
) -> ScoredEvents:
    """Match found events with true ones and return what scores need.

    A found event that matches no true one, but lies as near to an unclear one of its class, is neither right nor wrong.
    ``block_of`` gives the block, from 0, of rows of bars.
    """
    matched = match_events(found, true)
    right = np.where(matched >= 0, RIGHT, WRONG)
    if unclear is not None and len(unclear):
        right[(matched < 0) & near_any(found, unclear)] = LEFT_OUT
    block, true_block = block_of(found.start), block_of(true.start)
    num_blocks = int(max(block.max(initial=-1), true_block.max(initial=-1))) + 1
    return ScoredEvents(found.label, found.score, right, block, true.label, true_block, num_blocks, classes)


def score_scan(found: EventTable, truth: RuleTruth, block_bars: int, strict: bool = False) -> ScoredEvents:
    """Score the events of a scan by a rule's truth. With ``strict``, unclear events are wrong.

    Blocks of ``block_bars`` bars are resampled.
    """
    return score_events(
        found, truth.true, truth.classes, lambda rows: rows // block_bars, None if strict else truth.unclear
    )


def score_held_out(fit: HeldOutFit, labels: EventLabels, kept: np.ndarray | None = None) -> ScoredEvents:
    """Score the out-of-fold events of windows looked at, or of some of them.

    Groups of scored windows that share bars are resampled. Windows that a query chose are no fair sample: give ``kept``
    to leave them out. The events of each fold have the calibration and the threshold that the other folds choose. The
    masses rank them. A found event near a labelled one in a margin is neither right nor wrong.

    Shapes: kept bool [N].
    """
    held, num_steps = fit.held, labels.ohlc.shape[1]
    counts = np.ones(len(labels), bool) if kept is None else kept
    group_N = overlap_groups(labels, across_instruments=True)
    of_scored, group_S = np.unique(group_N[counts], return_inverse=True)
    group_N = np.zeros(len(labels), np.int64)
    group_N[counts] = group_S

    def some(events: EventTable) -> EventTable:
        # A span lies in one window, and its first bar tells which.
        return events.select(np.flatnonzero(counts[events.start // num_steps]))

    own = np.flatnonzero(counts[held.window])
    score, above = (column[own] for column in fit.out_of_fold())
    scored = score_events(
        held.found.select(own), some(held.true), fit.detector.classes, lambda place: group_N[place // num_steps],
        some(held.in_margin),
    )  # fmt: skip
    order = scored.score
    return replace(scored, score=score, order=order, above=above, num_blocks=len(of_scored))


def score_windows(fit: HeldOutFit, labels: EventLabels) -> dict[str, float]:
    """Return out-of-fold scores of the labels that windows get: ``none`` is a class like the others.

    ``window_accuracy``, ``window_f1_macro``, ``window_recall_none`` and ``window_ece`` (5 equal-mass bins). A window
    with several events counts as the class of the one that the detector names, or else of its first.
    """
    detector, none = fit.detector, len(labels.classes)
    logits = np.log(np.maximum(fit.held.probability, 1e-12))
    probability = apply_temperature(logits, detector.temperature)
    guess, label = probability.argmax(1), np.full(len(labels), none)
    label[labels.window[::-1]] = labels.label[::-1]
    named = labels.label == guess[labels.window]
    label[labels.window[named]] = labels.label[named]
    f1 = [_f1(label == k, guess == k) for k in range(none + 1) if ((label == k) | (guess == k)).any()]
    return {
        "window_accuracy": float((guess == label).mean()),
        "window_f1_macro": float(np.mean(f1)),
        "window_recall_none": float((guess[label == none] == none).mean()) if (label == none).any() else np.nan,
        "window_ece": ece(label, probability),
    }


def _f1(true: np.ndarray, guess: np.ndarray) -> float:
    return 2 * float((true & guess).sum()) / float(true.sum() + guess.sum())


def paired_event_difference(
    a: ScoredEvents, b: ScoredEvents, metric: str = "map", thresholds: tuple[float, float] = (0.5, 0.5)
) -> Interval:
    """Return by how much ``a`` scores more than ``b`` on the same bars, with a 95 % interval over resampled blocks.

    Raises: ValueError if the true events differ.
    """
    if not (np.array_equal(a.true_label, b.true_label) and np.array_equal(a.true_block, b.true_block)):
        raise ValueError("a paired difference needs scores of the same true events")
    num = max(a.num_blocks, b.num_blocks)
    one, other = (replace(x, num_blocks=num).statistics(t)[metric] for x, t in zip((a, b), thresholds, strict=True))
    return bootstrap_interval(lambda w: one(w) - other(w), np.arange(num))


def mean_paired_difference(ours: Sequence[ScoredEvents], theirs: Sequence[ScoredEvents], metric: str) -> Interval:
    """Return by how much the first score more on the same true events: the mean over draws of the folds.

    Draws are averaged first, then blocks are resampled, the same ones for all. A draw in which a score is not defined
    is left out of its mean. The score may not depend on a threshold.

    Raises: ValueError if the true events differ.
    """
    every = [*ours, *theirs]
    for one in every:
        same = np.array_equal(one.true_label, every[0].true_label)
        if not (same and np.array_equal(one.true_block, every[0].true_block)):
            raise ValueError("a paired difference needs scores of the same true events")
    num = max(one.num_blocks for one in every)
    sides = [[replace(one, num_blocks=num).statistics(0.5)[metric] for one in side] for side in (ours, theirs)]

    def statistic(w_RG: np.ndarray) -> np.ndarray:
        first, second = (_mean_of([one(w_RG) for one in side]) for side in sides)
        return first - second

    return bootstrap_interval(statistic, np.arange(num))


def _in_chunks(statistic: Statistic, num_events: int) -> Statistic:
    """Return a statistic that looks at a few resamples at a time: thousands with all events need much memory."""
    rows = max(CHUNK_CELLS // max(num_events, 1), 1)
    return lambda w: np.concatenate([statistic(w[lo : lo + rows]) for lo in range(0, len(w), rows)])


def _best_from_here(precision_RE: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(precision_RE[:, ::-1], axis=1)[:, ::-1]


def _precision_at(precision_RE: np.ndarray, recall_RE: np.ndarray, recall: float) -> np.ndarray:
    return np.where(recall_RE >= recall - 1e-9, precision_RE, 0.0).max(1, initial=0.0)


def _recall_at(precision_RE: np.ndarray, recall_RE: np.ndarray, precision: float) -> np.ndarray:
    return np.where(precision_RE >= precision, recall_RE, 0.0).max(1, initial=0.0)


def _then(
    curve: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], value: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Statistic:
    return lambda w: value(*curve(w))


def _mean_of(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over classes. A class without a true event is left out; without any true event it is NaN."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        return np.where(known, stacked, 0.0).sum(0) / known.sum(0)
