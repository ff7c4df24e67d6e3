"""What pruning saves: epochs of a sweep with and without the default pruner, and what the best value loses by it.

    python -m benchmarks.science.pruning [--seeds 51 52 53 54] [--out benchmarks/results/pruning.json]
    python -m benchmarks.science.pruning --tune [--seeds 101 102 103 104]   # replays other settings; writes nothing

Real sweeps of ``configs/stones.yaml`` on a tenth of the sample's bars, with batches of a tenth and an eighth of its
encoder: batch size and learning rate, 20 trials of 20 epochs. A pair of sweeps shares the sampler's seed; the points
differ from where the sampler learns of a pruned trial. ``--tune`` runs unpruned sweeps and cuts their curves where
other settings would have: the defaults were chosen by it, on seeds that are not reported. The rule of the choice: of
the settings that lose nothing on any of those seeds the one that saves most, the mildest of equals; ``prune_after``
stays at 3, for in sweeps of stage finetune it counts folds, whose scores are noisy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"bars.sample_bars": 20_000, "encoder.hidden": 16}
SPACE = {"trainer.batch_size": [8, 16, 32, 64, 128], "optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
NUM_TRIALS = 20
LINE = 0.30
"""Share of the epochs that pruning is to save at an equal best value."""


def sweep(seed: int, pruner: str) -> dict[str, Any]:
    """Run one sweep in this process, of the default pruner where none is named; return curves, best value, seconds."""
    import mlflow
    import torch
    from optuna.trial import TrialState

    from moola_mlflow.core import PretrainSweepKeys, make_config, read_preset, runtime
    from moola_mlflow.sweep.attach import join_study
    from moola_mlflow.sweep.pretrain_trials import PretrainTrials
    from moola_mlflow.sweep.space import Space
    from moola_mlflow.sweep.storage import Coordination, locate_storage
    from moola_mlflow.sweep.worker import Worker
    from moola_mlflow.tracking.run import Run

    runtime.set_threads(1)
    name = f"{pruner or 'default'}-{seed}"
    wanted = {"space": SPACE, "n_trials": NUM_TRIALS, "study": name, "seed": seed}
    wanted |= {"pruner": pruner} if pruner else {}
    preset = {**read_preset(ROOT / "configs" / "stones.yaml"), "sweep": wanted}
    config = make_config(PretrainSweepKeys, preset, SMALL)
    space, url = Space.of(config), locate_storage("", mlflow.get_tracking_uri())[0]
    coordination = Coordination(url, config.sweep.heartbeat_s, config.sweep.grace_s)
    begun = time.process_time()
    with Run.start("sweep", name) as run:
        joined = join_study(config, space, coordination, name, run)
        objective = PretrainTrials(torch.device("cpu"), "fp32")
        Worker(config, space, joined.queue, joined.experiment, joined.run_id, objective).run()
    trials = joined.queue.trials()
    curves = [[trial.intermediate_values[step] for step in sorted(trial.intermediate_values)] for trial in trials]
    return {
        "seed": seed,
        "curves": curves,
        "epochs": sum(map(len, curves)),
        "pruned": sum(trial.state == TrialState.PRUNED for trial in trials),
        "best": joined.queue.study.best_value,
        "cpu_s": time.process_time() - begun,
    }


def replayed(curves: list[list[float]], keep: float, after: int, startup: int) -> tuple[float, float]:
    """Return the share of epochs that Optuna's percentile pruner would have saved of finished curves, and the best
    value's loss by it as a share."""
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(pruner=optuna.pruners.PercentilePruner(100 * keep, startup, after))
    epochs, whole = 0, []
    for curve in curves:
        study.enqueue_trial({})
        trial = study.ask({"x": FloatDistribution(0, 1)})
        cut = len(curve)
        for step, value in enumerate(curve):
            trial.report(value, step)
            if trial.should_prune():
                cut = step + 1
                break
        epochs += cut
        if cut == len(curve):
            whole.append(min(curve))
            study.tell(trial, min(curve))
        else:
            study.tell(trial, state=TrialState.PRUNED)
    best = min(min(curve) for curve in curves)
    return 1 - epochs / sum(map(len, curves)), min(whole) / best - 1


def tune(seeds: list[int]) -> None:
    """Print what each setting of the percentile pruner saves and loses on unpruned sweeps; 0.5 is the median."""
    found = [sweep(seed, "none") for seed in seeds]
    print("| prune_keep | prune_after | prune_startup | epochs saved, mean | least | best value lost, mean | worst |")
    print("|---|---|---|---|---|---|---|")
    for keep, after, startup in itertools.product((0.5, 0.33, 0.25), (1, 2, 3, 5), (3, 5)):
        saved, lost = np.array([replayed(one["curves"], keep, after, startup) for one in found]).T
        cells = [f"{saved.mean():.0%}", f"{saved.min():.0%}", f"{lost.mean():+.2%}", f"{lost.max():+.2%}"]
        print(f"| {keep} | {after} | {startup} | {' | '.join(cells)} |", flush=True)


def paired(seeds: list[int]) -> list[dict[str, Any]]:
    """Run every seed with and without the default pruner; return a row a seed: what is saved and what is lost."""
    rows = []
    for seed in seeds:
        none, pruned = sweep(seed, "none"), sweep(seed, "")
        rows.append(
            {
                "seed": seed,
                "epochs_none": none["epochs"], "epochs_pruned": pruned["epochs"], "pruned": pruned["pruned"],
                "best_none": none["best"], "best_pruned": pruned["best"],
                "saved": 1 - pruned["epochs"] / none["epochs"], "lost": pruned["best"] / none["best"] - 1,
                "cpu_s_none": none["cpu_s"], "cpu_s_pruned": pruned["cpu_s"],
            }
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means, spreads, and whether the line is met."""
    saved, lost, best = (np.array([row[key] for row in rows]) for key in ("saved", "lost", "best_none"))
    return {
        "line": LINE, "trials": NUM_TRIALS, "seeds": rows,
        "saved_mean": saved.mean(), "saved_std": saved.std(ddof=1), "saved_least": saved.min(),
        "lost_mean": lost.mean(), "lost_std": lost.std(ddof=1), "lost_most": lost.max(),
        "best_none_spread": best.std(ddof=1) / best.mean(),
        "equal": bool(abs(lost.mean()) <= best.std(ddof=1) / best.mean()),
        "met": bool(saved.mean() >= LINE and lost.mean() <= best.std(ddof=1) / best.mean()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "pruning.json")
    options = parser.parse_args()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        try:
            if options.tune:
                tune(options.seeds or [101, 102, 103, 104])
                return
            report = {"machine": machine(), **SMALL, **summary(paired(options.seeds or [51, 52, 53, 54]))}
        finally:
            os.chdir(here)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "seeds"}, indent=2))


if __name__ == "__main__":
    main()
