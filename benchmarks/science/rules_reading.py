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
from benchmarks.science.rules_baselines import baseline_methods, both_ways
from benchmarks.synthetic_months import machine
from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig, CvConfig
from moola_mlflow.evaluation.bootstrap import bootstrap_interval, paired_difference
from moola_mlflow.evaluation.crossval import Method, pooled_predictions
from moola_mlflow.evaluation.folds import plan_folds
from moola_mlflow.evaluation.metrics import Predictions, ece
from moola_mlflow.evaluation.prior_method import PriorMethod, priors_of
from moola_mlflow.labels import LabelledSet, Targets
from moola_mlflow.labels.weak import weak_labels
from moola_mlflow.models.files.encoder import load_from_path

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
    return [part(whole, np.arange(i, len(whole), num)) for i in range(num)]


def real_bars(path: Path) -> list[LabelledSet]:
    """Return the windows that labeller 1 finds in a file of real bars: one set, of at most 174."""
    return [weak_labels(read_bars(BarsConfig(path=str(path), instrument="front")), 174, SEED)]


def part(labels: LabelledSet, index: np.ndarray) -> LabelledSet:
    names = ("window_id", "ohlc", "label", "start", "end", "start_ns", "end_ns", "instrument")
    return replace(labels, sha256="", **{name: getattr(labels, name)[index] for name in names})


def predictions(method: Method, labels: LabelledSet) -> tuple[Predictions, Predictions]:
    """Return what the folds say of every window, after and before temperature."""
    most = min(5, min(labels.counts().values()) // 2)  # a fold needs two windows of each class
    folds, targets = plan_folds(labels, CvConfig(folds=most), [SEED]), Targets.of(labels)
    outcomes = [method.run(targets, fold) for fold in folds]
    after, before = (pooled_predictions(outcomes, folds, labels, calibrated=c) for c in (True, False))
    return after, before


def prior_reader(folder: Path, labels: LabelledSet) -> tuple[Predictions, Predictions]:
    """Return the predictions of the prior reader on one encoder."""
    encoder = load_from_path(folder)
    method = PriorMethod("prior", both_ways(encoder, "encoding", labels), priors_of(encoder))
    return predictions(method, labels)


def joined(sets: Sequence[Predictions]) -> Predictions:
    """Return the windows of several sets as one; each has as many repeats."""
    return Predictions(
        np.concatenate([one.label for one in sets]), np.concatenate([one.span for one in sets]),
        np.concatenate([one.probability for one in sets], 1), np.concatenate([one.predicted for one in sets], 1),
        sets[0].classes,
    )  # fmt: skip


def repeats(each: Sequence[Predictions]) -> Predictions:
    """Return predictions of the same windows by several encoders as repeats."""
    probability, predicted = (np.concatenate([getattr(one, n) for one in each]) for n in ("probability", "predicted"))
    return replace(each[0], probability=probability, predicted=predicted)


def _row(ours: Predictions, raw: Predictions, theirs: Predictions) -> dict[str, Any]:
    row: dict[str, Any] = {"windows": len(ours.label)}
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
    return row


def _baseline(ours: Predictions, theirs: Predictions) -> dict[str, Any]:
    """Return what a baseline scores, and by how much the prior reader scores more."""
    row: dict[str, Any] = {}
    for metric in ("joint_success_at_3", "f1_macro"):
        row[metric] = bootstrap_interval(theirs.statistics()[metric], np.arange(len(theirs.label)))._asdict()
        row[f"{metric}_gain"] = paired_difference(ours, theirs, metric)._asdict()
    return row


def _ones(predictions: Predictions) -> np.ndarray:
    return np.ones((1, len(predictions.label)))


def read_sets(folders: Sequence[Path], sets: Sequence[LabelledSet], only: str = "") -> dict[str, Any]:
    """Return the figures of the prior reader and of every baseline on some labelled sets, or of one baseline alone."""
    started = time.process_time()
    each = [[prior_reader(folder, labels) for folder in folders] for labels in sets]
    ours, raw = (joined([repeats([one[i] for one in encoders]) for encoders in each]) for i in (0, 1))
    seconds, theirs = time.process_time() - started, {}
    for name, method in baseline_methods(folders[0].parent).items():
        if only not in name:
            continue
        theirs[name] = joined([predictions(method(labels), labels)[0] for labels in sets])
        print(f"  {name}: {theirs[name].statistics()['joint_success_at_3'](_ones(ours))[0]:.3f}", flush=True)
    row = {} if only else _row(ours, raw, theirs[BASELINE]) | {"reader_cpu_seconds": seconds}
    return row | {"baselines": {name: _baseline(ours, one) for name, one in theirs.items()}}


def read(folders: Sequence[Path], counts: Sequence[int] = (174, 60), real: Sequence[Path] = (), only: str = "") -> None:
    """Read all labelled sets with every reader and write the results, row by row. Counts that are done stay.

    ``only`` is a part of the names of baselines that are added to rows that are there already. They may be compared
    with other copies of the encoders; ``added`` in the results tells of the machine.
    """
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    rows = [row for row in before.get("rows", []) if row.get("complete") and (only or row["labels"] not in counts)]
    work = [(count, labeller, None) for count in counts for labeller in LABELLERS] + [(None, 1, path) for path in real]
    for count, labeller, path in work:
        sets = real_bars(path) if path else labelled(labeller, count)
        print(f"labeller {labeller}, {path.name if path else f'{count} labels'}", flush=True)
        row = {"labeller": labeller, "bars": path.name if path else "sample", "complete": True}
        row |= {"labels": count or len(sets[0])} | read_sets(folders, sets, only)
        if only:
            (there,) = [one for one in rows if all(one[key] == row[key] for key in ("labeller", "bars", "labels"))]
            there["baselines"] |= row["baselines"]
            added = before.get("added", {}) | {name: machine() for name in row["baselines"]}
            RESULTS.write_text(json.dumps(before | {"added": added, "rows": rows}, indent=1) + "\n", encoding="utf-8")
            continue
        if count in LINES:
            row["line"] = LINES[count][labeller - 1]
            row["met"] = row["joint_success_at_3"]["mean"] >= row["line"]
        rows.append(row)
        print(json.dumps({key: value for key, value in row.items() if key != "baselines"}), flush=True)
        _write(folders, rows)


def _write(folders: Sequence[Path], rows: Sequence[dict[str, Any]]) -> None:
    about = []
    for folder in folders:
        card = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        last = {key: value for key, value in card["history"][-1].items() if key != "rules/few_shot"}
        seeds = {"seed": card["hyperparameters"]["seed"], "rules_seed": card["objective"]["rules_seed"], "last": last}
        about.append({key: card[key] for key in ("cpu_seconds", "wall_seconds")} | seeds)
    result = {"machine": machine(), "encoders": about, "rows": list(rows)}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
