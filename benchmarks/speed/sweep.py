"""What a sweep costs a trial beside its training: CPU-seconds of a trial that trains nothing, at 10 and at 200 trials.

    python -m benchmarks.speed.sweep [--trials 10 200] [--rounds 5] [--out benchmarks/results/sweep.json]

One worker in this process, a SQLite store, three epochs a trial with median pruning and TPE: claim, draw, child run,
metrics, reports, heartbeat, tell. The last trials of a sweep meet the longest history.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.synthetic_months import machine
from benchmarks.table import spread

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 3
SPACE = {
    "trainer.batch_size": [16, 32, 64, 128],
    "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "encoder.dropout": {"low": 0.0, "high": 0.8},
}


def measure(num_trials: int, round_: int) -> dict[str, float]:
    """Run a sweep of trivial trials and return CPU and wall seconds a trial, whole and in its first and last tenth."""
    import mlflow

    from moola_mlflow.core import PretrainSweepKeys, make_config
    from moola_mlflow.sweep.attach import join_study
    from moola_mlflow.sweep.space import Space
    from moola_mlflow.sweep.storage import Coordination, locate_storage
    from moola_mlflow.sweep.worker import Reporter, TrialOutcome, Worker
    from moola_mlflow.tracking.run import Run

    at: list[tuple[float, float]] = []

    def trivial(config: PretrainSweepKeys, report: Reporter) -> TrialOutcome:
        value = abs(np.log10(config.optimizer.lr) + 2) + config.encoder.dropout
        for step in range(EPOCHS):
            report.epoch(step, value + 1 / (step + 1), {"lr": config.optimizer.lr})
        return TrialOutcome(value, 0.0)

    def heard(line: str) -> None:
        at.append((time.process_time(), time.perf_counter()))

    sweep = {"space": SPACE, "n_trials": num_trials, "study": f"bench-{num_trials}-{round_}"}
    config = make_config(PretrainSweepKeys, {"sweep": sweep}, {})
    space = Space.of(config)
    coordination = Coordination(
        locate_storage("", mlflow.get_tracking_uri())[0], config.sweep.heartbeat_s, config.sweep.grace_s
    )
    with Run.start("sweep", "bench") as run:
        begun = time.process_time(), time.perf_counter()
        joined = join_study(config, space, coordination, config.sweep.study, run)
        joined_at = time.process_time()
        Worker(config, space, joined.queue, joined.experiment, joined.run_id, trivial, log=heard).run()
        ended = time.process_time(), time.perf_counter()
    cpu = np.diff([joined_at, *(one[0] for one in at)])
    tenth = max(5, num_trials // 10)
    return {
        "trials": num_trials,
        "cpu_s_a_trial": (ended[0] - begun[0]) / num_trials,
        "cpu_s_to_begin": joined_at - begun[0],
        "cpu_s_a_trial_first": float(np.mean(cpu[:tenth])),
        "cpu_s_a_trial_last": float(np.mean(cpu[-tenth:])),
        "wall_s_a_trial": (ended[1] - begun[1]) / num_trials,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 200])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "sweep.json")
    options = parser.parse_args()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        results = [measure(num, i) for i in range(options.rounds) for num in options.trials]
        os.chdir(here)
    report = {"machine": machine(), "epochs_a_trial": EPOCHS, "results": results}
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print("| trials | CPU-seconds a trial, median (min to max) | of the first | of the last |\n|---|---|---|---|")
    for num in options.trials:
        rows = [row for row in results if row["trials"] == num]
        cells = [spread([row[f"cpu_s_a_trial{part}"] for row in rows], ".3f") for part in ("", "_first", "_last")]
        print(f"| {num} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
