"""Does the average of the prior reader and two span heads gain more than the prior reader alone?

Written before the first run on these seeds; nothing was changed after it.

Why. On labeller 4 (rules_unseen.py) the prior reader with 174 labels gained nothing over the price-path features: its
pointers stay near those of the rules. On development seeds (labellers 2, 3 and 4, one encoder) the average with a span
head on the encoding and one on price-path features scored 0.693, 0.469 and 0.504, the prior reader 0.692, 0.462 and
0.444. With heads that train on all windows of the fold, without early stopping, labeller 2 gave 0.732. That is the
reader ``finetune.reader=averaged``.

Hypotheses, with three sets of 174 labels. For each of the labellers 1 to 5 the averaged reader has a higher Joint@3
than (a) the price-path features under the span head, as a fine-tuning compares it, and (b) the same head without early
stopping, which has all windows too: the 95 % intervals of the paired differences lie above 0. (c) Over the windows of
all labellers together it has a higher Joint@3 than the prior reader. Labeller 5 (``turn_labeller.py``) was written
after the averaged reader was fixed; only its shares were looked at, on bars of seed 5. The prior reader itself is
confirmed on the same windows: labellers 1 to 3, interval over price-path features above 0.

Seeds: those of ``CONFIRM`` in rules_variants.py, which nothing read before, and 94001 and 95001. Two encoders:
``preset-0`` and ``preset-1``, averaged as repeats. Four sets of 60 are read too, as a second question.

python -m benchmarks.science.rules_averaged FOLDER        # FOLDER: that of rules_variants pretrain FOLDER preset
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks.science.rules_baselines import both_ways
from benchmarks.science.rules_reading import joined, part, predictions, repeats
from benchmarks.science.rules_variants import CONFIRM
from benchmarks.science.trap_labeller import trap_labels
from benchmarks.science.turn_labeller import turn_labels
from benchmarks.synthetic_months import machine
from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.evaluation.averaged_method import AveragedMethod
from moola_mlflow.evaluation.bootstrap import bootstrap_interval, paired_difference
from moola_mlflow.evaluation.crossval import FoldOutcome, HeadMethod, Method
from moola_mlflow.evaluation.folds import NestedFold
from moola_mlflow.evaluation.metrics import Predictions, ece
from moola_mlflow.evaluation.prior_method import PriorMethod, priors_of, read_windows
from moola_mlflow.labels import LabelledSet, Targets
from moola_mlflow.models.files.encoder import load_from_path
from moola_mlflow.training.head import HeadInputs, HeadSettings, fit_head

RESULTS = Path(__file__).resolve().parents[1] / "results" / "rules_averaged.json"
LABELLERS = CONFIRM | {4: (trap_labels, 94_001), 5: (turn_labels, 95_001)}
BARS = {5: 400_000}
"""Bars of a labeller's sample, where 200,000 hold too few of its spans."""
SETS = {174: 3, 60: 4}
"""Labels a set, and the number of disjoint sets."""
METRICS = ("joint_success_at_3", "f1_macro")
AVERAGED, PRIOR = "averaged reader", "prior reader"
HEAD, ALL_WINDOWS = "price-path features, span head", "price-path features, span head on all windows of the fold"


@dataclass(frozen=True)
class HeadOnAll:
    """A span head that trains on all training windows of a fold, for all epochs."""

    name: str
    inputs: HeadInputs

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        fitted = fit_head(self.inputs, targets, fold.train, fold.train[:0], HeadSettings(), fold.fit_seed)
        return read_windows(fitted.model.eval(), self.inputs.values, fold.test)


def labelled(labeller: int, count: int) -> list[LabelledSet]:
    """Return disjoint labelled sets of one labeller, each spread over all of its bars."""
    make, seed = LABELLERS[labeller]
    bars, num = read_bars(BarsConfig(sample_bars=BARS.get(labeller, 200_000), sample_seed=seed)), SETS[count]
    whole = make(bars, num * count, seed)
    return [part(whole, np.arange(i, len(whole), num)) for i in range(num)]


def methods(encoder: Any, labels: LabelledSet, path: HeadInputs) -> dict[str, Method]:
    """Return the two readers of one encoder."""
    encoding, priors = both_ways(encoder, "encoding", labels), priors_of(encoder)
    return {
        PRIOR: PriorMethod(PRIOR, encoding, priors),
        AVERAGED: AveragedMethod(AVERAGED, encoding, path, priors, HeadSettings()),
    }


def read_sets(folder: Path, sets: Sequence[LabelledSet]) -> dict[str, Predictions]:
    """Return what each method says of every window out of fold. Encoders are repeats of the readers."""
    encoders = [load_from_path(folder / name) for name in ("preset-0", "preset-1")]
    paths = [both_ways(None, "price_path", labels) for labels in sets]
    found: dict[str, list[Predictions]] = {name: [] for name in (PRIOR, AVERAGED)}
    for encoder in encoders:
        each = [methods(encoder, labels, path) for labels, path in zip(sets, paths, strict=True)]
        for name, parts in found.items():
            parts.append(joined([predictions(one[name], own)[0] for one, own in zip(each, sets, strict=True)]))
    out = {name: repeats(parts) for name, parts in found.items()}
    for name, make in ((HEAD, lambda x: HeadMethod(HEAD, x, HeadSettings())), (ALL_WINDOWS, lambda x: _on_all(x))):
        out[name] = joined([predictions(make(x), own)[0] for x, own in zip(paths, sets, strict=True)])
    return out


def _on_all(inputs: HeadInputs) -> HeadOnAll:
    return HeadOnAll(ALL_WINDOWS, inputs)


def compared(found: dict[str, Predictions]) -> dict[str, Any]:
    """Return the scores of each method, and the paired differences of both readers to the others."""
    row: dict[str, Any] = {"windows": len(found[HEAD].label)}
    for name, one in found.items():
        unit = np.arange(len(one.label))
        row[name] = {metric: bootstrap_interval(one.statistics()[metric], unit)._asdict() for metric in METRICS}
        row[name]["ece"] = float(np.mean([ece(one.label, p) for p in one.probability]))
    for ours in (AVERAGED, PRIOR):
        row[f"{ours} minus"] = {
            theirs: {metric: paired_difference(found[ours], found[theirs], metric)._asdict() for metric in METRICS}
            for theirs in found
            if theirs != ours
        }
    return row


def every(rows: Sequence[dict[str, Predictions]], ours: str, theirs: str) -> dict[str, float]:
    """Return the paired difference in Joint@3 over the windows of all labellers."""
    mine, other = (joined([row[name] for row in rows]) for name in (ours, theirs))
    return paired_difference(mine, other, METRICS[0])._asdict()


def main() -> None:
    parser = argparse.ArgumentParser(description="The averaged reader on labels of fresh seeds and a new labeller.")
    parser.add_argument("folder", type=Path, help="where preset-0 and preset-1 of rules_variants.py lie")
    given = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine(), "rows": [], "together": {}}
    for count in SETS:
        rows = []
        for labeller in LABELLERS:
            rows.append(read_sets(given.folder, labelled(labeller, count)))
            row = {"labeller": labeller, "labels": count} | compared(rows[-1])
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
            result["together"][str(count)] = {
                theirs: every(rows, AVERAGED, theirs) for theirs in (PRIOR, HEAD, ALL_WINDOWS)
            }
            RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
