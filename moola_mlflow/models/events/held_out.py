"""What a method says of windows that it was not fitted on, and what is chosen on it: calibration and threshold.

The calibration and the threshold of a detector are chosen on all events that the folds held out. Scores of the same
events would then look better than on new bars. So each fold's events are scored with what the other folds choose.

Shape legend: N windows looked at, C classes, T steps, E found events.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from moola_mlflow.core import UserError, mixed_seed
from moola_mlflow.models.calibration import temperature
from moola_mlflow.models.events.event_detector import LEAST, Reading
from moola_mlflow.models.events.fitting import EventSettings
from moola_mlflow.models.events.matching import EventTable, match_events, near_any
from moola_mlflow.models.events.peaks import MARGIN, on_axis, window_events
from moola_mlflow.models.events.score_calibration import ScoreCalibration, threshold_for
from moola_mlflow.models.events.window_folds import window_folds

if TYPE_CHECKING:
    from moola_mlflow.labels import EventLabels


class Calibrated(Protocol):
    """What scores need of a detector or of a baseline."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def temperature(self) -> float: ...
    @property
    def calibration(self) -> ScoreCalibration: ...
    @property
    def threshold(self) -> float: ...


@dataclass(frozen=True)
class Choices:
    """What is chosen on held-out predictions. A baseline has nothing else: it scans no bars."""

    classes: tuple[str, ...]
    temperature: float
    """Calibrates the probabilities of a window."""
    calibration: ScoreCalibration
    """Calibrates the scores of events."""
    threshold: float


@dataclass(frozen=True)
class HeldOut:
    """Predictions of nets for the windows that they were not fitted on. The detector itself averages more nets.

    Shapes: probability float64 [N, C + 1], not calibrated, the last column none. ``found`` and ``true`` are events on
    the axis of ``window_events``. ``window`` int64 and ``matched`` int64 have one number for each found event: its
    window, and its true event or -1. ``judged`` bool: whether a found event counts in calibration and threshold.
    """

    probability: np.ndarray
    found: EventTable
    window: np.ndarray
    true: EventTable
    """Labelled events, without those in a margin."""
    matched: np.ndarray
    judged: np.ndarray
    in_margin: EventTable
    """Labelled events whose centre lies in a margin. No map is read there, so they are neither found nor missed, and a
    found event near one is neither right nor wrong."""
    maps: np.ndarray
    """The maps of each window. Shapes: float32 [N, 3, C, T]."""
    start: np.ndarray
    end: np.ndarray
    """The most probable span of each class. Shapes: int64 [N, C] each."""


@dataclass(frozen=True)
class HeldOutFit:
    """What the folds of a method held out, and what was chosen on it."""

    detector: Calibrated
    held: HeldOut
    fold: np.ndarray
    """The fold of each window. Shapes: int64 [N]."""
    precision: float | None
    """What each threshold is chosen for; None if labels calibrate nothing."""

    def out_of_fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the score of each found event, and whether it reaches the threshold.

        Calibration and threshold of a fold are chosen on the events of the other folds. The detector's own are chosen
        on all of them.

        Shapes: float64 [E], bool [E].
        """
        held, detector = self.held, self.detector
        if self.precision is None:
            score = detector.calibration.apply(held.found.score)
            return score, score >= detector.threshold
        score, above = np.zeros(len(held.found)), np.zeros(len(held.found), bool)
        fold_E = self.fold[held.window]
        for fold in np.unique(fold_E):
            own = fold_E == fold
            calibration, threshold = choose(held, held.judged & ~own, self.precision)
            score[own] = calibration.apply(held.found.score[own])
            above[own] = score[own] >= threshold
        return score, above


def cross_read(
    labels: EventLabels,
    settings: EventSettings,
    seed: int,
    read: Callable[[np.ndarray, np.ndarray, int], Reading],
    on_fit: Callable[[int, int], None] | None = None,
) -> HeldOutFit:
    """Fit a baseline without each fold and read the fold with it. The same seed gives every method the same folds.

    ``read(train, test, seed)`` fits on the windows of ``train`` and returns the predictions of those of ``test``.
    ``on_fit`` is called with the number of fits done and of all fits.

    Raises: UserError if there are too few windows or events for the folds, or no event to score.
    """
    fold_N = window_folds(labels, settings.folds, seed)
    check_scored(labels)
    held = []
    for fold in range(settings.folds):
        train, test = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
        held.append((test, read(train, test, mixed_seed(seed, fold))))
        if on_fit is not None:
            on_fit(fold + 1, settings.folds)
    joined = held_out(labels, held)
    return HeldOutFit(choices(labels, joined, settings.precision), joined, fold_N, settings.precision)


def one_hit_a_window(fit: HeldOutFit, labels: EventLabels) -> HeldOutFit:
    """Return the same predictions read as merged hits: in each window the most probable class at its span alone.

    The score of a hit is the probability of its class. A hit in a margin is dropped. This is how `detect` reads a span
    detector, before it merges the hits of windows that overlap.

    Raises: ValueError if labels calibrated nothing, because the scores of hits are others.
    """
    held, num_steps = fit.held, labels.ohlc.shape[1]
    if fit.precision is None:
        raise ValueError("the hits of a fit that no label calibrated have no scores")
    reading = Reading(held.probability, held.maps, held.start, held.end)
    label, rows = held.probability[:, :-1].argmax(1), np.arange(len(held.probability))
    start, end, score = (column[rows, label] for column in (held.start, held.end, held.probability))
    inside = np.flatnonzero(_inside((start + end) / 2, num_steps))
    first, last = (on_axis(inside, ends[inside], num_steps) for ends in (start, end))
    hits = judged_events(labels, reading, EventTable(label[inside], first, last, score[inside]), inside)
    return HeldOutFit(choices(labels, hits, fit.precision), hits, fit.fold, fit.precision)


def check_scored(labels: EventLabels) -> None:
    """Check that there is an event to score. Raises: UserError."""
    scored, inside = labels.scored_windows()[labels.window], ~in_margin(labels)
    if (scored & inside).any():
        return
    if inside.any():
        raise UserError(
            f"{labels.num_events} labelled events lie in windows that a query chose, and scores need events in windows "
            "drawn at random; look at more windows that are drawn at random"
        )
    raise UserError(
        f"all {labels.num_events} labelled events have their centre in the first or last {MARGIN} bars of their "
        "window, where an event detector does not look; cut windows that hold the events further inside"
    )


def held_out(labels: EventLabels, held: Sequence[tuple[np.ndarray, Reading]]) -> HeldOut:
    """Return the predictions of all folds, in the order of the windows: each has its windows and their predictions."""
    order = np.argsort(np.concatenate([test for test, _ in held]))
    reading = Reading(
        *(np.concatenate([getattr(one, f.name) for _, one in held])[order] for f in dataclasses.fields(Reading))
    )
    return judged_events(labels, reading, *window_events(reading.maps))


def judged_events(labels: EventLabels, reading: Reading, found: EventTable, window: np.ndarray) -> HeldOut:
    """Match found events with the labelled ones. Each window is read by what was fitted without it.

    Shapes: window int64 [E], the window of each found event.
    """
    true, outside = true_events(labels), _on_axis(labels, in_margin(labels))
    matched = match_events(found, true)
    judged = ((matched >= 0) | ~near_any(found, outside)) & labels.scored_windows()[window]
    return HeldOut(
        reading.probability, found, window, true, matched, judged, outside, reading.maps, reading.start, reading.end
    )


def true_events(labels: EventLabels) -> EventTable:
    """Return the labelled events on the axis of ``window_events``, without those whose centre lies in a margin."""
    return _on_axis(labels, ~in_margin(labels))


def in_margin(labels: EventLabels) -> np.ndarray:
    """Return whether the centre of each labelled event lies in a margin. Shapes: bool [E]."""
    return ~_inside((labels.start + labels.end) / 2, labels.ohlc.shape[1])


def _inside(centre_E: np.ndarray, num_steps: int) -> np.ndarray:
    return (centre_E >= MARGIN) & (centre_E <= num_steps - 1 - MARGIN)


def _on_axis(labels: EventLabels, kept: np.ndarray) -> EventTable:
    num_steps = labels.ohlc.shape[1]
    start, end = (on_axis(labels.window, step, num_steps)[kept] for step in (labels.start, labels.end))
    return EventTable(labels.label[kept], start, end, np.ones(len(start)))


def choose(held: HeldOut, counted: np.ndarray, precision: float) -> tuple[ScoreCalibration, float]:
    """Return the calibration of some found events, and the threshold. Shapes: counted bool [E]."""
    mass, right = held.found.score[counted], held.matched[counted] >= 0
    calibration = ScoreCalibration.of(mass, right)
    return calibration, threshold_for(calibration.apply(mass), right, precision)


def choices(labels: EventLabels, held: HeldOut, precision: float) -> Choices:
    """Return temperature, calibration and threshold from what the folds held out.

    Windows that a query chose count only if no window was drawn at random.
    """
    calibration, threshold = choose(held, held.judged, precision)
    # A window counts once for each of its events, and a window without one as none.
    empty = np.setdiff1d(np.arange(len(labels)), labels.window)
    rows = np.concatenate([labels.window, empty])
    label = np.concatenate([labels.label, np.full(len(empty), len(labels.classes))])
    counted = labels.scored_windows()[rows]
    rows, label = rows[counted], label[counted]
    warmth = temperature(np.log(np.maximum(held.probability[rows], LEAST)), label)
    return Choices(labels.classes, warmth, calibration, threshold)
