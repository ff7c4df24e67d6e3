"""What an event detector with an encoder costs: a fine-tuning with all baselines, a scan of five years, a live bar.

    python -m benchmarks.speed.events [--encoder FOLDER] [--only finetune scan live] [--rounds 1] [--smoke] [--out FILE]

The fine-tuning: `moola finetune` on 350 windows, 5 folds x 3 repeats, all baselines, imports and figures included.
The scan: `moola detect` on 1,797,854 bars in parquet, from the start of the command to its page.
A live bar: what `LiveScan.add` takes, for each of some thousand bars; most bars complete no window and take nearly
nothing. So the slowest bars count.

The encoder is one of the preset `rules`, trained for 100 steps unless a folder is given: what it has learned changes no
speed. CPU seconds are those of all processes: they say more where other work runs too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FIVE_YEARS = 1_797_854
LIVE_BARS = 3000
SMALL_ENCODER = ["--encoder.hidden", "4", "--trainer.steps", "4", "--objective.num_rules", "8", "--register", "none"]
SMALL_TUNING = ["--folds", "2", "--repeats", "1", "--epochs", "1", "--cv.workers", "1"]
"""What a smoke run adds to the commands: the later of two equal words counts."""
LIMITS = {"finetune": 150.0, "scan": 90.0, "live": 50.0}
"""Wall seconds of the commands on two cores, and CPU milliseconds of a live bar."""


def moola(folder: Path, *words: str) -> dict[str, float]:
    """Run the command and return its wall and CPU seconds, those of its worker processes included."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    kept.pop("OMP_NUM_THREADS", None)
    environment = {**kept, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(ROOT)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "moola_mlflow", *words], cwd=folder, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}\n{done.stderr[-3000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "load": os.getloadavg()[0]}


def live(detector_folder: Path, num_bars: int) -> dict[str, float]:
    """Return the CPU milliseconds of bars that come one by one."""
    from moola_mlflow.bars import read_bars
    from moola_mlflow.core import BarsConfig, runtime
    from moola_mlflow.models import EventDetector, LiveScan, load_any_detector_folder

    runtime.tune_allocator()
    runtime.set_threads()
    detector = load_any_detector_folder(detector_folder)
    assert isinstance(detector, EventDetector)
    bars, took = read_bars(BarsConfig(sample_bars=num_bars, sample_seed=3)), []
    scan = LiveScan(detector)
    for time_ns, ohlc in zip(bars.time_ns.tolist(), bars.ohlc, strict=True):
        started = time.process_time()
        scan.add("sample", time_ns, ohlc)
        took.append(1e3 * (time.process_time() - started))
    read = np.sort(took)[-scan.num_windows :]
    return {
        "mean": float(np.mean(took)), "of_a_window": float(np.median(read)),
        "of_a_window_99": float(np.quantile(read, 0.99)), "slowest": float(read[-1]), "windows": scan.num_windows,
    }  # fmt: skip


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Return what each round measured."""
    small = arguments.smoke
    num_windows, num_bars, live_bars = (60, 12_000, 300) if small else (350, FIVE_YEARS, LIVE_BARS)
    encoder = arguments.encoder
    if encoder is None:
        quick = ["--trainer.steps", "100", "--objective.num_rules", "32", "--bars.sample_bars", "20000"]
        moola(folder, "pretrain", "--config", "rules", *quick, *(SMALL_ENCODER if small else []))
        (encoder,) = folder.glob(".moola/runs/*/encoder")
    bars = "200000" if not small else "20000"
    label = ["label", "--n", str(num_windows), "--label.rejects", "true", "--out", "labels.parquet"]
    moola(folder, *label, "--bars.sample_bars", bars)
    repeats = SMALL_TUNING if small else ["--folds", "5", "--repeats", "3"]
    tune = ["finetune", "--labels", "labels.parquet", "--encoder", str(Path(encoder).resolve()), *repeats]
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.only}
    if "finetune" not in rows:
        moola(folder, *tune[:5], "--repeats", "1", "--cv.baselines", "quick")
    elif not small:
        moola(folder, "presets")  # imports come from the disk's cache from now on
    if "scan" in rows:
        moola(folder, "data", "--bars", "sample", "--bars.sample_bars", str(num_bars), "--out", "years.parquet")
    for _ in range(1 if small else arguments.rounds):
        steps: dict[str, Callable[[], dict[str, float]]] = {
            "finetune": lambda: moola(folder, *tune),
            "scan": lambda: moola(
                folder, "detect", "--bars", "years.parquet", "--detector", "models:/moola-detector@candidate"
            ),
            "live": lambda: live(newest_detector(folder), live_bars),
        }
        for name in arguments.only:
            rows[name].append(steps[name]())
            print(name, {key: round(value, 1) for key, value in rows[name][-1].items()}, flush=True)
    return rows


def newest_detector(folder: Path) -> Path:
    """Return the folder of the newest detector."""
    return max(folder.glob(".moola/runs/*/detector"), key=lambda path: path.stat().st_mtime)


def summary(rows: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the median of each figure, its line and whether the line is met.

    >>> summary({"scan": [{"seconds": 80.0, "cpu_seconds": 150.0}]})
    {'scan': {'seconds': 80.0, 'cpu_seconds': 150.0, 'line': 90.0, 'met': True}}
    """
    out = {}
    for name, rounds in rows.items():
        middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        decisive = middle["slowest" if name == "live" else "seconds"]
        out[name] = {**middle, "line": LIMITS[name], "met": decisive < LIMITS[name]}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, help="folder of an encoder trained on rules")
    parser.add_argument("--only", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="small and once: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS / "events_speed.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), arguments)
    found = summary(rows)
    print(json.dumps(found, indent=1))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "smoke": arguments.smoke, "rows": rows, "summary": found}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
