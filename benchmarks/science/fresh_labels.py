"""Does pre-training pay beside path features, on more windows than one labelled set has?

    python -m benchmarks.science.fresh_labels [--seeds 13 17 23 29] [--first 1011] [--smoke] [--out ...]

174 windows cannot show a gain of 0.03 (docs/explanation/evidence.md). Here each pre-training seed meets a labelled set
of its own, of sample bars that nothing in this repository has looked at: 4 x 174 windows, 5 purged folds x 3 repeats
each. The default detector and the encoding alone are compared with the same network from scratch, with a random one,
and with path features alone.
Repeats are averaged by window, then groups of overlapping windows of all sets together are resampled.
Seed and set change together: the spread over the sets holds both, and does not tell them apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.science.labels import (
    CALIBRATED,
    DIFFERENCES,
    FEW,
    METRICS,
    PATH_ALONE,
    RESULTS,
    ROOT,
    SEEDS,
    SMALL,
    TITLES,
    prepare,
    pretrained,
    run_seed,
)
from benchmarks.synthetic_months import machine

FIRST = 1011
"""Sample seed of the first set; 1001 and 2001 are those of other tables, 101 to 104 of what was explored."""
ALONE = ("detector, encoding", "scratch, encoding", "random_encoder, encoding")
WANTED = (PATH_ALONE, "detector, both", "scratch, both", "random_encoder, both", *ALONE)


def joined(sets: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Lay predictions of labelled sets and their overlap groups behind one another; sets share no bars."""
    import numpy as np

    from moola_mlflow.evaluation.metrics import Predictions

    said = [predictions for predictions, _ in sets]
    offsets = np.cumsum([0, *(groups.max() + 1 for _, groups in sets)])
    whole = Predictions(
        np.concatenate([one.label for one in said]), np.concatenate([one.span for one in said]),
        np.concatenate([one.probability for one in said], axis=1),
        np.concatenate([one.predicted for one in said], axis=1), said[0].classes,
    )  # fmt: skip
    return whole, np.concatenate([groups + offset for (_, groups), offset in zip(sets, offsets, strict=False)])


def summary(sets: dict[str, list[tuple[Any, Any]]]) -> dict[str, Any]:
    """Return scores and paired differences over all windows, and each set's own difference beside them."""
    from moola_mlflow.evaluation.bootstrap import bootstrap_interval, paired_difference

    whole = {name: joined(rows) for name, rows in sets.items()}
    scores = {
        name: {metric: list(bootstrap_interval(said.statistics()[metric], groups)) for metric in METRICS}
        for name, (said, groups) in whole.items()
    }
    differences = []
    for one, other in DIFFERENCES:
        row: dict[str, Any] = {"detector": one, "baseline": other}
        for metric in METRICS:
            (mine, groups), (theirs, _) = whole[one], whole[other]
            row[metric] = list(paired_difference(mine, theirs, metric, groups))
            row[f"{metric} by set"] = [
                list(paired_difference(a, b, metric, own))
                for (a, own), (b, _) in zip(sets[one], sets[other], strict=True)
            ]
        differences.append(row)
    ece = {
        name: {"all": ece_of(whole[name][0]), "by set": [ece_of(said) for said, _ in sets[name]]} for name in CALIBRATED
    }
    return {"scores": scores, "differences": differences, "ece": ece}


def ece_of(said: Any) -> float:
    """Return the calibration error after temperature, the mean over repeats."""
    import numpy as np

    return float(said.statistics()["ece"](np.ones((1, len(said.label))))[0])


def tables(found: dict[str, Any]) -> str:
    """Return the Markdown tables."""

    def shown(values: list[float], sign: str = "") -> str:
        return f"{values[0]:{sign}.3f} [{values[1]:{sign}.3f}, {values[2]:{sign}.3f}]"

    lines = ["| | F1 macro | Joint@3 |", "|---|---|---|"]
    for name in WANTED:
        row = found["scores"][name]
        lines.append(f"| {TITLES[name]} | {shown(row['f1_macro'])} | {shown(row['joint_success_at_3'])} |")
    lines += ["", "| paired difference | Joint@3 | of each set | F1 |", "|---|---|---|---|"]
    for row in found["differences"]:
        each = ", ".join(f"{values[0]:+.3f}" for values in row["joint_success_at_3 by set"])
        title = f"{TITLES[row['detector']]} - {TITLES[row['baseline']]}".replace("**", "")
        lines.append(f"| {title} | {shown(row['joint_success_at_3'], '+')} | {each} | {shown(row['f1_macro'], '+')} |")
    lines += ["", "| calibration error after temperature | all windows | each set alone |", "|---|---|---|"]
    for name, row in found["ece"].items():
        lines.append(f"| {TITLES[name]} | {row['all']:.3f} | {', '.join(f'{value:.3f}' for value in row['by set'])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of pre-trainings and folds")
    parser.add_argument("--first", type=int, default=FIRST, help="sample seed of the first seed's labelled bars")
    parser.add_argument("--smoke", action="store_true", help="small, two seeds: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS / "fresh_labels.json")
    arguments = parser.parse_args()
    prepare()
    from moola_mlflow.core import FinetuneKeys, make_config, read_preset
    from moola_mlflow.evaluation.crossval import pooled_predictions
    from moola_mlflow.labels.overlap import overlap_groups
    from moola_mlflow.labels.weak import sample_labels

    seeds, small, few = arguments.seeds, {}, {}
    if arguments.smoke:
        seeds, small, few = seeds[:2], SMALL, FEW
    sets: dict[str, list[tuple[Any, Any]]] = {name: [] for name in WANTED}
    started, counts = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for k, seed in enumerate(seeds):
            fresh = {**few, "labels.sample_seed": str(arguments.first + k)}
            config = make_config(FinetuneKeys, read_preset(ROOT / "configs" / "finetune.yaml"), fresh)
            labels = sample_labels(config, config.labels.n, config.labels.seed)
            groups = overlap_groups(labels, across_instruments=True)
            folds, outcomes = run_seed(labels, seed, pretrained(folder, seed, small), fresh, WANTED)
            for name, rows in outcomes.items():
                sets[name].append((pooled_predictions(rows, folds, labels), groups))
            counts.append(len(labels))
            print(f"seed {seed}: {time.perf_counter() - started:.0f} s so far", file=sys.stderr, flush=True)
    found = summary(sets)
    print(tables(found))
    about = {"machine": machine(), "seeds": seeds, "first": arguments.first, "labels": counts}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({**about, "smoke": arguments.smoke, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
