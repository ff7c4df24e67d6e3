"""What it is worth to pick the best epoch on the fold that scores it: the published 0.48 -> 0.60, taken apart.

    python -m benchmarks.science.best_epoch

The same fits are scored twice: at the epoch that an inner split of the training part chose, and at the epoch with the
best F1 on the test fold itself. With shuffled labels there is nothing to learn, so whatever the second exceeds the
first by is the method's own. Heads on path features, n = 174 weak labels of the sample.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.synthetic_months import machine
from moola_mlflow.core import CvConfig, FinetuneKeys
from moola_mlflow.evaluation.crossval import HeadMethod, cross_validate
from moola_mlflow.evaluation.folds import plan_folds
from moola_mlflow.evaluation.metrics import scores
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.targets import Targets
from moola_mlflow.labels.weak import sample_labels
from moola_mlflow.models.detector import detector_inputs
from moola_mlflow.training.head import HeadInputs, HeadSettings, mirrored

RESULTS = Path(__file__).resolve().parents[1] / "results" / "best_epoch.json"


def shuffled(labels: LabelledSet, seed: int) -> LabelledSet:
    """Return the windows with classes and spans dealt out anew: equally many of each, at random windows."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return replace(labels, label=labels.label[order], start=labels.start[order], end=labels.end[order])


def fold_f1(labels: LabelledSet, head: str, epochs: int, seed: int) -> dict[str, float]:
    """Return the mean F1 over folds: epoch chosen inside, epoch chosen on the test fold, and the last one."""
    settings = HeadSettings(epochs=epochs, patience=epochs, head=head)
    inputs = HeadInputs(*(detector_inputs(None, "price_path", ohlc) for ohlc in (labels.ohlc, mirrored(labels.ohlc))))
    method, targets = HeadMethod(head, inputs, settings), Targets.of(labels)
    folds = plan_folds(labels, CvConfig(), [seed])
    # The published way: the same fit, but the fold that scores it watches every epoch.
    watched = [replace(fold, held=fold.test) for fold in folds]
    inside = cross_validate([method], targets, folds)[head]
    outside = cross_validate([method], targets, watched)[head]
    span = np.stack([labels.start, labels.end], 1)
    honest = [
        scores(labels.label[u.test], o.probability, o.predicted, span[u.test], labels.classes)["f1_macro"]
        for u, o in zip(folds, inside, strict=True)
    ]
    curves = [[row["held_f1_macro"] for row in outcome.history] for outcome in outside]
    return {
        "honest": float(np.mean(honest)),
        "best_on_test_fold": float(np.mean([max(curve) for curve in curves])),
        "last_epoch": float(np.mean([curve[-1] for curve in curves])),
    }


def tables(report: dict[str, Any]) -> str:
    """Return the Markdown table of docs/explanation/evidence.md."""
    lines = ["| head | labels | epoch chosen inside | best epoch on the test fold | worth |", "|---|---|---|---|---|"]
    for head in ("pooled", "span"):
        for kind in ("true", "shuffled"):
            mine = [row for row in report["rows"] if (row["head"], row["labels"]) == (head, kind)]
            inside, outside = (np.array([row[key] for row in mine]) for key in ("honest", "best_on_test_fold"))
            cells = [f"{x.mean():.3f} ± {x.std(ddof=1) if len(x) > 1 else 0:.3f}" for x in (inside, outside)]
            lines.append(f"| {head} | {kind} | {cells[0]} | {cells[1]} | {np.mean(outside - inside):+.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[13, 17, 23, 29])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--n", type=int, default=174)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    labels, rows = sample_labels(FinetuneKeys(), arguments.n, 17), []
    for head in ("pooled", "span"):
        for kind in ("true", "shuffled"):
            for seed in arguments.seeds:
                used = labels if kind == "true" else shuffled(labels, seed)
                rows.append({"head": head, "labels": kind, "seed": seed, **fold_f1(used, head, arguments.epochs, seed)})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(), "n": arguments.n, "rows": rows}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(tables(report))


if __name__ == "__main__":
    main()
