"""How long short commands take: `moola data` on 15,000 rows, and `moola detect` on a day of 1,380 one-minute bars.

    python -m benchmarks.speed.commands [--rounds 5] [--only data] [--old CHECKOUT] [--smoke] [--out FILE]

Wall seconds from the start of the process to its end, and CPU seconds: of the process itself, and with its workers.
The first bounds the wall time from below, also where other work runs. ``--old`` names a checkout of an earlier version;
rounds then alternate between the two. The store exists already, and holds a detector with the prior reader.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic_months import machine
from moola_mlflow.bars.sample import generate_bars

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DATA, DETECT = "data, 15,000 rows", "detect, a day of bars"
LIMITS_S = {DATA: 2.5, DETECT: 3.0}
DETECTOR = "speed-detector"
COUNTED = """
import resource, sys

from moola_mlflow.__main__ import main

code = main()
print(*(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)), file=sys.stderr)
sys.exit(code)
"""
"""The console script, which ends with the CPU seconds of its process and of its children."""


def moola(folder: str, checkout: Path, *words: str) -> dict[str, float]:
    """Run a command; return its wall seconds and its CPU seconds."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "OMP_"))}
    environment = {**kept, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(checkout)}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", COUNTED, *words], cwd=folder, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}\n{done.stderr[-3000:]}")
    own, children = map(float, done.stderr.splitlines()[-1].split())
    return {"wall": seconds, "own_cpu": own, "all_cpu": own + children}


def make_detector(folder: str, small: bool) -> None:
    """Register a detector with the prior reader, on an encoder that was trained for 100 steps."""
    few = ["--trainer.steps", "3"] if small else ["--trainer.steps", "100"]
    tiny = ["--bars.sample_bars", "20000", "--encoder.hidden", "4"] if small else []
    rules = ["--config", str(ROOT / "configs" / "rules.yaml"), "--objective.num_rules", "40"]
    moola(folder, ROOT, "pretrain", *rules, *few, *tiny)
    (encoder,) = Path(folder).glob(".moola/runs/*/encoder")
    fit = ["--repeats", "1", "--cv.baselines", "quick", "--register", DETECTOR]
    moola(folder, ROOT, "finetune", "--encoder", str(encoder), *fit, *tiny[:2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="a part of the name of the row to measure")
    parser.add_argument("--old", type=Path, help="a checkout of an earlier version, to alternate with")
    parser.add_argument("--smoke", action="store_true", help="small and once: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS / "commands.json")
    arguments = parser.parse_args()
    checkouts = {"old": arguments.old.resolve()} if arguments.old else {}
    checkouts["new"] = ROOT
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            DATA: ["data", "--bars.path", "rows.csv", "--out", "bars.parquet", "--overwrite", "true"],
            DETECT: ["detect", "--bars.path", "day.csv", "--detector", f"models:/{DETECTOR}@candidate"],
        }
        commands = {name: words for name, words in commands.items() if arguments.only in name}
        generate_bars(15_000, 7).to_csv(Path(folder) / "rows.csv")
        generate_bars(1_380, 3).to_csv(Path(folder) / "day.csv")
        if DETECT in commands:
            make_detector(folder, arguments.smoke)
        measured: dict[str, list[dict[str, float]]] = {f"{n} ({which})": [] for n in commands for which in checkouts}
        for number in range(-1, 1 if arguments.smoke else arguments.rounds):  # the first round fills the caches
            for name, words in commands.items():
                for which, checkout in checkouts.items():
                    found = moola(folder, checkout, *words)
                    measured[f"{name} ({which})"] += [found] if number >= 0 else []
    print("| | wall seconds, median (min to max) | line | CPU seconds of the process | with its workers |")
    print("|---|---|---|---|---|")
    for name, rows in measured.items():
        shown = [[row[kind] for row in rows] for kind in ("wall", "own_cpu", "all_cpu")]
        cells = [f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" for values in shown]
        print(f"| {name} | {cells[0]} | {LIMITS_S[name.rpartition(' (')[0]]} | {cells[1]} | {cells[2]} |")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "smoke": arguments.smoke, "commands": measured}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
