"""Five years of bars, start to registered encoder, through the command that users run.

    python -m benchmarks.speed.five_years [--preset stones] [--share 1.0] [--epochs 20] [--out FILE.json]

1,797,854 synthetic bars, configs/stones.yaml or another preset. A preset that counts steps, such as rules, takes no
epochs. ``--share 0.01`` is the smoke test: a hundredth of the bars, one epoch.
Time is wall time of the whole process, memory the peak of resident memory of the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FIVE_YEARS = 1_797_854


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="stones")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--smoke", action="store_true", help="--share 0.01")
    parser.add_argument("--set", nargs="*", default=[], help="further parameters, such as runtime.threads=2")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    share = 0.01 if arguments.smoke else arguments.share
    preset, counts_steps = ROOT / "configs" / f"{arguments.preset}.yaml", arguments.preset == "rules"
    few = {"trainer.steps": 100, "objective.num_rules": 32} if share <= 0.05 else {}
    length = few if counts_steps else {"epochs": arguments.epochs or (20 if share > 0.05 else 1)}
    out = arguments.out or RESULTS / (
        "five_years.json" if arguments.preset == "stones" else f"five_years_{arguments.preset}.json"
    )
    num_bars = round(FIVE_YEARS * share)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(ROOT)}
        environment.pop("MLFLOW_RUN_ID", None)
        pairs = [f"bars.sample_bars={num_bars}", *(f"{key}={value}" for key, value in length.items()), *arguments.set]
        command = [sys.executable, "-m", "moola_mlflow", "pretrain", "--config", str(preset)]
        started = time.perf_counter()
        done = subprocess.run([*command, *(f"--{pair}" for pair in pairs)], cwd=folder, env=environment, text=True,
                              capture_output=True)  # fmt: skip
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"exit {done.returncode}\n{done.stderr[-3000:]}")
        (results_file,) = Path(folder).rglob("training_results.json")
        results = json.loads(results_file.read_text())
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = results["history"]
    summary = {
        "preset": arguments.preset,
        "bars": num_bars,
        "epochs": len(rows),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss // 1024,
        "windows_per_second": [row["windows_per_second"] for row in rows],
        "best_val_loss": results["best_val_loss"],
        "registered": "moola-encoder version" in done.stdout,
    }
    print(
        f"{num_bars:,} bars, {len(rows)} epochs, start to registered encoder: {seconds / 60:.1f} minutes "
        f"({summary['cpu_seconds'] / 60:.1f} CPU-minutes), peak {summary['peak_mib']:,} MiB"
    )
    if not summary["registered"]:
        raise SystemExit(f"no encoder was registered:\n{done.stdout[-2000:]}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine(), "set": arguments.set, **summary}, indent=1) + "\n")


if __name__ == "__main__":
    main()
