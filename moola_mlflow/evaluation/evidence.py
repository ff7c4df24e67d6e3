"""The evidence of a cross-validation: scores, paired differences, and one sentence that says what may be claimed.

Repeats and seeds are averaged before windows are resampled, so each window counts once however often it was tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from moola_mlflow.core import Metrics
from moola_mlflow.evaluation import baselines
from moola_mlflow.evaluation.bootstrap import Interval, bootstrap_interval, intervals, paired_difference
from moola_mlflow.evaluation.crossval import FoldOutcome, pooled_predictions
from moola_mlflow.evaluation.folds import NestedFold
from moola_mlflow.evaluation.metrics import Predictions, ece_if_calibrated, scores
from moola_mlflow.labels import LabelledSet, overlap_groups

DETECTOR = "detector"
NETWORKS = ("scratch", "random_encoder")
"""Networks without pre-training. They read what the detector reads, or an encoding if it reads path features alone."""
WITHOUT_PRETRAINING = (*NETWORKS, "pooled_scratch")
"""Baselines that train an encoder or read a random one. ``cv.baselines=quick`` leaves them out."""
ORACLE_BASELINES = ("rule",)
"""They know how weak labels are made. On weak labels they are shown but never count as the best baseline."""
PATH_FEATURES = "path_features"
HEADLINE_METRICS = ("joint_success_at_3", "f1_macro")
TABLE_METRICS = ("f1_macro", "joint_success_at_3", "hit_at_3", "auroc")
TITLES = {
    "detector": "detector",
    "scratch": "same network, trained from scratch",
    "random_encoder": "frozen random encoder, same head",
    "path_features": "path features alone, same head",
    "hand_made": "path and hand-made features, same head",
    "pooled_scratch": "pooled head, from scratch (as published)",
    **baselines.TITLES,
}
OTHER_INPUT_TITLES = {
    "scratch": "encoding from scratch, not path features",
    "random_encoder": "frozen random encoding, not path features",
}
"""Titles of the networks if the detector reads path features alone: they read other inputs."""


GainClass = Literal["gain", "loss", "no gain"]


def classify_gain(*gains: Interval) -> GainClass:
    """Return ``gain`` if every interval lies above 0, ``loss`` if the first lies below 0, else ``no gain``."""
    if all(gain.lo > 0 for gain in gains):
        return "gain"
    return "loss" if gains[0].hi < 0 else "no gain"


@dataclass(frozen=True)
class Evidence:
    """Scores and differences of the detector and every baseline on the same folds."""

    labels: LabelledSet
    folds: list[NestedFold]
    outcomes: dict[str, list[FoldOutcome]]
    predictions: dict[str, Predictions]
    uncalibrated: Predictions
    """Predictions of the detector before temperature scaling."""
    detector: dict[str, Interval]
    """Every score of the detector."""
    std: dict[str, float]
    """Standard deviation of the detector's scores over folds, repeats and seeds."""
    table: dict[str, dict[str, Interval]]
    """Scores of every method, the detector's first."""
    differences: dict[str, dict[str, Interval]]
    """Differences of the detector to each baseline."""
    ece_before: float
    ece_if_calibrated: float
    """Mean ECE of a perfectly calibrated detector with these probabilities on as many windows."""
    num_groups: int
    """Groups of overlapping windows; intervals resample them."""
    pretrained: bool = True
    """Whether the detector reads a pre-trained encoder."""
    fold_scores: list[dict[str, float]] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    """Baselines that ``cv.baselines=quick`` left out."""

    @property
    def same_inputs(self) -> bool:
        """Whether the networks without pre-training read what the detector reads.

        They do not if the detector reads path features alone; path features are then no baseline of it.
        """
        return self.pretrained or PATH_FEATURES in self.differences

    def title(self, method: str) -> str:
        """Return the title of a method in a table with this detector."""
        return TITLES[method] if self.same_inputs else OTHER_INPUT_TITLES.get(method, TITLES[method])

    def best_network(self, metric: str = "joint_success_at_3") -> str | None:
        """Return the stronger network without pre-training."""
        return self._best([name for name in NETWORKS if name in self.differences], metric)

    def best_baseline(self, metric: str = "joint_success_at_3") -> str | None:
        """Return the strongest baseline without pre-training, path features included, oracles excluded."""
        return self._best(self._competitors(), metric)

    def _competitors(self) -> list[str]:
        """Return the baselines that may count as the best one."""
        oracles = ORACLE_BASELINES if self.labels.weak else ()
        return [name for name in self.differences if name not in oracles]

    def _best(self, names: Sequence[str], metric: str) -> str | None:
        return max(names, key=lambda name: self.table[name][metric].mean, default=None)

    def recall(self) -> dict[str, Interval]:
        """Return the detector's recall of each class."""
        return {name: self.detector[f"recall_{name}"] for name in self.labels.classes}

    def epochs(self) -> int:
        """Return the number of epochs for a fit on all labels: the median of the folds' choices."""
        return round(float(np.median([outcome.best_epoch + 1 for outcome in self.outcomes[DETECTOR]])))

    def temperature(self) -> float:
        """Return the temperature for a fit on all labels: the geometric mean over the folds."""
        return math.exp(float(np.mean([math.log(outcome.temperature) for outcome in self.outcomes[DETECTOR]])))

    def metrics(self) -> dict[str, float]:
        """Return the metrics to track; undefined figures are left out."""
        out: dict[str, float] = {}
        for name, interval in self.detector.items():
            out |= interval.named(f"{Metrics.CV}{name}")
            out[f"{Metrics.CV}{name}_std"] = self.std[name]
        out[Metrics.CV_ECE_BEFORE_TEMPERATURE] = self.ece_before
        out[Metrics.CV_ECE_IF_CALIBRATED] = self.ece_if_calibrated
        for prefix, best in ((Metrics.CV_DELTA, self.best_network), (Metrics.CV_DELTA_BEST, self.best_baseline)):
            for name in HEADLINE_METRICS:
                if baseline := best(name):
                    out |= self.differences[baseline][name].named(f"{prefix}{name}")
        out[Metrics.LABELS_GROUPS] = self.num_groups
        for method in self.differences:
            out |= {f"{Metrics.BASELINE}{method}/{name}": self.table[method][name].mean for name in TABLE_METRICS}
        return {name: value for name, value in out.items() if math.isfinite(value)}

    def gate_figures(self, identity: bool | None) -> dict[str, Any]:
        """Return the figures that gates check. Among the gains over networks it is the one with the lowest interval.

        ``identity`` says whether an encoder was trained to copy what it sees; None means unknown.
        """
        gains = {name: self.differences[name]["joint_success_at_3"] for name in NETWORKS if name in self.differences}
        against = min(gains, key=lambda name: gains[name].lo, default=None)
        delta = gains[against] if against else None
        if delta is not None and "scratch" not in gains:  # the detector is that network itself
            against, delta, gains = "scratch", Interval(0.0, 0.0, 0.0), {}
        return {
            "f1_macro": self.detector["f1_macro"].mean,
            "joint_success_at_3": self.detector["joint_success_at_3"].mean,
            "recall": {name: interval.mean for name, interval in self.recall().items()},
            "ece": self.detector["ece"].mean,
            "ece_if_calibrated": self.ece_if_calibrated,
            "delta_joint_success_at_3": delta._asdict() if delta else None,
            "delta_against": against,
            "delta_compared": list(gains),
            "left_out": list(self.left_out),
            "delta_same_inputs": self.same_inputs,
            "pretrained": self.pretrained,
            "identity_encoder": identity,
        }

    def summary(self) -> dict[str, Any]:
        """Return the content of ``cv_summary.json``, apart from the configuration."""
        return {
            "avg_metrics": {
                name: {"mean": i.mean, "std": self.std[name], "lo": i.lo, "hi": i.hi}
                for name, i in self.detector.items()
            },
            "fold_results": [
                {
                    "seed": fold.seed, "repeat": fold.repeat, "fold": fold.index, "num_train": len(fold.train),
                    "num_test": len(fold.test), "num_purged": fold.num_purged, "best_epoch": outcome.best_epoch,
                    "temperature": outcome.temperature, "seconds": outcome.seconds, **row,
                }
                for fold, outcome, row in zip(self.folds, self.outcomes[DETECTOR], self.fold_scores, strict=True)
            ],
            "baselines": {
                method: {name: _plain(interval) for name, interval in self.table[method].items()}
                for method in self.differences
            },
            "differences": {
                method: {name: _plain(interval) for name, interval in row.items()}
                for method, row in self.differences.items()
            },
            "best_network_baseline": {name: self.best_network(name) for name in HEADLINE_METRICS},
            "best_baseline": {name: self.best_baseline(name) for name in HEADLINE_METRICS},
            "num_groups": self.num_groups,
            "pretrained": self.pretrained,
            "left_out": list(self.left_out),
            "ece_before_temperature": self.ece_before,
            "ece_if_calibrated": self.ece_if_calibrated,
            "headline": self.headline(),
        }  # fmt: skip

    def headline(self) -> str:
        """Return in one sentence whether the detector beats the best baseline and path features alone.

        The best baseline is chosen on the windows that it is compared on. This makes a gain harder to claim and a loss
        easier, so a loss says out of how many baselines the best was chosen. A gain needs both intervals above 0: the
        one over path features can be wider than the one over the best baseline. Baselines that were left out are named.
        """
        return f"{self._claim()}{left_out_text(self.left_out)}"

    def _claim(self) -> str:
        best = self.best_baseline()
        if best is None:
            return "There is no baseline to compare with."
        gain, alone = (self.differences.get(name, {}).get("joint_success_at_3") for name in (best, PATH_FEATURES))
        assert gain is not None
        rival = self.title(best)
        if not self.pretrained and best == PATH_FEATURES:
            rival = f"{rival}: {classify_gain(gain)}"
        text = f"{gain.text('+')} Joint@3 against the best baseline ({rival})"
        if (in_f1 := self.best_baseline("f1_macro")) is not None:
            text += f", {self.differences[in_f1]['f1_macro'].text('+')} F1 against the best ({self.title(in_f1)})"
        if best != PATH_FEATURES and alone is not None:
            text += f", {alone.text('+')} Joint@3 against path features alone ({classify_gain(alone)})"
        if not self.pretrained:
            untested = "; it reads path features alone, so the gain of an encoder over them is not tested"
            return f"No pre-training in this detector: {text}{untested if alone is None else ''}."
        claim = classify_gain(gain, gain if alone is None else alone)
        if claim == "gain":
            which = "the 95 % interval of the first lies"
            if alone is not None and best != PATH_FEATURES:
                which = "each 95 % interval of Joint@3 lies"
            return f"Gain: {text}; {which} above 0."
        if claim == "loss":
            chosen = f"best of {len(self._competitors())}, chosen on these windows"
            return f"Loss: {text}; the 95 % interval of the first lies below 0 ({chosen})."
        if math.isnan(gain.lo):
            return f"No gain: {text}; windows that all overlap have no interval."
        return f"No gain: {text}; the 95 % interval of the {'last' if gain.lo > 0 else 'first'} covers 0."

    def baseline_rows(self) -> list[dict[str, Any]]:
        """Return the out-of-fold predictions of every baseline, with ``method`` before the columns of ``rows``."""
        return [{"method": name, **row} for name in self.predictions if name != DETECTOR for row in self.rows(name)]

    def rows(self, method: str = DETECTOR) -> list[dict[str, Any]]:
        """Return the out-of-fold predictions of a method, one row for each window and repeat."""
        out = []
        keys = sorted({(fold.seed, fold.repeat) for fold in self.folds})
        found = self.predictions[method]
        for k, (seed, repeat) in enumerate(keys):
            for i in range(len(self.labels)):
                probability = found.probability[k, i]
                start, end = (int(x) for x in found.predicted[k, i])
                off = abs(start + end - int(self.labels.start[i]) - int(self.labels.end[i])) / 2
                guess = int(probability.argmax())
                out.append(
                    {
                        "window_id": str(self.labels.window_id[i]), "seed": seed, "repeat": repeat + 1,
                        "label": self.labels.classes[self.labels.label[i]], "predicted": self.labels.classes[guess],
                        **{f"p_{c}": round(float(p), 6) for c, p in zip(self.labels.classes, probability, strict=True)},
                        "expansion_start": int(self.labels.start[i]), "expansion_end": int(self.labels.end[i]),
                        "predicted_start": start, "predicted_end": end, "centre_error": off,
                        "right": guess == int(self.labels.label[i]),
                        "joint_success_at_3": guess == int(self.labels.label[i]) and off <= 3,
                    }
                )  # fmt: skip
        return out


def collect_evidence(
    labels: LabelledSet,
    folds: Sequence[NestedFold],
    outcomes: Mapping[str, list[FoldOutcome]],
    *,
    pretrained: bool = True,
    left_out: Sequence[str] = (),
) -> Evidence:
    """Score the detector, every baseline and their differences, with 95 % intervals over overlap groups.

    Windows of two instruments at the same time are one group here: the same hours are not independent evidence.
    """
    groups = overlap_groups(labels, across_instruments=True)
    predictions = {name: pooled_predictions(rows, folds, labels) for name, rows in outcomes.items()}
    detector, uncalibrated = (
        predictions[DETECTOR],
        pooled_predictions(outcomes[DETECTOR], folds, labels, calibrated=False),
    )
    span = np.stack([labels.start, labels.end], 1)
    fold_scores = [
        scores(labels.label[f.test], o.probability, o.predicted, span[f.test], labels.classes)
        for f, o in zip(folds, outcomes[DETECTOR], strict=True)
    ]
    all_scores = intervals(detector, groups)
    others = [name for name in predictions if name != DETECTOR]
    table = {DETECTOR: {name: all_scores[name] for name in TABLE_METRICS}}
    for name in others:
        statistics = predictions[name].statistics()
        table[name] = {metric: bootstrap_interval(statistics[metric], groups) for metric in TABLE_METRICS}
    ece = uncalibrated.statistics()["ece"]
    return Evidence(
        labels=labels,
        folds=list(folds),
        outcomes=dict(outcomes),
        predictions=predictions,
        uncalibrated=uncalibrated,
        detector=all_scores,
        std={name: _std([row[name] for row in fold_scores]) for name in all_scores},
        table=table,
        differences={
            name: {
                metric: paired_difference(detector, predictions[name], metric, groups) for metric in HEADLINE_METRICS
            }
            for name in others
        },
        ece_before=float(ece(np.ones((1, len(labels))))[0]),
        ece_if_calibrated=ece_if_calibrated(detector.probability),
        num_groups=len(np.unique(groups)),
        pretrained=pretrained,
        fold_scores=fold_scores,
        left_out=tuple(left_out),
    )


def left_out_text(names: Sequence[str]) -> str:
    """Return what a headline adds about baselines that ``cv.baselines=quick`` left out."""
    return f" Not compared with {', '.join(names)} (cv.baselines=quick)." if names else ""


def _std(values: list[float]) -> float:
    """Return the standard deviation over the folds in which a score is defined (a fold may lack a class)."""
    there = [value for value in values if not math.isnan(value)]
    return float(np.std(there, ddof=1)) if len(there) > 1 else math.nan


def _plain(interval: Interval) -> dict[str, float]:
    return dict(interval._asdict())
