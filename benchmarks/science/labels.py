"""Does pre-training pay on the sample's 174 weak labels? The tables of the README and of docs/explanation/evidence.md.

    python -m benchmarks.science.labels [--seeds 13 17 23 29] [--smoke] [--out benchmarks/results/labels.json]

For each seed: `moola pretrain --config configs/path.yaml`, then 5 purged folds x 3 repeats, drawn from that seed, of
every method that `moola finetune` fits with ``finetune.inputs`` encoding and both, and of its baselines. All methods
share folds, inner splits and head. Predictions of all seeds and repeats are averaged by window, then groups of
overlapping windows are resampled: an interval is for the windows. How far another pre-training, other folds and other
fits move a difference is shown beside it, by its values under the single seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SEEDS = (13, 17, 23, 29)
PATH_ALONE = "path features alone"
TITLES = {
    PATH_ALONE: "**56 path features that learn nothing, no encoder**",
    "detector, both": "`path` encoder + path features (the default)",
    "scratch, both": "the same network from scratch + path features",
    "random_encoder, both": "random frozen encoder + path features",
    "detector, encoding": "`path` encoder alone, frozen",
    "scratch, encoding": "the same network from scratch",
    "random_encoder, encoding": "the same network, random and frozen",
    "pooled_scratch": "pooled head from scratch, as published",
    "boosting": "gradient boosting on window statistics",
    "logistic": "logistic regression on window statistics",
    "majority": "majority class",
    "rule": "hand-written rule + logistic regression (knows the labeller)",
}
DIFFERENCES = (
    ("detector, encoding", "random_encoder, encoding"),
    ("detector, encoding", "scratch, encoding"),
    ("detector, encoding", PATH_ALONE),
    ("detector, both", "random_encoder, both"),
    ("detector, both", "scratch, both"),
    ("detector, both", PATH_ALONE),
)
CALIBRATED = ("detector, both", "detector, encoding", PATH_ALONE)
METRICS = ("joint_success_at_3", "f1_macro")
SMALL = {"bars.sample_bars": "12000", "encoder.hidden": "4", "trainer.epochs": "1"}
FEW = {
    "labels.n": "60", "bars.sample_bars": "20000", "trainer.epochs": "1", "cv.folds": "2", "cv.repeats": "1",
    "cv.workers": "1",
}  # fmt: skip
"""Keys of a smoke run: of its pre-training and of its fine-tuning."""


def pretrained(folder: str, seed: int, overrides: dict[str, str]) -> Path:
    """Pre-train with the command that users run; return the encoder's folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment = {**kept, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(ROOT)}
    given = {"config": str(ROOT / "configs" / "path.yaml"), "seed": str(seed), "register": "none", **overrides}
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    before = set(Path(folder).glob(".moola/runs/*/encoder"))
    done = subprocess.run([sys.executable, "-m", "moola_mlflow", "pretrain", *words], cwd=folder, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}\n{done.stderr[-3000:]}")
    (encoder,) = set(Path(folder).glob(".moola/runs/*/encoder")) - before
    return encoder


def run_seed(
    labels: Any, seed: int, encoder: Path, overrides: dict[str, str], wanted: Collection[str] = TITLES
) -> tuple[list[Any], dict[str, Any]]:
    """Return one seed's folds and what each of the wanted methods said of them."""
    import torch

    from moola_mlflow.core import FinetuneKeys, make_config, read_preset, runtime
    from moola_mlflow.evaluation.crossval import cross_validate
    from moola_mlflow.evaluation.folds import plan_folds
    from moola_mlflow.evaluation.methods import build_methods, make_setting
    from moola_mlflow.labels.targets import Targets
    from moola_mlflow.models.files.encoder import load_from_path

    preset = read_preset(ROOT / "configs" / "finetune.yaml")
    precision = runtime.pick_precision("auto", torch.device("cpu"))
    methods: dict[str, Any] = {}
    for inputs in ("encoding", "both"):
        config = make_config(FinetuneKeys, preset, {"cv.repeats": "3", **overrides, "finetune.inputs": inputs})
        setting = make_setting(labels, [load_from_path(encoder)], config, torch.device("cpu"), precision)
        for method in build_methods(setting):
            own = method.name in ("detector", "scratch", "random_encoder")
            name = PATH_ALONE if method.name == "path_features" else f"{method.name}, {inputs}" if own else method.name
            if name in wanted and name not in methods:
                methods[name] = replace(method, name=name)
    folds = plan_folds(labels, config.cv, (seed,))
    workers = config.cv.workers or runtime.usable_cores()
    return folds, cross_validate(list(methods.values()), Targets.of(labels), folds, workers=workers)


def summary(labels: Any, folds: list[Any], outcomes: dict[str, list[Any]]) -> dict[str, Any]:
    """Return scores, paired differences with the single seeds beside them, and calibration before and after."""
    import numpy as np

    from moola_mlflow.evaluation.bootstrap import bootstrap_interval, paired_difference
    from moola_mlflow.evaluation.crossval import pooled_predictions
    from moola_mlflow.evaluation.metrics import ece_if_calibrated
    from moola_mlflow.labels.overlap import overlap_groups

    groups = overlap_groups(labels, across_instruments=True)
    said = {name: pooled_predictions(rows, folds, labels) for name, rows in outcomes.items()}
    scores = {
        name: {metric: list(bootstrap_interval(found.statistics()[metric], groups)) for metric in METRICS}
        for name, found in said.items()
    }

    def of_seed(name: str, seed: int) -> Any:
        chosen = [i for i, fold in enumerate(folds) if fold.seed == seed]
        return pooled_predictions([outcomes[name][i] for i in chosen], [folds[i] for i in chosen], labels)

    differences = []
    for one, other in DIFFERENCES:
        row: dict[str, Any] = {"detector": one, "baseline": other}
        for metric in METRICS:
            row[metric] = list(paired_difference(said[one], said[other], metric, groups))
            row[f"{metric} by seed"] = [
                paired_difference(of_seed(one, seed), of_seed(other, seed), metric, groups, resamples=2).mean
                for seed in sorted({fold.seed for fold in folds})
            ]
        differences.append(row)
    everything = np.ones((1, len(labels)))
    ece = {
        name: {
            what: float(
                pooled_predictions(outcomes[name], folds, labels, calibrated=after).statistics()["ece"](everything)[0]
            )
            for what, after in (("before", False), ("after", True))
        }
        | {"if calibrated": ece_if_calibrated(said[name].probability)}
        for name in CALIBRATED
    }
    return {"scores": scores, "differences": differences, "ece": ece}


def tables(found: dict[str, Any]) -> str:
    """Return the Markdown tables."""

    def shown(values: list[float], sign: str = "") -> str:
        return f"{values[0]:{sign}.3f} [{values[1]:{sign}.3f}, {values[2]:{sign}.3f}]"

    lines = ["| | F1 macro | Joint@3 |", "|---|---|---|"]
    for name, title in TITLES.items():
        row = found["scores"][name]
        lines.append(f"| {title} | {shown(row['f1_macro'])} | {shown(row['joint_success_at_3'])} |")
    lines += ["", "| paired difference | Joint@3 | under each seed | F1 |", "|---|---|---|---|"]
    for row in found["differences"]:
        seeds = ", ".join(f"{value:+.3f}" for value in row["joint_success_at_3 by seed"])
        title = f"{TITLES[row['detector']]} - {TITLES[row['baseline']]}".replace("**", "")
        lines.append(f"| {title} | {shown(row['joint_success_at_3'], '+')} | {seeds} | {shown(row['f1_macro'], '+')} |")
    lines += ["", "| calibration error (5 equal-mass bins) | before temperature | after | if perfectly calibrated |"]
    lines.append("|---|---|---|---|")
    for name, row in found["ece"].items():
        lines.append(f"| {TITLES[name]} | {row['before']:.3f} | {row['after']:.3f} | {row['if calibrated']:.3f} |")
    return "\n".join(lines)


def prepare() -> None:
    """Set up this process as a command does."""
    from moola_mlflow.core import runtime

    runtime.prepare_environment()
    runtime.tune_allocator()
    runtime.set_threads()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--smoke", action="store_true", help="small, one seed: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS / "labels.json")
    arguments = parser.parse_args()
    prepare()
    from moola_mlflow.core import FinetuneKeys, make_config, read_preset
    from moola_mlflow.labels.weak import sample_labels

    seeds, small, few = arguments.seeds, {}, {}
    if arguments.smoke:
        seeds, small, few = [13], SMALL, FEW
    config = make_config(FinetuneKeys, read_preset(ROOT / "configs" / "finetune.yaml"), few)
    labels = sample_labels(config, config.labels.n, config.labels.seed)
    folds: list[Any] = []
    outcomes: dict[str, list[Any]] = {}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            own, said = run_seed(labels, seed, pretrained(folder, seed, small), few)
            folds += own
            for name, rows in said.items():
                outcomes.setdefault(name, []).extend(rows)
            print(f"seed {seed}: {time.perf_counter() - started:.0f} s so far", file=sys.stderr, flush=True)
    found = summary(labels, folds, outcomes)
    print(tables(found))
    result = {"machine": machine(), "seeds": seeds, "labels": len(labels), "smoke": arguments.smoke, **found}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
