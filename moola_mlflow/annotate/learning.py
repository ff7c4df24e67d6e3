"""What the background process computes: fit a detector on the decisions so far, score it, and read other windows.

It is fitted as fast as it can be useful: joint nets alone, three folds. Its mAP is that of the blind part, the windows
that were drawn at random and shown without suggestions. None is weighted: they are a fair sample of the windows that no
query has taken, so of all windows while queries have taken few. Each is scored by nets that were not fitted on it.

Shape legend: N windows with a label, M other windows, T bars.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from moola_mlflow.annotate.decisions import MarkedEvent
from moola_mlflow.core import UserError
from moola_mlflow.labels import NONE, EventLabels

if TYPE_CHECKING:
    from moola_mlflow.models import EventDetector, EventFit

MOST_FITTED = 1500
"""Labelled windows that a fit reads. Of more, a random part: time and memory stay as they are."""
FOLDS = 3
LEAST_SCORE = 0.2
"""Least calibrated score of an event that is suggested."""
MOST_SUGGESTED = 5
MOST_MISTAKES = 3


@dataclass(frozen=True)
class LearningTask:
    """Windows with labels to learn from, and other windows to read.

    Shapes: blind bool [N], the windows that scores are computed on; rows int64 [M] and ohlc [M, T, 4], the windows to
    read. Without labels a detector reads them that is given by its URI.
    """

    labels: EventLabels | None
    blind: np.ndarray
    rows: np.ndarray
    ohlc: np.ndarray
    seed: int
    encoder: str = ""
    detector: str = ""
    review: bool = False
    """Whether to return what out-of-fold predictions say about each labelled window."""


@dataclass(frozen=True)
class Learned:
    """What a detector found in windows.

    Shapes: top float64 [M], the mass of the best event of each window, 0 if there is none.
    """

    rows: np.ndarray
    top: np.ndarray
    events: list[list[dict[str, Any]]]
    map: float | None = None
    """Mean average precision of the blind part out of fold; None if it holds no event."""
    reviews: list[dict[str, Any]] = field(default_factory=list)
    """What is said about each labelled window, if a review was asked for: the one to look at first is the first."""
    card: dict[str, Any] = field(default_factory=dict)


def learn(task: LearningTask) -> Learned:
    """Fit on the labels of a task, or load its detector, and read its windows.

    Raises: UserError if there are too few windows or events to fit on, or if the detector cannot be loaded.
    """
    if task.labels is None:
        return read_windows(load_event_detector(task.detector, task.ohlc.shape[1]), task)
    labels, blind = _at_most(task)
    fit = _fit(labels, task)
    learned = read_windows(fit.detector, task)
    reviews = review_of(fit, labels) if task.review else []
    return Learned(learned.rows, learned.top, learned.events, blind_map(fit, labels, blind), reviews)


def load_event_detector(uri: str, length: int) -> EventDetector:
    """Load the detector that orders the first windows. Raises: UserError if it is of another kind or length."""
    from moola_mlflow.models import EventDetector
    from moola_mlflow.tracking import load_detector

    detector = load_detector(uri)
    if not isinstance(detector, EventDetector):
        raise UserError(
            f"detector='{uri}' is a span detector, which names a class in every window; give an event detector, or none"
        )
    if detector.length != length:
        raise UserError(f"detector='{uri}' reads windows of {detector.length} bars, not {length}; set windows.length")
    return detector


def read_windows(detector: EventDetector, task: LearningTask) -> Learned:
    """Return the events that a detector finds in the windows of a task."""
    from moola_mlflow.models import window_events

    num, length = len(task.rows), task.ohlc.shape[1]
    top, events = np.zeros(num), [list[dict[str, Any]]() for _ in range(num)]
    if num:
        found, window = window_events(detector.read(task.ohlc).maps)
        np.maximum.at(top, window, found.score)
        score = detector.calibration.apply(found.score)
        for k in np.argsort(-score, kind="stable").tolist():
            own = events[int(window[k])]
            start, end = int(found.start[k]) % length, int(found.end[k]) % length
            if score[k] >= LEAST_SCORE and len(own) < MOST_SUGGESTED and start < end:
                label = detector.classes[int(found.label[k])]
                own.append({"label": label, "start": start, "end": end, "score": round(float(score[k]), 4)})
    return Learned(task.rows, top, events, card={"classes": detector.classes})


def blind_map(fit: EventFit, labels: EventLabels, blind: np.ndarray) -> float | None:
    """Return the out-of-fold mAP of the blind windows, None without an event in them. Shapes: bool [N]."""
    from moola_mlflow.evaluation import score_held_out

    if not blind[labels.window].any():
        return None
    value = score_held_out(fit, labels, blind).scores(fit.detector.threshold)["map"]
    return float(value) if np.isfinite(value) else None


def review_of(fit: EventFit, labels: EventLabels) -> list[dict[str, Any]]:
    """Return what out-of-fold predictions say about each labelled window, the least believable label first.

    The self-confidence of a window is the probability that nets which were not fitted on it give to its label: the
    least of its classes, or none. A window with a false hit or a miss says so.

    Source: C. Northcutt, L. Jiang, I. Chuang, Confident Learning, 2021, section 4 (self-confidence).
    """
    from moola_mlflow.models import apply_temperature

    held, length = fit.held, labels.ohlc.shape[1]
    probability = apply_temperature(np.log(np.maximum(held.probability, 1e-12)), fit.detector.temperature)
    confidence = probability[:, -1].copy()
    confidence[labels.window] = 1.0
    np.minimum.at(confidence, labels.window, probability[labels.window, labels.label])
    score, above = fit.out_of_fold()
    hit = np.zeros(len(held.true), bool)
    hit[held.matched[above & (held.matched >= 0)]] = True
    missed = np.zeros(len(labels), bool)
    missed[held.true.start[~hit] // length] = True
    false = np.zeros(len(labels), bool)
    false[held.window[above & (held.matched < 0)]] = True
    found: list[list[dict[str, Any]]] = [[] for _ in range(len(labels))]
    for k in np.argsort(-score, kind="stable").tolist():
        own = found[int(held.window[k])]
        if (above[k] or score[k] >= LEAST_SCORE) and len(own) < MOST_MISTAKES:
            label = fit.detector.classes[int(held.found.label[k])]
            start, end = int(held.found.start[k]) % length, int(held.found.end[k]) % length
            own.append({"label": label, "start": start, "end": end, "score": round(float(score[k]), 4)})
    reviews = []
    for i in np.argsort(confidence, kind="stable").tolist():
        kind = "false hit" if false[i] else "miss" if missed[i] else "label"
        names = [labels.classes[k] for k in labels.label[labels.window == i].tolist()] or [NONE]
        text = f"Out of fold, this label ({', '.join(names)}) has the probability {confidence[i]:.2f}."
        given = [MarkedEvent(labels.classes[k], s, e) for k, s, e in _events_of(labels, i)]
        said = [{"label": one.label, "start": one.start, "end": one.end} for one in given]
        reviews.append({"window": i, "kind": kind, "given": said, "predicted": found[i], "text": text})
    return reviews


def _events_of(labels: EventLabels, window: int) -> list[tuple[int, int, int]]:
    at = np.flatnonzero(labels.window == window)
    return [tuple(one) for one in np.stack([labels.label[at], labels.start[at], labels.end[at]], 1).tolist()]


def _at_most(task: LearningTask) -> tuple[EventLabels, np.ndarray]:
    """Return the labels that a fit reads, and which of them are blind."""
    labels, num = task.labels, MOST_FITTED
    assert labels is not None
    if len(labels) <= num or task.review:
        return labels, task.blind
    kept = np.sort(np.random.default_rng([task.seed, len(labels)]).permutation(len(labels))[:num])
    return labels.select(kept), task.blind[kept]


def _fit(labels: EventLabels, task: LearningTask) -> EventFit:
    from moola_mlflow.models import Ensemble, EventSettings, EventSource, fit_event_detector

    if not labels.num_events:
        raise UserError("no window with an event is labelled yet")
    source = EventSource()
    if task.encoder:
        from moola_mlflow.tracking import load_encoders

        encoders = [encoder for _, encoder in load_encoders(task.encoder)]
        source = EventSource("both", encoders[0] if len(encoders) == 1 else Ensemble(encoders))
    settings = EventSettings(nets=("joint",), folds=FOLDS)
    return fit_event_detector(labels, source, settings, task.seed)
