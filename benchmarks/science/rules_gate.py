"""Which gain in few-shot loss should an encoder trained on rules show before it is promoted?

The rule was written before the first run. That run measured each encoder on fresh rules of its own seed, and the level
depended on them; so fresh rules became the same for all, and it ran again. The limit of the gate ``few_shot_gain`` lies
halfway between the largest gain of an encoder that does not beat the price-path features and the smallest gain of one
that does, rounded down to a quarter. An encoder beats them where the 95 % interval of the paired difference in Joint@3
lies above 0 for labellers 1 and 2, with 174 labels. Encoders differ in how long they train: a whole one-cycle schedule
of each number of steps. The gain in the probe's R2, the gate of other objectives, stands beside it.

Seeds of development: training seed 41 with rules of seed 5, labels of seeds 41,001 and 42,001. The confirming study,
rules_study.py, uses none of them.

python -m benchmarks.science.rules_gate [--smoke] [--out FILE]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks.science.objectives.second_labeller import second_labels
from benchmarks.science.rules_baselines import both_ways
from benchmarks.science.rules_reading import predictions
from benchmarks.synthetic_months import machine
from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig, PretrainKeys, make_config, read_preset
from moola_mlflow.evaluation.bootstrap import paired_difference
from moola_mlflow.evaluation.crossval import HeadMethod
from moola_mlflow.evaluation.metrics import Predictions
from moola_mlflow.evaluation.prior_method import PriorMethod, priors_of
from moola_mlflow.labels import LabelledSet
from moola_mlflow.labels.weak import weak_labels
from moola_mlflow.models import Encoder
from moola_mlflow.models.files.encoder import describe_encoder
from moola_mlflow.reports.pretrain_results import score_encoder
from moola_mlflow.training.head import HeadSettings
from moola_mlflow.training.setup import build_trainer, prepare

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "rules_gate.json"
STEPS = (30, 60, 125, 250, 500, 1000, 2000)
SEED, RULES_SEED = 41, 5
LABELLERS = {1: (weak_labels, 41_001), 2: (second_labels, 42_001)}


def trained(steps: int, keys: dict[str, Any]) -> tuple[Encoder, dict[str, float]]:
    """Return an encoder after a whole schedule of some steps, with its label-free figures."""
    keys = {
        "trainer.seed": SEED,
        "objective.rules_seed": RULES_SEED,
        "trainer.steps": steps,
        "runtime.shards": 1,
        **keys,
    }
    config = make_config(PretrainKeys, read_preset(ROOT / "configs" / "rules.yaml"), keys)
    data = prepare(config, torch.device("cpu"))
    trainer = build_trainer(config, data, "fp32")
    trainer.evaluation.fit_baselines()
    initial = copy.deepcopy(trainer.model.encoder)
    initial.task_heads = copy.deepcopy(trainer.model.objective.task_heads())
    trainer.fit()
    trainer.engine.close()
    results = score_encoder(trainer, config, initial, None, time.perf_counter())
    encoder = trainer.model.encoder
    encoder.task_heads = trainer.model.objective.task_heads()
    encoder.card = describe_encoder(config, encoder)
    return encoder.eval(), {"few_shot_gain": results.few_shot["gain"], "probe_r2_gain": results.probe.gain}


def compared(encoder: Encoder, labels: LabelledSet, theirs: Predictions) -> dict[str, float]:
    """Return the paired difference in Joint@3 of the prior reader over the price-path features."""
    method = PriorMethod("prior", both_ways(encoder, "encoding", labels), priors_of(encoder))
    return paired_difference(predictions(method, labels)[0], theirs, "joint_success_at_3")._asdict()


def limit(rows: list[dict[str, Any]]) -> float:
    """Return the limit that the rule at the top of this file gives; NaN where all rows agree."""
    beats = {row["few_shot_gain"]: all(one["lo"] > 0 for one in row["joint_gain"].values()) for row in rows}
    yes, no = ([gain for gain, beaten in beats.items() if beaten is wanted] for wanted in (True, False))
    return float(np.floor(2 * (max(no) + min(yes))) / 4) if yes and no else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="the smallest run of everything: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    small = {"bars.sample_bars": 60_000, "objective.num_rules": 40, "encoder.hidden": 8} if arguments.smoke else {}
    bars, steps, count = (30_000, (5, 10), 40) if arguments.smoke else (200_000, STEPS, 174)
    sets, baselines = {}, {}
    for labeller, (make, seed) in LABELLERS.items():
        sets[labeller] = make(read_bars(BarsConfig(sample_bars=bars, sample_seed=seed)), count, seed)
        method = HeadMethod("price-path features", both_ways(None, "price_path", sets[labeller]), HeadSettings())
        baselines[labeller] = predictions(method, sets[labeller])[0]
    rows: list[dict[str, Any]] = []
    for num in steps:
        encoder, figures = trained(num, small)
        gains = {str(k): compared(encoder, labels, baselines[k]) for k, labels in sets.items()}
        rows.append({"steps": num, **figures, "joint_gain": gains})
        shown = " ".join(f"labeller {k}: {g['mean']:+.3f} [{g['lo']:+.3f}, {g['hi']:+.3f}]" for k, g in gains.items())
        print(f"{num} steps: {figures} {shown}", flush=True)
        result = {"machine": machine(), "smoke": arguments.smoke, "limit": limit(rows), "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"limit of few_shot_gain: {limit(rows)}")


if __name__ == "__main__":
    main()
