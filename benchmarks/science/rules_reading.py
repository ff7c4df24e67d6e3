"""The reading half of the rules study: both readers on the same folds of labels that nothing was tuned on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.science.fuzzy_labeller import fuzzy_labels
from benchmarks.science.objectives.second_labeller import second_labels
from benchmarks.synthetic_months import machine
from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig, CvConfig
from moola_mlflow.evaluation.bootstrap import bootstrap_interval, paired_difference
from moola_mlflow.evaluation.crossval import HeadMethod, Method, pooled_predictions
from moola_mlflow.evaluation.folds import plan_folds
from moola_mlflow.evaluation.metrics import Predictions, ece
from moola_mlflow.evaluation.prior_method import PriorMethod, priors_of
from moola_mlflow.labels import LabelledSet, Targets
from moola_mlflow.labels.weak import weak_labels
from moola_mlflow.models.detector import detector_inputs
from moola_mlflow.models.files.encoder import load_from_path
from moola_mlflow.training.head import HeadInputs, HeadSettings
from moola_mlflow.windows import mirrored

RESULTS = Path(__file__).resolve().parents[1] / "results" / "rules_study.json"
LABELLERS = {1: (weak_labels, 31_001), 2: (second_labels, 32_001), 3: (fuzzy_labels, 33_001)}
"""What labels, and the seed of its bars and of its draw."""
SETS = {60: 3, 174: 2, 500: 1}
"""Labels a set, and the number of disjoint sets."""
LINES = {60: (0.75, 0.64, 0.40), 174: (0.78, 0.67, 0.45)}
SEED = 17
BASELINE = "price-path features, span head"


def labelled(labeller: int, count: int) -> list[LabelledSet]:
    """Return disjoint labelled sets of one labeller, each spread over all of its bars."""
    make, seed = LABELLERS[labeller]
    bars = read_bars(BarsConfig(sample_bars=200_000, sample_seed=seed))
    whole, num = make(bars, SETS[count] * count, seed), SETS[count]
    return [_part(whole, np.arange(i, len(whole), num)) for i in range(num)]


def _part(labels: LabelledSet, index: np.ndarray) -> LabelledSet:
    names = ("window_id", "ohlc", "label", "start", "end", "start_ns", "end_ns", "instrument")
    return replace(labels, sha256="", **{name: getattr(labels, name)[index] for name in names})


def predictions(method: Method, labels: LabelledSet) -> tuple[Predictions, Predictions]:
    """Return what the folds say of every window, after and before temperature."""
    most = min(5, min(labels.counts().values()) // 2)  # a fold needs two windows of each class
    folds, targets = plan_folds(labels, CvConfig(folds=most), [SEED]), Targets.of(labels)
    outcomes = [method.run(targets, fold) for fold in folds]
    after, before = (pooled_predictions(outcomes, folds, labels, calibrated=c) for c in (True, False))
    return after, before


def _both_ways(encoder: Any, which: Any, labels: LabelledSet) -> HeadInputs:
    values, turned = (detector_inputs(encoder, which, ohlc) for ohlc in (labels.ohlc, mirrored(labels.ohlc)))
    return HeadInputs(values, turned)


def baseline(labels: LabelledSet) -> tuple[Predictions, Predictions]:
    """Return the predictions of the price-path features under the span head."""
    method = HeadMethod(BASELINE, _both_ways(None, "price_path", labels), HeadSettings())
    return predictions(method, labels)


def prior_reader(folder: Path, labels: LabelledSet) -> tuple[Predictions, Predictions]:
    """Return the predictions of the prior reader on one encoder."""
    encoder = load_from_path(folder)
    method = PriorMethod("prior", _both_ways(encoder, "encoding", labels), priors_of(encoder))
    return predictions(method, labels)


def _joined(sets: Sequence[Predictions]) -> Predictions:
    """Return the windows of several sets as one; each has as many repeats."""
    return Predictions(
        np.concatenate([one.label for one in sets]), np.concatenate([one.span for one in sets]),
        np.concatenate([one.probability for one in sets], 1), np.concatenate([one.predicted for one in sets], 1),
        sets[0].classes,
    )  # fmt: skip


def _repeats(each: Sequence[Predictions]) -> Predictions:
    """Return predictions of the same windows by several encoders as repeats."""
    probability, predicted = (np.concatenate([getattr(one, n) for one in each]) for n in ("probability", "predicted"))
    return replace(each[0], probability=probability, predicted=predicted)


def _row(labeller: int, count: int, ours: Predictions, raw: Predictions, theirs: Predictions) -> dict[str, Any]:
    row: dict[str, Any] = {"labeller": labeller, "labels": count, "windows": len(ours.label)}
    for metric in ("joint_success_at_3", "f1_macro"):
        unit = np.arange(len(ours.label))
        row[metric] = bootstrap_interval(ours.statistics()[metric], unit)._asdict()
        row[f"{metric}_baseline"] = bootstrap_interval(theirs.statistics()[metric], unit)._asdict()
        row[f"{metric}_gain"] = paired_difference(ours, theirs, metric)._asdict()
    row["joint_by_encoder"] = [
        float(replace(ours, probability=p[None], predicted=q[None]).statistics()["joint_success_at_3"](_ones(ours))[0])
        for p, q in zip(ours.probability, ours.predicted, strict=True)
    ]
    row["ece_without_temperature"] = float(np.mean([ece(raw.label, one) for one in raw.probability]))
    if count in LINES:
        row["line"] = LINES[count][labeller - 1]
        row["met"] = row["joint_success_at_3"]["mean"] >= row["line"]
    return row


def _ones(predictions: Predictions) -> np.ndarray:
    return np.ones((1, len(predictions.label)))


def read(folders: Sequence[Path], counts: Sequence[int] = (174, 60)) -> None:
    """Read all labelled sets with both readers and write the results, row by row."""
    rows = []
    for count in counts:
        for labeller in LABELLERS:
            started, sets = time.process_time(), labelled(labeller, count)
            theirs = _joined([baseline(labels)[0] for labels in sets])
            each = [[prior_reader(folder, labels) for folder in folders] for labels in sets]
            ours, raw = (_joined([_repeats([one[i] for one in encoders]) for encoders in each]) for i in (0, 1))
            rows.append(_row(labeller, count, ours, raw, theirs) | {"cpu_seconds": time.process_time() - started})
            print(json.dumps(rows[-1]), flush=True)
            cards = [json.loads((folder / "encoder.json").read_text()) for folder in folders]
            about = [
                {k: card[k] for k in ("cpu_seconds", "wall_seconds")}
                | {"steps": card.get("hyperparameters", {}).get("steps"), "last": card["history"][-1]}
                for card in cards
            ]
            RESULTS.write_text(
                json.dumps({"machine": machine(), "encoders": about, "rows": rows}, indent=1) + "\n", encoding="utf-8"
            )
