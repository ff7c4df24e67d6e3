"""How long one waits: for `moola --help`, for `import moola_mlflow`, and for `moola pretrain` to take its first step.

    python -m benchmarks.startup [--rounds 5] [--smoke] [--out benchmarks/results/startup.json]

Wall seconds from the start of the process. A pre-training takes its first step as soon as its leak check is logged. It
is the default command on the sample; the store exists already.
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

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LIMITS_S = {"moola --help": 0.3, "moola pretrain --help": 0.3, "import moola_mlflow": 0.5, "pretrain, first step": 6.0}
COMMANDS = {
    "moola --help": ["-m", "moola_mlflow", "--help"],
    "moola pretrain --help": ["-m", "moola_mlflow", "pretrain", "--help"],
    "import moola_mlflow": ["-c", "import moola_mlflow"],
}


def environment(folder: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(ROOT)}


def wall(words: list[str], folder: str) -> float:
    """Return the seconds that a command takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=folder, env=environment(folder), check=True, capture_output=True)
    return time.perf_counter() - started


def first_step(folder: str, smoke: bool) -> float:
    """Return the seconds from the start of a pre-training's process to its first step."""
    size = ["--bars.sample_bars", "12000", "--encoder.hidden", "4"] if smoke else []
    words = ["-m", "moola_mlflow", "pretrain", "--epochs", "1", "--register", "none", *size]
    before = set(Path(folder).glob(".moola/runs/*"))
    started_at = time.time()
    subprocess.run([sys.executable, *words], cwd=folder, env=environment(folder), check=True, capture_output=True)
    (run,) = set(Path(folder).glob(".moola/runs/*")) - before
    for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if "leak/masked_sensitivity" in event.get("metrics", {}):
            return float(event["at"] - started_at)
    raise SystemExit("the journal holds no leak check")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="small and once")
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    arguments = parser.parse_args()
    rounds = 1 if arguments.smoke else arguments.rounds
    seconds: dict[str, list[float]] = {name: [] for name in LIMITS_S}
    with tempfile.TemporaryDirectory() as folder:
        wall(["-c", "import mlflow; mlflow.search_experiments()"], folder)
        for _ in range(rounds):
            for name, words in COMMANDS.items():
                seconds[name].append(wall(words, folder))
            seconds["pretrain, first step"].append(first_step(folder, arguments.smoke))
    print("| | seconds, median (min to max) | line |\n|---|---|---|")
    for name, values in seconds.items():
        shown = f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        print(f"| {name} | {shown} | {LIMITS_S[name]} |")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
