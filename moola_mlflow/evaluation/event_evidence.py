"""The evidence for an event detector: out-of-fold scores, paired differences, and the headline that they allow.

Each window is read by nets that were fitted without it. Its events have the calibration and the threshold that the
other folds choose; the detector's own rest on all folds. Repeats are averaged before groups of windows are resampled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from moola_mlflow.core import EventBaselines, Metrics
from moola_mlflow.evaluation.bootstrap import Interval, bootstrap_interval
from moola_mlflow.evaluation.event_methods import EventSetting, left_out_event_baselines
from moola_mlflow.evaluation.event_scores import LEFT_OUT, ScoredEvents, score_held_out
from moola_mlflow.evaluation.evidence import DETECTOR, ORACLE_BASELINES, PATH_FEATURES, classify_gain, left_out_text
from moola_mlflow.evaluation.metrics import Statistic
from moola_mlflow.labels import EventLabels
from moola_mlflow.models import EventFit, HeldOutFit

MAP = "map"
TABLE_METRICS = (MAP, "f1", "precision", "recall")
EVENT_TITLES = {
    DETECTOR: "detector",
    EventBaselines.RANDOM_ENCODER: "random encoder, same inputs and nets",
    EventBaselines.SCRATCH: "encoder trained from scratch, same inputs and nets",
    EventBaselines.PATH_FEATURES: "path features alone, same nets",
    EventBaselines.HAND_MADE: "path and hand-made features, same nets",
    EventBaselines.SPAN_NETS: "path features, span detector without rejects, averaged",
    EventBaselines.SPAN_HITS: "path features, span detector without rejects, merged hits",
    EventBaselines.BOOSTED_STEPS: "path features of single steps, gradient boosting",
    EventBaselines.RULE: "the rule that made the labels",
}
ALL_WINDOWS, RANDOM_WINDOWS = "all windows looked at", "the windows that were drawn at random"
QUERY_WINDOWS = "all windows looked at, none of them drawn at random"
CHANCE_DRAWS = 200


@dataclass(frozen=True)
class EventEvidence:
    """Scores and differences of an event detector and every baseline on the same folds."""

    labels: EventLabels
    seeds: list[tuple[int, int, int]]
    fits: dict[str, list[HeldOutFit]]
    scored: dict[str, list[ScoredEvents]]
    """Scored out-of-fold events of every method, by repeat."""
    detector: dict[str, Interval]
    """Every score of the detector."""
    table: dict[str, dict[str, Interval]]
    """Scores of every method, the detector's first."""
    differences: dict[str, Interval]
    """Differences in mAP of the detector to each baseline."""
    ece_if_calibrated: float
    """Mean calibration error of a perfectly calibrated detector with these scores."""
    num_groups: int
    """Groups of overlapping windows that are scored; intervals resample them."""
    scored_on: str
    """Which windows are scored: ``ALL_WINDOWS``, ``RANDOM_WINDOWS`` or ``QUERY_WINDOWS``."""
    pretrained: bool
    """Whether the detector reads a pre-trained encoder."""
    left_out: tuple[str, ...] = ()
    """Baselines that ``cv.baselines=quick`` left out."""

    @property
    def fit(self) -> EventFit:
        """The first fit of the detector: the one that is kept."""
        fit = self.fits[DETECTOR][0]
        assert isinstance(fit, EventFit)
        return fit

    @property
    def num_in_margin(self) -> int:
        """Labelled events that are not scored, because their centre lies in a margin of their window."""
        return len(self.fit.held.in_margin)

    @cached_property
    def best_baseline(self) -> str | None:
        """The baseline with the highest mAP; None if there is none. The rule that made weak labels does not count."""
        rivals = [name for name in self.differences if name not in ORACLE_BASELINES]
        return max(rivals, key=lambda name: self.table[name][MAP].mean, default=None)

    def recall(self) -> dict[str, Interval]:
        """Return the recall of each class at the threshold."""
        return {name: self.detector[f"recall_{name}"] for name in self.labels.classes}

    def metrics(self) -> dict[str, float]:
        """Return the metrics to track; undefined figures are left out."""
        out: dict[str, float] = {}
        for name, interval in self.detector.items():
            out |= interval.named(f"{Metrics.CV}{name}")
        out[Metrics.CV_EVENT_ECE_IF_CALIBRATED] = self.ece_if_calibrated
        out[Metrics.LABELS_GROUPS] = self.num_groups
        out[Metrics.EVENT_THRESHOLD] = self.fit.detector.threshold
        if self.best_baseline is not None:
            out |= self.differences[self.best_baseline].named(Metrics.CV_DELTA_MAP)
        for method in self.differences:
            out |= {f"{Metrics.BASELINE}{method}/{name}": self.table[method][name].mean for name in TABLE_METRICS}
        return {name: value for name, value in out.items() if math.isfinite(value)}

    def gate_figures(self) -> dict[str, Any]:
        """Return the figures that gates check."""
        best = self.best_baseline
        single = {name: self.detector[name].mean for name in (MAP, "precision", "event_ece")}
        return {
            "kind": "event",
            **_finite({**single, "event_ece_if_calibrated": self.ece_if_calibrated}),
            "recall": _finite({name: interval.mean for name, interval in self.recall().items()}),
            "delta_map": _plain(self.differences[best]) if best else None,
            "delta_against": best,
            "delta_compared": list(self.differences),
            "left_out": list(self.left_out),
            "pretrained": self.pretrained,
        }

    def summary(self) -> dict[str, Any]:
        """Return the content of ``cv_summary.json``, apart from the configuration."""
        return {
            "kind": "event",
            "avg_metrics": {name: _plain(interval) for name, interval in self.detector.items()},
            "fold_results": [
                {
                    "seed": seed, "repeat": repeat, "threshold": fit.detector.threshold,
                    "temperature": fit.detector.temperature,
                    "calibration": [fit.detector.calibration.slope, fit.detector.calibration.offset],
                    **_finite(scored.scores(fit.detector.threshold)),
                }
                for (seed, repeat, _), fit, scored in zip(
                    self.seeds, self.fits[DETECTOR], self.scored[DETECTOR], strict=True
                )
            ],
            "baselines": {
                method: {name: _plain(interval) for name, interval in self.table[method].items()}
                for method in self.differences
            },
            "differences": {method: {MAP: _plain(gain)} for method, gain in self.differences.items()},
            "best_baseline": self.best_baseline,
            "num_groups": self.num_groups,
            "num_windows": len(self.labels),
            "counts": self.labels.counts(),
            "scored_on": self.scored_on,
            "events_in_margin": self.num_in_margin,
            "pretrained": self.pretrained,
            "left_out": list(self.left_out),
            "event_ece_if_calibrated": self.ece_if_calibrated,
            "headline": self.headline(),
        }  # fmt: skip

    def headline(self) -> str:
        """Return how good the detector is, whether it beats the best baseline, and which baselines were left out."""
        return f"{self._claim()}{left_out_text(self.left_out)}"

    def _claim(self) -> str:
        found, at = self.detector[MAP].text(), self.fit.detector.threshold
        precision, recall = self.detector["precision"].mean, self.detector["recall"].mean
        if math.isnan(precision):
            text = f"mAP {found} out of fold; no held-out event reaches the threshold"
        else:
            text = (
                f"mAP {found} out of fold; at the threshold of each fold, precision {precision:.2f} and recall "
                f"{recall:.2f} (the detector's own is {at:.2f})"
            )
        if self.best_baseline is None:
            return f"No pre-training in this detector, and no baseline to compare with: {text}."
        gain = self.differences[self.best_baseline]
        # Without an encoder, and without other inputs than path features, there is nothing whose gain could be claimed.
        alone = not self.pretrained and PATH_FEATURES not in self.differences
        kind = "No pre-training in this detector" if alone else classify_gain(gain).capitalize()
        return f"{kind}: {gain.text('+')} mAP against the best baseline ({EVENT_TITLES[self.best_baseline]}). {text}."

    def rows(self, method: str = DETECTOR) -> list[dict[str, Any]]:
        """Return the out-of-fold predictions of a method: one row for each window and repeat.

        ``found`` counts the events at or above the threshold that the other folds choose, ``right`` those of them that
        match a labelled event.
        """
        out, num_events = [], self.labels.events_per_window()
        for (seed, repeat, _), fit in zip(self.seeds, self.fits[method], strict=True):
            _, kept = fit.out_of_fold()
            found = np.bincount(fit.held.window[kept], minlength=len(self.labels))
            right = np.bincount(fit.held.window[kept & (fit.held.matched >= 0)], minlength=len(self.labels))
            names = [*self.labels.classes, "none"]
            for i in range(len(self.labels)):
                p = fit.held.probability[i]
                out.append(
                    {
                        "window_id": str(self.labels.window_id[i]), "seed": seed, "repeat": repeat + 1,
                        "events": int(num_events[i]), "found": int(found[i]), "right": int(right[i]),
                        "predicted": names[int(p.argmax())],
                        **{f"p_{name}": round(float(value), 6) for name, value in zip(names, p, strict=True)},
                    }
                )  # fmt: skip
        return out

    def scored_events(self) -> dict[str, Any]:
        """Return the detector's out-of-fold events, judged, and the labelled ones: enough for mAP and its interval.

        A group is a group of overlapping windows. Masses rank the events of a draw.
        """
        scored = self.scored[DETECTOR]
        return {
            "classes": list(self.labels.classes),
            "num_groups": self.num_groups,
            "true": {"label": scored[0].true_label.tolist(), "group": scored[0].true_block.tolist()},
            "draws": [
                {
                    "seed": seed, "repeat": repeat + 1, "label": one.label.tolist(), "group": one.block.tolist(),
                    "mass": (one.score if one.order is None else one.order).tolist(), "right": one.right.tolist(),
                }
                for (seed, repeat, _), one in zip(self.seeds, scored, strict=True)
            ],
        }  # fmt: skip

    def baseline_rows(self) -> list[dict[str, Any]]:
        """Return the out-of-fold predictions of every baseline, with ``method`` before the columns of ``rows``."""
        return [{"method": name, **row} for name in self.fits if name != DETECTOR for row in self.rows(name)]


def collect_event_evidence(setting: EventSetting, fits: Mapping[str, list[HeldOutFit]]) -> EventEvidence:
    """Score the detector, every baseline and their differences, with 95 % intervals over groups of windows.

    Windows that a query chose are harder or easier than those that a scan meets. Where the labels say how windows were
    drawn, only those drawn at random are scored.
    """
    labels = setting.labels
    kept = labels.scored_windows()
    scored = {name: [score_held_out(fit, labels, kept) for fit in rows] for name, rows in fits.items()}
    thresholds = {name: [fit.detector.threshold for fit in rows] for name, rows in fits.items()}
    groups = np.arange(scored[DETECTOR][0].num_blocks)

    def statistic(method: str, metric: str) -> Statistic:
        each = [one.statistics(t)[metric] for one, t in zip(scored[method], thresholds[method], strict=True)]
        return lambda w: _mean_of_known(np.stack([value(w) for value in each]))

    def interval(method: str, metric: str) -> Interval:
        return bootstrap_interval(statistic(method, metric), groups)

    names = list(scored[DETECTOR][0].statistics(0.5))
    detector = {name: interval(DETECTOR, name) for name in names}
    table = {DETECTOR: {name: detector[name] for name in TABLE_METRICS}}
    differences = {}
    for method in scored:
        if method == DETECTOR:
            continue
        table[method] = {name: interval(method, name) for name in TABLE_METRICS}
        ours, theirs = statistic(DETECTOR, MAP), statistic(method, MAP)
        differences[method] = bootstrap_interval(lambda w, a=ours, b=theirs: a(w) - b(w), groups)  # type: ignore[misc]
    return EventEvidence(
        labels=labels,
        seeds=setting.seeds(),
        fits=dict(fits),
        scored=scored,
        detector=detector,
        table=table,
        differences=differences,
        ece_if_calibrated=float(_mean_of_known(np.array([[error_by_chance(one)] for one in scored[DETECTOR]]))[0]),
        num_groups=len(groups),
        scored_on=_scored_on(labels),
        pretrained=setting.reads_encoding,
        left_out=tuple(left_out_event_baselines(setting)),
    )


def _scored_on(labels: EventLabels) -> str:
    at_random = labels.drawn_at_random()
    return ALL_WINDOWS if at_random.all() else RANDOM_WINDOWS if at_random.any() else QUERY_WINDOWS


def _mean_of_known(values_MR: np.ndarray) -> np.ndarray:
    """Return the mean over repeats; a repeat in which a figure is not defined is left out. Shapes: [M, R] -> [R]."""
    known_MR = ~np.isnan(values_MR)
    with np.errstate(invalid="ignore"):
        return np.where(known_MR, values_MR, 0.0).sum(0) / known_MR.sum(0)


def error_by_chance(scored: ScoredEvents, seed: int = 0) -> float:
    """Return the mean calibration error if each event were right with exactly the probability of its score."""
    rng, ones = np.random.default_rng(seed), np.ones((1, scored.num_blocks))
    judged = scored.right != LEFT_OUT
    errors = []
    for _ in range(CHANCE_DRAWS):
        right = np.where(judged, (rng.random(len(scored.score)) < scored.score).astype(int), LEFT_OUT)
        errors.append(replace(scored, right=right).statistics(0.5)["event_ece"](ones)[0])
    return float(np.nanmean(errors)) if not np.isnan(errors).all() else math.nan


def _plain(interval: Interval) -> dict[str, float | None]:
    return _finite(interval._asdict())


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return figures with None for each that is undefined: JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
