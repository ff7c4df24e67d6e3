"""Does the preset of rules pay on a labeller that nobody looked at when rules, preset and reader were made?

Written before the first run; nothing was changed after it.

Hypothesis. Labeller 4 (``trap_labeller.py``: failed breakouts, with noise in choice, pointers and classes) was written
for this study, after the preset was fixed. With 174 labels, the prior reader on encoders of ``configs/rules.yaml`` has
a higher Joint@3 than the price-path features under the span head, over three sets of 174 windows: the 95 % interval of
the paired difference lies above 0. The same is asked, as a second question, with four sets of 60.

Seeds. Two encoders: training seeds 17 and 23, with the rules of seeds 0 and 1 (``preset-0`` and ``preset-1`` of
rules_variants.py); their predictions are averaged as repeats. Labels come from seed 91001, which no other study uses.
Before the run, only the rule's shares were looked at, on bars of seed 5: it finds a span in 92 % of the windows, and 22
and 45 % are of its two classes. No score was looked at. Rule and parameters were then not changed.

Baselines: the span head and four bagged span heads, both on price-path features; the best single rule of 256 and a span
head on the first encoder tell where a gain comes from. The strict family has breakouts among its selectors, but none
that fails, and its first touches name what follows; so labeller 4 is new in what it looks for, not in what it reads.

python -m benchmarks.science.rules_unseen FOLDER        # FOLDER: that of rules_variants pretrain FOLDER preset
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks.science.rules_baselines import BaggedHeads, BestRule, both_ways
from benchmarks.science.rules_reading import joined, part, predictions, prior_reader, repeats
from benchmarks.science.trap_labeller import trap_labels
from benchmarks.synthetic_months import machine
from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.evaluation.bootstrap import bootstrap_interval, paired_difference
from moola_mlflow.evaluation.crossval import HeadMethod, Method
from moola_mlflow.evaluation.metrics import Predictions
from moola_mlflow.labels import LabelledSet
from moola_mlflow.labels.rules import apply_rules, draw_rules
from moola_mlflow.models.files.encoder import load_from_path
from moola_mlflow.training.head import HeadSettings

RESULTS = Path(__file__).resolve().parents[1] / "results" / "rules_unseen.json"
SEED = 91_001
SETS = {174: 3, 60: 4}
"""Labels a set, and the number of disjoint sets."""
METRICS = ("joint_success_at_3", "f1_macro")


def labelled(count: int) -> list[LabelledSet]:
    """Return disjoint labelled sets, each spread over all of the bars."""
    bars, num = read_bars(BarsConfig(sample_bars=200_000, sample_seed=SEED)), SETS[count]
    whole = trap_labels(bars, num * count, SEED)
    return [part(whole, np.arange(i, len(whole), num)) for i in range(num)]


def baselines(folder: Path, labels: LabelledSet) -> dict[str, Method]:
    """Return the methods that the prior reader is compared with."""
    path, encoder = both_ways(None, "price_path", labels), load_from_path(folder / "preset-0")
    settings, rules = HeadSettings(), draw_rules(labels.ohlc, 256, "strict", 0)
    return {
        "price-path features, span head": HeadMethod("head", path, settings),
        "price-path features, four bagged span heads": BaggedHeads("bagged", path, settings),
        "best single rule of 256": BestRule("rule", apply_rules(rules, labels.ohlc)),
        "encoder trained on rules, span head": HeadMethod("same", both_ways(encoder, "encoding", labels), settings),
    }


def _row(ours: Predictions, theirs: Predictions) -> dict[str, Any]:
    unit = np.arange(len(ours.label))
    row: dict[str, Any] = {}
    for metric in METRICS:
        row[metric] = bootstrap_interval(theirs.statistics()[metric], unit)._asdict()
        row[f"{metric}_gain"] = paired_difference(ours, theirs, metric)._asdict()
    return row


def read(folder: Path, count: int) -> dict[str, Any]:
    """Return what the prior reader scores on all sets, and its paired differences to each baseline."""
    sets, folders = labelled(count), [folder / "preset-0", folder / "preset-1"]
    each = [[prior_reader(one, labels)[0] for labels in sets] for one in folders]
    ours = repeats([joined(parts) for parts in each])
    found: dict[str, Any] = {"labels": count, "windows": len(ours.label), "classes": sets[0].counts()}
    for metric in METRICS:
        found[metric] = bootstrap_interval(ours.statistics()[metric], np.arange(len(ours.label)))._asdict()
    ones = np.ones((1, len(ours.label)))
    found["joint_by_encoder"] = [float(joined(parts).statistics()[METRICS[0]](ones)[0]) for parts in each]
    every = [baselines(folder, labels) for labels in sets]
    found["baselines"] = {}
    for name in every[0]:
        theirs = joined([predictions(methods[name], labels)[0] for methods, labels in zip(every, sets, strict=True)])
        found["baselines"][name] = _row(ours, theirs)
        print(name, json.dumps(found["baselines"][name]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="The preset of rules on a labeller that nobody looked at.")
    parser.add_argument("folder", type=Path, help="where preset-0 and preset-1 of rules_variants.py lie")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for count in SETS:
        rows.append(read(given.folder, count))
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "baselines"}), flush=True)
        RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
