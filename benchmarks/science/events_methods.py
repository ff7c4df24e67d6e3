"""The event detectors that events_study.py compares: each is fitted on windows looked at and then scans bars.

Baselines get what the event detector gets: windows without an event (if they can use them), windows upside down, five
folds that are averaged, averaged maps, and a calibration on what the folds held out.

Shape legend: N windows, C classes, T steps, P inputs a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from moola_mlflow.bars import Bars
from moola_mlflow.evaluation.crossval import fresh_copy
from moola_mlflow.labels import EventLabels, Rule, RuleWindows, Targets
from moola_mlflow.models import EventSettings, EventSource, EventTable, Unlabelled, fit_event_detector, match_events
from moola_mlflow.models.detector import detector_inputs
from moola_mlflow.models.events.belief import span_logits
from moola_mlflow.models.events.event_detector import EventPart, read_inputs
from moola_mlflow.models.events.held_out import true_events
from moola_mlflow.models.events.nets import NetShape
from moola_mlflow.models.events.peaks import MARGIN, MeanMaps, events_of, window_events
from moola_mlflow.models.events.score_calibration import ScoreCalibration, threshold_for
from moola_mlflow.models.events.window_folds import window_folds
from moola_mlflow.models.scanning import merge_overlaps, scan_windows
from moola_mlflow.training.head import HeadInputs, HeadSettings, fit_head
from moola_mlflow.windows import mirrored

FOLDS, PRECISION, STRIDE, CHUNK = 5, 0.8, 21, 512
Maps = Callable[[np.ndarray], np.ndarray]
"""Prices [N, T, 4] -> maps [N, 3, C, T]."""


@dataclass(frozen=True)
class Fitted:
    """A detector that scans bars for events with calibrated scores."""

    maps: Maps
    calibration: ScoreCalibration
    threshold: float
    fit_cpu_s: float

    def scan(self, bars: Bars) -> EventTable:
        """Return all peaks with calibrated scores."""
        windows = scan_windows(bars, 105, STRIDE)
        mean: MeanMaps | None = None
        for index in np.split(np.arange(len(windows)), range(CHUNK, len(windows), CHUNK)):
            maps = self.maps(windows.gather(index))
            mean = mean or MeanMaps(maps.shape[2], len(bars))
            mean.add(maps, windows.starts[index])
        assert mean is not None
        found, _ = events_of(mean.mean())
        return replace(found, score=self.calibration.apply(found.score))


def event_detector(
    labels: EventLabels,
    source: EventSource,
    seed: int,
    nets: tuple[str, ...] = ("joint", "none_class"),
    unlabelled: Unlabelled | None = None,
) -> Fitted:
    """Fit the event detector of the package."""
    started, settings = time.process_time(), EventSettings(nets=nets, folds=FOLDS, precision=PRECISION)
    detector = fit_event_detector(labels, source, settings, seed, unlabelled=unlabelled).detector
    seconds = time.process_time() - started
    return Fitted(lambda ohlc: detector.read(ohlc).maps, detector.calibration, detector.threshold, seconds)


def random_encoder(labels: EventLabels, encoder: Any, seed: int) -> Fitted:
    """Fit the same nets on path features and on the encoding of the same architecture with random weights."""
    fresh = fresh_copy(encoder, seed)
    fresh.task_heads = None
    return event_detector(labels, EventSource("both", fresh), seed)


class SpanNet:
    """Today's span detector as a net without a none class. Its span heads were fitted on windows with one event."""

    def __init__(self, heads: Sequence[Any], shape: NetShape) -> None:
        self.heads, self.shape = heads, shape

    def read(self, x_BTP: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the mean belief of the heads: class at the decoded span times pointer mass."""
        beliefs = []
        for head in self.heads:
            output = head(x_BTP)
            start, end = output.pointers
            logits = span_logits(start[:, None], end[:, None], self.shape.lengths)[:, 0]
            spans = logits.flatten(1).softmax(1).view(logits.shape)
            beliefs.append(output.class_logits.softmax(1)[:, :, None, None] * spans[:, None])
        return torch.stack(beliefs).mean(0), None


def span_detector(labels: EventLabels, seed: int) -> tuple[Fitted, Callable[[Bars], EventTable]]:
    """Fit today's span detector: its averaged maps, and its merged hits ranked by probability."""
    started, spans = time.process_time(), labels.spans()
    targets, fold = Targets.of(spans), window_folds(EventLabels.of(spans), FOLDS, seed)
    inputs = HeadInputs(*(detector_inputs(None, "price_path", x) for x in (spans.ohlc, mirrored(spans.ohlc))))
    lengths = targets.span_lengths(np.arange(len(spans)))
    shape = NetShape(inputs.values.shape[-1], len(spans.classes), lengths)
    settings = HeadSettings(lengths=lengths)
    heads = [
        fit_head(inputs, targets, np.flatnonzero(fold != k), np.flatnonzero(fold == k), settings, seed + k).model
        for k in range(FOLDS)
    ]
    parts = [EventPart(SpanNet(heads, shape), (0, shape.num_inputs), 1.0)]

    def read(ohlc: np.ndarray) -> Any:
        return read_inputs(parts, detector_inputs(None, "price_path", ohlc))

    def merged(bars: Bars) -> EventTable:
        windows = scan_windows(bars, 105, STRIDE)
        readings = [
            read(windows.gather(i)) for i in np.split(np.arange(len(windows)), range(CHUNK, len(windows), CHUNK))
        ]
        probability, start, end = (
            np.concatenate([getattr(r, n) for r in readings]) for n in ("probability", "start", "end")
        )
        label, rows = probability[:, :-1].argmax(1), np.arange(len(windows))
        first, last, sure = start[rows, label], end[rows, label], probability[rows, label]
        inside = np.flatnonzero((first >= MARGIN) & (last < 105 - MARGIN))
        first, last = (windows.starts[inside] + ends[inside] for ends in (first, last))
        kept, _ = merge_overlaps(first, last, sure[inside], np.zeros(len(inside)))
        return EventTable(label[inside][kept], first[kept], last[kept], sure[inside][kept])

    return Fitted(lambda ohlc: read(ohlc).maps, ScoreCalibration(), 0.5, time.process_time() - started), merged


def boosted_steps(labels: EventLabels, seed: int) -> Fitted:
    """Fit gradient boosting on path features of single steps: a class within 3 bars of an event's centre, or none."""
    started, num_classes = time.process_time(), len(labels.classes)
    wanted = np.full(labels.ohlc.shape[:2], num_classes)
    for window, label, start, end in zip(labels.window, labels.label, labels.start, labels.end, strict=True):
        wanted[window, np.abs(2 * np.arange(105) - start - end) <= 6] = label
    sides = [detector_inputs(None, "price_path", x).numpy() for x in (labels.ohlc, mirrored(labels.ohlc))]
    fold = window_folds(labels, FOLDS, seed)
    length = float(np.mean(labels.end - labels.start))
    models, held = [], np.zeros((len(labels), 3, num_classes, 105))
    for k in range(FOLDS):
        x = np.concatenate([side[fold != k] for side in sides])
        model = HistGradientBoostingClassifier(max_iter=60, random_state=seed + k)
        model.fit(x.reshape(-1, x.shape[-1]), np.concatenate([wanted[fold != k]] * 2).ravel())
        models.append(model)
        held[fold == k] = _step_maps([model], sides[0][fold == k], length, num_classes)
    found, _ = window_events(held)
    right = match_events(found, true_events(labels)) >= 0
    calibration = ScoreCalibration.of(found.score, right)
    threshold = threshold_for(calibration.apply(found.score), right, PRECISION)

    def maps(ohlc: np.ndarray) -> np.ndarray:
        return _step_maps(models, detector_inputs(None, "price_path", ohlc).numpy(), length, num_classes)

    return Fitted(maps, calibration, threshold, time.process_time() - started)


def _step_maps(models: Sequence[Any], x_NTP: np.ndarray, length: float, num_classes: int) -> np.ndarray:
    flat = x_NTP.reshape(-1, x_NTP.shape[-1])
    mass = np.mean([model.predict_proba(flat)[:, :num_classes] for model in models], 0)
    mass_NCT = mass.reshape(*x_NTP.shape[:2], num_classes).swapaxes(1, 2)
    return np.stack([mass_NCT, -length / 2 * mass_NCT, length / 2 * mass_NCT], 1)


def rule_itself(rule: Rule) -> Fitted:
    """Return the rule as a detector at the same stride: what an oracle reaches that reads one window at a time."""

    def maps(ohlc: np.ndarray) -> np.ndarray:
        marked = rule.apply(RuleWindows(ohlc))
        out = np.zeros((len(ohlc), 3, len(rule.classes), 105))
        for i in np.flatnonzero(marked.labelled).tolist():
            start, end = marked.start[i], marked.end[i]
            steps = np.flatnonzero(np.abs(2 * np.arange(105) - start - end) <= 6)
            out[i, :, marked.outcome[i], steps] = np.stack([np.ones(len(steps)), start - steps, end - steps], 1)
        return out

    return Fitted(maps, ScoreCalibration(), 0.5, 0.0)
