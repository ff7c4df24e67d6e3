"""What tracking costs an epoch: CPU-seconds inside the trainer's events against those of the epochs.

    python -m benchmarks.tracking [--epochs 5] [--rounds 3] [--out benchmarks/results/tracking.json]

Runs the pretrain command itself at the default size (configs/stones.yaml on the sample) against a SQLite store and
against an `mlflow server`, in turn. Everything that subscribers do is counted: metrics, pictures, heartbeat, display.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.servers import start_server

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

CHILD = """
import json, sys, time
from moola_mlflow import runtime
runtime.prepare_environment()
from moola_mlflow.cli import parse
from moola_mlflow.commands import pretrain
from moola_mlflow.signals import Interrupts
from moola_mlflow.trainer import Trainer

spent = {"events": 0.0, "fit": 0.0, "events_wall": 0.0, "fit_wall": 0.0}
emit, fit = Trainer._emit, Trainer.fit

def timed(function, name):
    def wrapper(*arguments):
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent[name] += time.process_time() - cpu
            spent[name + "_wall"] += time.perf_counter() - wall
    return wrapper

Trainer._emit, Trainer.fit = timed(emit, "events"), timed(fit, "fit")
config, preset, _ = parse("pretrain", ["--config", sys.argv[1], "--epochs", sys.argv[2], "--register", "none"])
pretrain.run(config, preset, Interrupts())
print(json.dumps(spent))
"""


def measure(uri: str, folder: str, epochs: int) -> dict[str, float]:
    """Run one training and return the CPU-seconds and wall seconds of the events and of the whole fit."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_RUN_ID", None)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(ROOT / "configs" / "stones.yaml"), str(epochs)],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "tracking.json")
    arguments = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {"SQLite": [], "server": []}
    with tempfile.TemporaryDirectory() as folder:
        process, uri = start_server(folder)
        try:
            for _ in range(arguments.rounds):
                rows["SQLite"].append(measure(f"sqlite:///{folder}/direct.db", folder, arguments.epochs))
                rows["server"].append(measure(uri, folder, arguments.epochs))
        finally:
            process.terminate()
            process.wait()
    print("| store | CPU share of an epoch, median (min to max) | wall share |\n|---|---|---|")
    for name, runs in rows.items():
        cpu = [run["events"] / run["fit"] for run in runs]
        wall = [run["events_wall"] / run["fit_wall"] for run in runs]
        print(
            f"| {name} | {statistics.median(cpu):.2%} ({min(cpu):.2%} to {max(cpu):.2%}) | "
            f"{statistics.median(wall):.2%} ({min(wall):.2%} to {max(wall):.2%}) |"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"cores": os.cpu_count(), "epochs": arguments.epochs, "runs": rows}) + "\n")


if __name__ == "__main__":
    main()
